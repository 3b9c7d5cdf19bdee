"""Downloading a file over https: with limits, resuming and checksum verification."""

import fcntl
import hashlib
import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.address import Address
from dataset_rules.sources.http_client import (
    ResponseHead,
    TransferInterrupted,
    TransferRefused,
    Transport,
    stream_response,
)
from dataset_rules.sources.limits import Progress, require_free_space

RETRYABLE = frozenset({408, 425, 429, 500, 502, 503, 504})  # status codes
PAGES = frozenset({"text/html", "application/xhtml+xml"})
MAX_PAUSE_S = 30.0


@dataclass(frozen=True)
class Bounds:
    """Limits of size and time."""

    size_bytes: int = 64 << 30
    stall_s: float = 60.0
    tries: int = 6  # consecutive tries without progress
    pause_s: float = 1.0  # before the second try; doubles with each further try


BOUNDS = Bounds()


def fetch(
    address: Address,
    folder: Path,
    *,
    bounds: Bounds = BOUNDS,
    transport: Transport | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """Fetch a file into `folder`; resumes or reuses an earlier download.

    Args:
        address: of the file.
        folder: created if absent; file names in it derive from the address.
        bounds: larger or slower files are refused.
        transport: transport factory; None for unrestricted access through the environment's proxy.
        on_progress: called as bytes arrive.

    Raises:
        RulesError: if the file cannot be fetched, is too large, or does not match its checksum.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(address.url.encode()).hexdigest()[:16]
    path = folder / f"{key}-{address.name}"
    with _locked(folder / f"{key}.lock", address):
        transfer = _Transfer(address, path, bounds, transport, on_progress)
        try:
            if not transfer.is_current():
                transfer.run()
        except TransferRefused as error:
            raise RulesError(
                "the file cannot be fetched", where=address.redacted, found=str(error),
                expected="https for all redirects, with a trusted certificate",
            ) from error  # fmt: skip
    return path


class _Transfer:
    """Download of one file to `.part`; its metadata identify the version of the file."""

    def __init__(
        self, address: Address, path: Path, bounds: Bounds, transport: Transport | None,
        on_progress: Progress | None,
    ) -> None:  # fmt: skip
        self.address, self.path, self.bounds = address, path, bounds
        self.transport, self.on_progress = transport, on_progress
        self.part = path.with_name(f"{path.name}.part")

    def is_current(self) -> bool:
        """True if the file was fetched before and has not changed on the server."""
        if not self.path.exists():
            return False
        if self.address.checksum:
            return _digest(self.path, self.address.checksum[0]) == self.address.checksum[1]
        validator = _stored_validator(self.path)
        if validator is None:
            return False
        name = "If-None-Match" if validator.startswith('"') else "If-Modified-Since"
        with suppress(TransferInterrupted), self._request({name: validator}) as (head, _):
            return head.status == 304 or (head.status == 200 and head.validator == validator)
        return False

    def run(self) -> None:
        """Fetch the file with retries."""
        best, failures = self._received(), 0
        while True:
            try:
                self._try()
                break
            except TransferInterrupted as error:
                failures = 0 if self._received() > best else failures + 1
                best = max(best, self._received())
                if failures >= self.bounds.tries:
                    raise self._error(
                        "the file cannot be fetched", found=str(error),
                        remedy="run the same command again to resume",
                    ) from error  # fmt: skip
                time.sleep(min(MAX_PAUSE_S, self.bounds.pause_s * 2**failures))
        self._verify_checksum()
        self.part.replace(self.path)
        _metadata_path(self.part).replace(_metadata_path(self.path))

    def _try(self) -> None:
        start, validator = self._received(), _stored_validator(self.part)
        headers = {"Range": f"bytes={start}-"} if start else {}
        if start and validator:
            headers["If-Range"] = validator
        elif start and not self.address.checksum:
            headers = {}  # a changed file could not be detected
        with self._request(headers) as (head, blocks):
            if head.status == 416 and start and _total_of(head) == start:
                return  # already complete
            self._check_head(head, start)
            start = start if head.status == 206 else 0
            total = _total_of(head) or 0
            self._check_size(total)
            require_free_space(self.path.parent, total - start, self.address.redacted)
            self._store_validator(head)
            with self.part.open("ab" if start else "wb") as out:
                self._receive(blocks, out, total)

    @contextmanager
    def _request(self, headers: dict[str, str]) -> Iterator[tuple[ResponseHead, Iterator[bytes]]]:
        with stream_response(
            self.address.url, headers, stall_s=self.bounds.stall_s, transport=self.transport
        ) as response:
            yield response

    def _receive(self, blocks: Iterator[bytes], out: IO[bytes], total: int) -> None:
        done = out.tell()
        for block in blocks:
            done += len(block)
            self._check_size(done)
            out.write(block)
            if self.on_progress is not None:
                self.on_progress(done, total)
        if total and done != total:
            raise TransferInterrupted(f"{done} of {total} bytes received")

    def _check_head(self, head: ResponseHead, start: int) -> None:
        if head.status in RETRYABLE:
            raise TransferInterrupted(f"the server returned status {head.status}")
        is_wrong_range = head.status == 206 and not _continues_at(head, start)
        if is_wrong_range or (head.status == 416 and start):
            self.part.unlink(missing_ok=True)
            raise TransferInterrupted("the server cannot continue the partial file")
        if head.status not in {200, 206}:
            raise self._error(
                "the server does not provide the file", found=f"status {head.status}",
                remedy="open the address in a browser: it must start a download without a login",
            )  # fmt: skip
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in PAGES:
            raise self._error(
                "the address is a web page, not a file", expected="a zip or tar", found=kind,
                remedy="copy the address of the download itself; for Zenodo it is "
                "https://zenodo.org/records/NUMBER/files/NAME",
            )  # fmt: skip

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes > self.bounds.size_bytes:
            self.part.unlink(missing_ok=True)
            raise self._error(
                "the file is too large", expected=f"at most {self.bounds.size_bytes} bytes",
                found=f"{size_bytes} bytes or more",
            )  # fmt: skip

    def _verify_checksum(self) -> None:
        if self.address.checksum is None:
            return
        algorithm, digits = self.address.checksum
        found = _digest(self.part, algorithm)
        if found != digits:
            self.part.unlink()
            raise self._error(
                f"the file does not match its {algorithm}", expected=digits, found=found,
                remedy="correct the checksum if the file was updated, else do not use the file",
            )  # fmt: skip

    def _error(self, what: str, **parts: str) -> RulesError:
        return RulesError(what, where=self.address.redacted, **parts)

    def _received(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _store_validator(self, head: ResponseHead) -> None:
        metadata = {"address": self.address.redacted, "validator": head.validator}
        _metadata_path(self.part).write_text(json.dumps(metadata))


@contextmanager
def _locked(lock: Path, address: Address) -> Iterator[None]:
    """Lock the file for this process; the system releases the lock if the process dies."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RulesError(
                "another process is fetching this file", where=address.redacted,
                remedy="wait for it or stop it",
            ) from error  # fmt: skip
        yield


def _metadata_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _stored_validator(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        validator = json.loads(_metadata_path(path).read_text())["validator"]
        return str(validator) if validator else None
    return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _total_of(head: ResponseHead) -> int | None:
    """Size of the whole file in bytes, if the server states it."""
    if match := re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", head.headers.get("content-range", "")):
        return int(match[1])
    stated = head.headers.get("content-length", "")
    return int(stated) if stated.isdigit() and head.status == 200 else None


def _continues_at(head: ResponseHead, start: int) -> bool:
    return head.headers.get("content-range", "").startswith(f"bytes {start}-")
