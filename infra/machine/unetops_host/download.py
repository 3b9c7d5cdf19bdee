"""Files downloaded to the volume: verified, and resumed after an interruption.

The standard-library counterpart of `dataset_rules/sources/download.py`. A file is stored under a
name made from its address, so that two addresses with equal file names do not collide. The partial
file grows next to it; a note records which version of the remote file it belongs to.
"""

import contextlib
import fcntl
import hashlib
import http.client
import json
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any
from urllib.parse import unquote, urlsplit

from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.files import write
from infra.machine.unetops_host.machine import Machine

MAX_TRIES = 5  # consecutive tries without a new byte
STALL_S = 60.0
MAX_PAUSE_S = 30.0
RESERVE_BYTES = 64 << 20  # free space to keep
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})  # transient status codes
WEB_PAGES = frozenset({"text/html", "application/xhtml+xml"})
HEX_DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Address:
    """Where a file is, what to name it, and its expected checksum."""

    url: str  # without fragment
    name: str
    checksum: tuple[str, str] | None  # algorithm, hexadecimal digits

    @property
    def shown(self) -> str:
        """The address without password and query, which may hold secrets."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


class _Broken(Exception):  # noqa: N818 - an error only if it keeps occurring
    """Transient failure; another try may succeed."""


class _KeepHttps(urllib.request.HTTPRedirectHandler):
    """Follows redirects, but not from https to http, where anybody may answer."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> Any:
        """The next request, or an error."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise HostError("the address redirects to one without https: nothing was fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(machine: Machine, text: str) -> Path:
    """Download a file to the volume, reusing what an earlier run fetched.

    A `#sha256=HEX` or `#md5=HEX` at the end of the address is verified.
    """
    address = address_of(text)
    folder = machine.mount / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(address.url.encode()).hexdigest()[:16]
    path = folder / f"{key}-{address.name}"
    with _file_lock(folder / f".{key}.lock", address):
        if not _is_fetched(address, path):
            _download(address, path)
    return path


def address_of(text: str) -> Address:
    """Parse an address; raises `HostError` if it cannot be fetched."""
    plain, _, fragment = text.partition("#")
    parts = urlsplit(plain)
    algorithm, _, digits = fragment.lower().partition("=")
    name = Path(unquote(parts.path)).name
    safe_name = "".join(char if char.isalnum() or char in "._-" else "_" for char in name)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not safe_name:
        raise HostError(f"{plain}: expected http(s)://.../FILE")
    if not fragment:
        return Address(plain, safe_name[-100:], None)
    if not re.fullmatch("[0-9a-f]+", digits) or len(digits) != HEX_DIGITS.get(algorithm):
        raise HostError(f"{plain}: expected #sha256= and 64 digits, or #md5= and 32, at its end")
    return Address(plain, safe_name[-100:], (algorithm, digits))


@contextlib.contextmanager
def _file_lock(lock: Path, address: Address) -> Iterator[None]:
    """Lock the file for this process; the lock ends with the process."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(f"{address.shown} is being fetched by another process") from error
        yield


def _is_fetched(address: Address, path: Path) -> bool:
    """Whether the file was fetched before and is still current."""
    if not path.exists():
        return False
    if address.checksum:
        return _digest(path, address.checksum[0]) == address.checksum[1]
    if (validator := _noted_validator(path)) is None:
        return False
    name = "If-None-Match" if validator.startswith('"') else "If-Modified-Since"
    with contextlib.suppress(_Broken), _answer(address, {name: validator}) as answer:
        is_same = _validator(answer) == validator
        return answer.status == 304 or (answer.status == 200 and is_same)
    return False


def _download(address: Address, path: Path) -> None:
    partial = path.with_name(f"{path.name}.part")
    best, failures = _size(partial), 0
    while True:
        try:
            _resume(address, partial)
            break
        except _Broken as error:
            failures = 0 if _size(partial) > best else failures + 1
            best = max(best, _size(partial))
            if failures >= MAX_TRIES:
                raise HostError(
                    f"{address.shown} cannot be fetched: {error}; rerun the command to resume"
                ) from error
            time.sleep(min(MAX_PAUSE_S, 2.0**failures / 2))
    _check(address, partial)
    partial.replace(path)
    _notes(partial).replace(_notes(path))


