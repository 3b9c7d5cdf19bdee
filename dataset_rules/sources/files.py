"""The files of a source, whether a folder or an archive that is read in place.

Files of a folder are used directly. A file of an archive is extracted to a spool folder on access
and deleted when its path is garbage-collected, so the spool only contains files in use. Each
process that reads the archive has a separate spool.
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
from dataset_rules.sources.archive import (
    as_rules_error,
    files_in,
    is_sequential,
    repack,
    with_archive_path,
)
from dataset_rules.sources.limits import LIMITS, Limits
from dataset_rules.sources.temporary import spool_folder

KEPT = 4  # recently used files to keep: most are read twice, first the header


class Files(Protocol):
    """Interface of sources: `files / "a/b.png"` is a path that can be opened."""

    def __truediv__(self, path: str, /) -> Path:
        """The file at this relative path."""


class _SpooledPath(type(Path())):  # type: ignore[misc]  # on 3.11 only the concrete class has subclasses
    """A weakly referenceable path, whose file is deleted with it."""


class ArchiveFiles:
    """Files of a zip or uncompressed tar, read in place."""

    def __init__(self, archive: Path, spools: Path, limits: Limits) -> None:
        """`spools` is a folder for this archive only; files are extracted below it."""
        self._archive, self._spools, self._limits = archive, spools, limits
        self._spool = spools / f"spool-{os.getpid()}"
        found = [(f.path, f.size_bytes, f.position) for f in files_in(archive, limits)]
        self._positions = {path: position for path, _, position in found}
        self.sizes = {path: size_bytes for path, size_bytes, _ in found}
        self._zip = ZipFile(archive) if any(isinstance(p, str) for _, _, p in found) else None
        self._in_use: WeakValueDictionary[str, Path] = WeakValueDictionary()
        self._recent: deque[Path] = deque(maxlen=KEPT)
        self._lock = threading.RLock()  # reentrant: finalizers may run during extraction

    def __truediv__(self, path: str, /) -> Path:
        with self._lock:
            spooled = self._in_use.get(path) or self._extract(path)
            self._recent.append(spooled)
            return spooled

    def __str__(self) -> str:
        return str(self._spool)

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return _reopened, (self._archive, self._spools, self._limits)

    def close(self) -> None:
        """Close the archive and release recently used files."""
        self._recent.clear()
        if self._zip is not None:
            self._zip.close()

    def _extract(self, path: str) -> Path:
        spooled: Path = _SpooledPath(self._spool / path)
        if path not in self._positions:
            return spooled  # as in a folder, opening it raises FileNotFoundError
        spooled.parent.mkdir(parents=True, exist_ok=True)
        weakref.finalize(
            spooled, _remove, path, str(spooled), self._in_use, self._lock
        ).atexit = False
        try:
            with as_rules_error(self._archive), spooled.open("wb") as out:
                self._copy(path, out)
        except RulesError as error:
            raise RulesError(
                "the file is damaged in its archive", where=str(spooled), found=error.found
            ) from error
        self._in_use[path] = spooled
        return spooled

    def _copy(self, path: str, out: IO[bytes]) -> None:
        position, left = self._positions[path], self.sizes[path]
        if self._zip is not None and isinstance(position, str):
            with self._zip.open(position) as file:
                shutil.copyfileobj(file, out)
            return
        with self._archive.open("rb") as raw:
            raw.seek(int(position))
            while left and (block := raw.read(min(left, 1 << 20))):
                out.write(block)
                left -= len(block)


def size_of(files: Files, path: str) -> int:
    """Size of a file in bytes, without extracting it."""
    known = files.sizes.get(path) if isinstance(files, ArchiveFiles) else None
    return (files / path).stat().st_size if known is None else known


@contextmanager
def open_files(source: Path, limits: Limits = LIMITS) -> Iterator[Files]:
    """Open the files of a folder or archive; extracted files are removed at the end.

    Raises:
        RulesError: if the archive is damaged or has members that are not accepted.
    """
    if not source.is_file():
        yield source
        return
    with spool_folder() as folder:
        archive = source
        if is_sequential(source):
            archive = folder / "repacked.zip"
            repack(source, archive, limits)
            limits = replace(limits, ratio=1 << 62)  # already checked for the original archive
        files = ArchiveFiles(archive, folder, limits)
        try:
            yield files
        except RulesError as error:
            raise with_archive_path(error, str(files), source) from error
        finally:
            files.close()


@cache
def _reopened(archive: Path, spools: Path, limits: Limits) -> ArchiveFiles:
    """The archive in another process, opened once however often it is unpickled."""
    return ArchiveFiles(archive, spools, limits)


def _remove(
    path: str, file: str, in_use: WeakValueDictionary[str, Path], lock: AbstractContextManager[Any]
) -> None:
    """Delete the file of a collected path, unless it has been extracted again meanwhile."""
    with lock, suppress(OSError):
        if path not in in_use:
            Path(file).unlink()
