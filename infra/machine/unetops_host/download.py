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

TRIES = 5  # in a row without a byte more than before
STALL_S = 60.0
LONGEST_PAUSE_S = 30.0
RESERVE_BYTES = 64 << 20  # of free space that no file takes
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that another try may change
PAGES = frozenset({"text/html", "application/xhtml+xml"})
HEX_DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Address:
    """Where a file is, what it is named, and what it must be."""

    url: str  # without fragment
    name: str
    checksum: tuple[str, str] | None  # algorithm, hexadecimal digits

    @property
    def shown(self) -> str:
        """The address without password and query, which may hold secrets."""
        parts = urlsplit(self.url)
        return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()


class _Broken(Exception):  # noqa: N818 - no error unless it comes again and again
    """Another try may go on."""


class _KeepHttps(urllib.request.HTTPRedirectHandler):
    """Leads on, but not from https to http, where anybody may answer."""

    def redirect_request(
        self, req: Any, fp: Any, code: Any, msg: Any, headers: Any, newurl: Any
    ) -> Any:
        """The next request, or an error."""
        if req.type == "https" and urlsplit(newurl).scheme != "https":
            raise HostError("the address leads on to one without https: nothing was fetched")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(machine: Machine, text: str) -> Path:
    """The file on the volume; what an earlier run fetched of it is used.

    `#sha256=HEX` or `#md5=HEX` at the end of the address is compared with what came.
    """
    address = address_of(text)
    folder = machine.mount / "incoming"
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(address.url.encode()).hexdigest()[:16]
    path = folder / f"{key}-{address.name}"
    with _alone(folder / f".{key}.lock", address):
        if not _is_here(address, path):
            _download(address, path)
    return path


def address_of(text: str) -> Address:
    """The parts of an address; raises `HostError` where it is none that can be fetched."""
    plain, _, fragment = text.partition("#")
    parts = urlsplit(plain)
    algorithm, _, digits = fragment.lower().partition("=")
    name = Path(unquote(parts.path)).name
    kept = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not kept:
        raise HostError(f"{plain}: expected http(s)://.../FILE")
    if not fragment:
        return Address(plain, kept[-100:], None)
    if not re.fullmatch("[0-9a-f]+", digits) or len(digits) != HEX_DIGITS.get(algorithm):
        raise HostError(f"{plain}: expected #sha256= and 64 digits, or #md5= and 32, at its end")
    return Address(plain, kept[-100:], (algorithm, digits))


@contextlib.contextmanager
def _alone(lock: Path, address: Address) -> Iterator[None]:
    """Hold the file for this process; the lock ends with the process, however that ends."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise HostError(f"{address.shown} is being fetched by another process") from error
        yield


def _is_here(address: Address, path: Path) -> bool:
    """Whether the file was fetched before and is still what the address leads to."""
    if not path.exists():
        return False
    if address.checksum:
        return _digest(path, address.checksum[0]) == address.checksum[1]
    if (validator := _noted(path)) is None:
        return False
    name = "If-None-Match" if validator.startswith('"') else "If-Modified-Since"
    with contextlib.suppress(_Broken), _answer(address, {name: validator}) as answer:
        is_same = _validator(answer) == validator
        return answer.status == 304 or (answer.status == 200 and is_same)
    return False


def _download(address: Address, path: Path) -> None:
    part = path.with_name(f"{path.name}.part")
    best, failures = _size(part), 0
    while True:
        try:
            _go_on(address, part)
            break
        except _Broken as error:
            failures = 0 if _size(part) > best else failures + 1
            best = max(best, _size(part))
            if failures >= TRIES:
                raise HostError(
                    f"{address.shown} cannot be fetched: {error}; the same command goes on"
                ) from error
            time.sleep(min(LONGEST_PAUSE_S, 2.0**failures / 2))
    _check(address, part)
    part.replace(path)
    _notes(part).replace(_notes(path))


def _go_on(address: Address, part: Path) -> None:
    start, validator = _size(part), _noted(part)
    if start and not validator and not address.checksum:
        start = 0  # nothing would tell two states of the file apart
    asked = {"Range": f"bytes={start}-"} if start else {}
    if start and validator:
        asked["If-Range"] = validator
    with _answer(address, asked) as answer:
        if answer.status == 416 and start and _total(answer) == start:
            return  # it was whole already
        _refuse(address, answer, part=part, start=start)
        start = start if answer.status == 206 else 0
        total = _total(answer)
        _refuse_without_room(address, part, (total or 0) - start)
        write(_notes(part), json.dumps({"address": address.shown, "validator": _validator(answer)}))
        with part.open("ab" if start else "wb") as out:
            _receive(answer, out)
            if total is not None and out.tell() != total:
                raise _Broken(f"{out.tell()} of {total} bytes came")


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
    """What the server answers, whatever its status."""
    request = urllib.request.Request(address.url, headers=headers)  # noqa: S310 - see address_of
    try:
        answer: Any = urllib.request.build_opener(_KeepHttps).open(request, timeout=STALL_S)
    except urllib.error.HTTPError as error:
        answer = error
    except (OSError, http.client.HTTPException) as error:
        raise _Broken(str(error)) from error
    with answer:
        yield answer


def _refuse(address: Address, answer: Any, *, part: Path, start: int) -> None:
    if answer.status in PASSING:
        raise _Broken(f"the server answered {answer.status}")
    told = answer.headers.get("Content-Range", "")
    is_elsewhere = answer.status == 206 and not told.startswith(f"bytes {start}-")
    if is_elsewhere or (answer.status == 416 and start):
        part.unlink(missing_ok=True)
        raise _Broken("the server has no part that goes on where this one ends")
    if answer.status not in {200, 206}:
        raise HostError(f"{address.shown} cannot be fetched: the server answered {answer.status}")
    if answer.headers.get_content_type() in PAGES:
        raise HostError(f"{address.shown} leads to a page, not to a file")


def _refuse_without_room(address: Address, part: Path, size_bytes: int) -> None:
    free = shutil.disk_usage(part.parent).free
    if size_bytes + RESERVE_BYTES > free:
        raise HostError(
            f"{address.shown}: no room for {size_bytes} bytes on {part.parent}, {free} are free; "
            "delete what is not needed, or take a larger volumeGib"
        )


def _check(address: Address, part: Path) -> None:
    if address.checksum is None:
        return
    algorithm, digits = address.checksum
    if (found := _digest(part, algorithm)) != digits:
        part.unlink()
        _notes(part).unlink(missing_ok=True)
        raise HostError(f"{address.shown}: expected {algorithm} {digits}, found {found}; removed")


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _total(answer: Any) -> int | None:
    """Bytes of the whole file as far as the server states them."""
    told = answer.headers.get("Content-Range", "")
    if match := re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", told):
        return int(match[1])
    stated = answer.headers.get("Content-Length", "")
    return int(stated) if stated.isdigit() and answer.status == 200 else None


def _validator(answer: Any) -> str | None:
    """What names this state of the file: a strong ETag, or when it was last changed."""
    tag: str = answer.headers.get("ETag", "")
    changed: str | None = answer.headers.get("Last-Modified")
    return tag if tag.startswith('"') else changed


def _notes(path: Path) -> Path:
    return path.with_name(f".{path.name}.json")


def _noted(path: Path) -> str | None:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        validator = json.loads(_notes(path).read_text())["validator"]
        return str(validator) if validator else None
    return None
