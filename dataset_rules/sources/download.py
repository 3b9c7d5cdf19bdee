"""One file over https: bounded, resumed where it broke off, checked."""

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
from dataset_rules.sources.http_client import Broken, Head, Refusal, Transport, answer
from dataset_rules.sources.limits import Progress, refuse_without_room

PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # answers that another try may change
PAGES = frozenset({"text/html", "application/xhtml+xml"})
LONGEST_PAUSE_S = 30.0


@dataclass(frozen=True)
class Bounds:
    """How much and how long."""

    size_bytes: int = 64 << 30
    stall_s: float = 60.0
    tries: int = 6  # in a row without a byte more than before
    pause_s: float = 1.0  # before the second try; doubled with each


BOUNDS = Bounds()


def fetch(
    address: Address,
    folder: Path,
    *,
    bounds: Bounds = BOUNDS,
    transport: Transport | None = None,
    on_progress: Progress | None = None,
) -> Path:
    """The file in `folder`; what an earlier call fetched of it is used.

    Args:
        address: of the file.
        folder: is made where it is absent. Files in it are named by their address.
        bounds: beyond them it is refused.
        transport: how machines are reached; None: freely, by the proxy of the environment.
        on_progress: called as bytes arrive.

    Raises:
        RulesError: if it cannot be had, is too large, or is not what the checksum says.
    """
    folder.mkdir(parents=True, exist_ok=True)
    key = hashlib.sha256(address.url.encode()).hexdigest()[:16]
    path = folder / f"{key}-{address.name}"
    with _alone(folder / f"{key}.lock", address):
        transfer = _Transfer(address, path, bounds, transport, on_progress)
        try:
            if not transfer.is_here():
                transfer.run()
        except Refusal as error:
            raise RulesError(
                "the file cannot be fetched", where=address.shown, found=str(error),
                expected="https to the end, with a certificate that is trusted",
            ) from error  # fmt: skip
    return path


