"""The files of a source, whether it is a folder or an archive that is read in place.

A folder's files are where they are. A file of an archive is brought into a spool when it is asked
for and leaves it when nobody holds its path any more, so the spool is never larger than what is
being looked at. Processes that share an archive have a spool each.
"""

import os
import shutil
import threading
import weakref
from collections import deque
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import IO, Any, Protocol
from weakref import WeakValueDictionary
from zipfile import ZipFile

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.archive import files_in, is_in_order, refusing, repack, told_of
from dataset_rules.sources.limits import LIMITS, Limits
from dataset_rules.sources.temporary import spool_folder

KEPT = 4  # files that stay for a moment: one is often read twice, header first


class Files(Protocol):
    """What every reader of a source needs: `files / "a/b.png"` is a path that can be opened."""

    def __truediv__(self, path: str, /) -> Path:
        """The file at this place of the source."""


class _Held(type(Path())):  # type: ignore[misc]  # on 3.11 only the concrete class has subclasses
    """A path that can be watched: when it is gone, so is the file."""


class Packed:
    """Files of a zip or a bare tar, read in place."""

    def __init__(self, archive: Path, spools: Path, limits: Limits) -> None:
        """`spools` is a folder for this archive alone; what is brought lies below it."""
        self._archive, self._spools, self._limits = archive, spools, limits
        self._spool = spools / f"spool-{os.getpid()}"
        found = [(f.path, f.size_bytes, f.place) for f in files_in(archive, limits)]
        self._places = {path: place for path, _, place in found}
        self.sizes = {path: size_bytes for path, size_bytes, _ in found}
        self._zip = ZipFile(archive) if any(isinstance(p, str) for _, _, p in found) else None
        self._lent: WeakValueDictionary[str, Path] = WeakValueDictionary()
        self._kept: deque[Path] = deque(maxlen=KEPT)
        self._lock = threading.RLock()  # paths may go, and be removed, while one is brought

    def __truediv__(self, path: str, /) -> Path:
        with self._lock:
            held = self._lent.get(path) or self._bring(path)
            self._kept.append(held)
            return held

    def __str__(self) -> str:
        return str(self._spool)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _reopened, (self._archive, self._spools, self._limits)

    def close(self) -> None:
        """Let go of the archive and of what was brought last."""
        self._kept.clear()
        if self._zip is not None:
            self._zip.close()

    def _bring(self, path: str) -> Path:
        held: Path = _Held(self._spool / path)
        if path not in self._places:
            return held  # as in a folder: opening it says that there is no such file
        held.parent.mkdir(parents=True, exist_ok=True)
        weakref.finalize(held, _remove, path, str(held), self._lent, self._lock).atexit = False
        try:
            with refusing(self._archive), held.open("wb") as out:
                self._copy(path, out)
        except RulesError as error:
            raise RulesError(
                "the file is damaged in its archive", where=str(held), found=error.found
            ) from error
        self._lent[path] = held
        return held

    def _copy(self, path: str, out: IO[bytes]) -> None:
        place, left = self._places[path], self.sizes[path]
        if self._zip is not None and isinstance(place, str):
            with self._zip.open(place) as file:
                shutil.copyfileobj(file, out)
            return
        with self._archive.open("rb") as raw:
            raw.seek(int(place))
            while left and (block := raw.read(min(left, 1 << 20))):
                out.write(block)
                left -= len(block)


def size_of(files: Files, path: str) -> int:
    """Bytes of a file, without bringing it."""
    known = files.sizes.get(path) if isinstance(files, Packed) else None
    return (files / path).stat().st_size if known is None else known


@contextmanager
def opened_files(source: Path, limits: Limits = LIMITS) -> Iterator[Files]:
    """The files of a folder or an archive; of an archive nothing stays behind.

    Raises:
        RulesError: if the archive is damaged or holds what no archive should.
    """
    if not source.is_file():
        yield source
        return
    with spool_folder() as place:
        archive = source
        if is_in_order(source):
            archive = place / "repacked.zip"
            repack(source, archive, limits)
            limits = replace(limits, ratio=1 << 62)  # the archive itself was judged already
        packed = Packed(archive, place, limits)
        try:
            yield packed
        except RulesError as error:
            raise told_of(error, str(packed), source) from error
        finally:
            packed.close()


@cache
def _reopened(archive: Path, spools: Path, limits: Limits) -> Packed:
    """The archive in another process: opened once, however often it is sent there."""
    return Packed(archive, spools, limits)


def _remove(
    path: str, file: str, lent: WeakValueDictionary[str, Path], lock: AbstractContextManager[Any]
) -> None:
    """Remove a file whose path is gone, unless it was brought anew in this very moment."""
    with lock, suppress(OSError):
        if path not in lent:
            Path(file).unlink()