def _resume(address: Address, partial: Path) -> None:
    start, validator = _size(partial), _noted_validator(partial)
    if start and not validator and not address.checksum:
        start = 0  # nothing identifies the version of the file
    range_headers = {"Range": f"bytes={start}-"} if start else {}
    if start and validator:
        range_headers["If-Range"] = validator
    with _answer(address, range_headers) as answer:
        if answer.status == 416 and start and _total(answer) == start:
            return  # it was complete already
        _check_answer(address, answer, partial=partial, start=start)
        start = start if answer.status == 206 else 0
        total = _total(answer)
        _check_space(address, partial, (total or 0) - start)
        write(
            _notes(partial), json.dumps({"address": address.shown, "validator": _validator(answer)})
        )
        with partial.open("ab" if start else "wb") as out:
            _receive(answer, out)
            if total is not None and out.tell() != total:
                raise _Broken(f"received {out.tell()} of {total} bytes")


def _receive(answer: Any, out: IO[bytes]) -> None:
    while True:
        try:
            block = answer.read(1 << 20)
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(str(error)) from error
        if not block:
            return
        out.write(block)


@contextlib.contextmanager
def _answer(address: Address, headers: dict[str, str]) -> Iterator[Any]:
    """The server's response, whatever its status."""
    request = urllib.request.Request(address.url, headers=headers)  # noqa: S310 - see address_of
    try:
        answer: Any = urllib.request.build_opener(_KeepHttps).open(request, timeout=STALL_S)
    except urllib.error.HTTPError as error:
        answer = error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(error)) from error
    with answer:
        yield answer


def _check_answer(address: Address, answer: Any, *, partial: Path, start: int) -> None:
    if answer.status in TRANSIENT:
        raise _Broken(f"the server answered {answer.status}")
    content_range = answer.headers.get("Content-Range", "")
    is_elsewhere = answer.status == 206 and not content_range.startswith(f"bytes {start}-")
    if is_elsewhere or (answer.status == 416 and start):
        partial.unlink(missing_ok=True)
        raise _Broken("the server cannot continue where the partial file ends")
    if answer.status not in {200, 206}:
        raise HostError(f"{address.shown} cannot be fetched: the server answered {answer.status}")
    if answer.headers.get_content_type() in WEB_PAGES:
        raise HostError(f"{address.shown} is a web page, not a file")


def _check_space(address: Address, partial: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(partial.parent).free
    if size_bytes + RESERVE_BYTES > free:
        raise HostError(
            f"{address.shown}: no room for {size_bytes} bytes on {partial.parent}, {free} are "
            "free; delete files, or set a larger volumeGib"
        )


def _check(address: Address, partial: Path) -> None:
    if address.checksum is None:
        return
    algorithm, digits = address.checksum
    if (found := _digest(partial, algorithm)) != digits:
        partial.unlink()
        _notes(partial).unlink(missing_ok=True)
        raise HostError(f"{address.shown}: expected {algorithm} {digits}, found {found}; removed")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _total(answer: Any) -> int | None:
    """Size of the whole file in bytes, if the server states it."""
    content_range = answer.headers.get("Content-Range", "")
    if match := re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", content_range):
        return int(match[1])
    stated = answer.headers.get("Content-Length", "")
    return int(stated) if stated.isdigit() and answer.status == 200 else None


def _validator(answer: Any) -> str | None:
    """Identifies this version of the file: a strong ETag or the time of its last change."""
    tag: str = answer.headers.get("ETag", "")
    changed: str | None = answer.headers.get("Last-Modified")
    return tag if tag.startswith('"') else changed


def _notes(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _noted_validator(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        validator = json.loads(_notes(path).read_text())["validator"]
        return str(validator) if validator else None
    return None