class _Transfer:
    """One file on its way: `.part` grows, its notes say of which state of the file it is."""

    def __init__(
        self, address: Address, path: Path, bounds: Bounds, transport: Transport | None,
        on_progress: Progress | None,
    ) -> None:  # fmt: skip
        self.address, self.path, self.bounds = address, path, bounds
        self.transport, self.on_progress = transport, on_progress
        self.part = path.with_name(f"{path.name}.part")

    def is_here(self) -> bool:
        """True if the file was fetched before and is still what the address leads to."""
        if not self.path.exists():
            return False
        if self.address.checksum:
            return _digest(self.path, self.address.checksum[0]) == self.address.checksum[1]
        validator = _noted(self.path)
        if validator is None:
            return False
        name = "If-None-Match" if validator.startswith('"') else "If-Modified-Since"
        with suppress(Broken), self._answer({name: validator}) as (head, _):
            return head.status == 304 or (head.status == 200 and head.validator == validator)
        return False

    def run(self) -> None:
        """Fetch it, try after try."""
        best, failures = self._done(), 0
        while True:
            try:
                self._try()
                break
            except Broken as error:
                failures = 0 if self._done() > best else failures + 1
                best = max(best, self._done())
                if failures >= self.bounds.tries:
                    raise self._refused(
                        "the file cannot be fetched", found=str(error),
                        remedy="the same command goes on where it broke off",
                    ) from error  # fmt: skip
                time.sleep(min(LONGEST_PAUSE_S, self.bounds.pause_s * 2**failures))
        self._check()
        self.part.replace(self.path)
        _notes(self.part).replace(_notes(self.path))

    def _try(self) -> None:
        start, validator = self._done(), _noted(self.part)
        asked = {"Range": f"bytes={start}-"} if start else {}
        if start and validator:
            asked["If-Range"] = validator
        elif start and not self.address.checksum:
            asked = {}  # nothing would tell two states of the file apart
        with self._answer(asked) as (head, blocks):
            if head.status == 416 and start and _total_of(head) == start:
                return  # it was whole already
            self._refuse(head, start)
            start = start if head.status == 206 else 0
            total = _total_of(head) or 0
            self._refuse_size(total)
            refuse_without_room(self.path.parent, total - start, self.address.shown)
            self._note(head)
            with self.part.open("ab" if start else "wb") as out:
                self._receive(blocks, out, total)

    @contextmanager
    def _answer(self, headers: dict[str, str]) -> Iterator[tuple[Head, Iterator[bytes]]]:
        with answer(
            self.address.url, headers, stall_s=self.bounds.stall_s, transport=self.transport
        ) as found:
            yield found

    def _receive(self, blocks: Iterator[bytes], out: IO[bytes], total: int) -> None:
        done = out.tell()
        for block in blocks:
            done += len(block)
            self._refuse_size(done)
            out.write(block)
            if self.on_progress is not None:
                self.on_progress(done, total)
        if total and done != total:
            raise Broken(f"{done} of {total} bytes came")

    def _refuse(self, head: Head, start: int) -> None:
        if head.status in PASSING:
            raise Broken(f"the server answered {head.status}")
        is_elsewhere = head.status == 206 and not _goes_on_at(head, start)
        if is_elsewhere or (head.status == 416 and start):
            self.part.unlink(missing_ok=True)
            raise Broken("the server has no part that goes on where this one ends")
        if head.status not in {200, 206}:
            raise self._refused(
                "the server does not give the file", found=f"status {head.status}",
                remedy="open the address in a browser: it must start a download without a login",
            )  # fmt: skip
        kind = head.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind in PAGES:
            raise self._refused(
                "the address leads to a page, not to a file", expected="a zip or tar", found=kind,
                remedy="copy the address of the download itself; of Zenodo it is "
                "https://zenodo.org/records/NUMBER/files/NAME",
            )  # fmt: skip

    def _refuse_size(self, size_bytes: int) -> None:
        if size_bytes > self.bounds.size_bytes:
            self.part.unlink(missing_ok=True)
            raise self._refused(
                "the file is too large", expected=f"at most {self.bounds.size_bytes} bytes",
                found=f"{size_bytes} bytes or more",
            )  # fmt: skip

    def _check(self) -> None:
        if self.address.checksum is None:
            return
        algorithm, digits = self.address.checksum
        found = _digest(self.part, algorithm)
        if found != digits:
            self.part.unlink()
            raise self._refused(
                f"the file is another one than its {algorithm} says", expected=digits, found=found,
                remedy="correct the checksum if the file was renewed, else do not use the file",
            )  # fmt: skip

    def _refused(self, what: str, **parts: str) -> RulesError:
        return RulesError(what, where=self.address.shown, **parts)

    def _done(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _note(self, head: Head) -> None:
        told = {"address": self.address.shown, "validator": head.validator}
        _notes(self.part).write_text(json.dumps(told))


@contextmanager
def _alone(lock: Path, address: Address) -> Iterator[None]:
    """Hold the file for this process; the lock ends with the process, however that ends."""
    with lock.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RulesError(
                "another process is fetching this file", where=address.shown,
                remedy="wait for it, or end it",
            ) from error  # fmt: skip
        yield


def _notes(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def _noted(path: Path) -> str | None:
    with suppress(OSError, ValueError, KeyError, TypeError):
        validator = json.loads(_notes(path).read_text())["validator"]
        return str(validator) if validator else None
    return None


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def _total_of(head: Head) -> int | None:
    """Bytes of the whole file as far as the server states them."""
    if match := re.fullmatch(r"bytes (?:\d+-\d+|\*)/(\d+)", head.headers.get("content-range", "")):
        return int(match[1])
    stated = head.headers.get("content-length", "")
    return int(stated) if stated.isdigit() and head.status == 200 else None


def _goes_on_at(head: Head, start: int) -> bool:
    return head.headers.get("content-range", "").startswith(f"bytes {start}-")
