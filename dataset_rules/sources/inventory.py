"""List the files of a source, sorted by path, without reading pixels."""

import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from dataset_rules.artifacts.seal import SEAL, UNFINISHED
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import IMAGE_SUFFIXES
from dataset_rules.pixels.slides import SLIDE_SUFFIXES, reads_slides
from dataset_rules.sources.files import ArchiveFiles, Files

JUNK_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})
ARCHIVE_SUFFIXES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


class Kind(StrEnum):
    """Kind of a file, by its name."""

    IMAGE = "image"
    OTHER = "other"
    ARCHIVE = "archive"
    SPECIAL = "special"
    SLIDE = "slide"
    JUNK = "junk"
    EXCLUDED = "excluded"


IGNORE_REASONS = {
    Kind.OTHER: "no image file",
    Kind.ARCHIVE: "an archive inside the source, which is not opened: unpack it to have it read",
    Kind.SPECIAL: "a link to a folder, a broken link, a pipe or a device: none of them is followed",
    Kind.SLIDE: "whole-slide files are read through openslide, which is not installed",
    Kind.JUNK: "left behind by an operating system or hidden",
    Kind.EXCLUDED: "excluded by the rules",
}


@dataclass(frozen=True)
class Entry:
    """A file of the source, with a relative path and forward slashes."""

    path: str
    size_bytes: int
    kind: Kind


def discover(source: Files, exclude: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    """All files of `source`, sorted by path.

    Args:
        source: a folder or an opened archive.
        exclude: literal relative paths, or shell patterns in which `*` also matches slashes.

    Raises:
        RulesError: if the folder does not exist or contains no files.
    """
    found = (
        _in_archive(source) if isinstance(source, ArchiveFiles) else _in_folder(Path(str(source)))
    )
    entries = [
        Entry(path, size_bytes or 0, _kind_of(path, exclude, is_file=size_bytes is not None))
        for path, size_bytes in found
    ]
    if not entries:
        raise RulesError(
            "the source is empty", where=str(source), expected="images and their masks",
            remedy="give the folder that contains them",
        )  # fmt: skip
    return tuple(sorted(entries, key=lambda entry: entry.path))


def _in_archive(source: ArchiveFiles) -> Iterator[tuple[str, int]]:
    """Path and size of each file; like in folders, our own datasets are skipped."""
    marks = {
        mark for path in source.sizes if (mark := path.rpartition("/"))[2] in {SEAL, UNFINISHED}
    }
    ours = tuple(f"{folder}/" for folder, slash, _ in marks if slash)
    return ((path, size) for path, size in source.sizes.items() if not path.startswith(ours))


def _in_folder(source: Path) -> Iterator[tuple[str, int | None]]:
    """Path of each file and its size in bytes, None for special files.

    Our own datasets inside the source are results and are skipped.
    """
    _require_folder(source)
    for directory, folders, names in os.walk(source, onerror=_raise_unreadable):
        parent = Path(directory)
        links = [name for name in folders if (parent / name).is_symlink()]
        folders[:] = [name for name in folders if not _is_ours(parent / name)]
        relative = parent.relative_to(source).as_posix()
        for name in [*names, *links]:
            yield (name if relative == "." else f"{relative}/{name}"), _size_of_file(parent / name)


def _require_folder(source: Path) -> None:
    if source.is_dir():
        return
    raise RulesError(
        "no such folder or archive" if not source.exists() else "not a folder",
        where=str(source), expected="a folder, zip, tar or compressed tar with images and masks",
    )  # fmt: skip


def _raise_unreadable(error: OSError) -> None:
    raise RulesError(
        "the folder cannot be read", where=str(error.filename), found=str(error.strerror)
    ) from error


def _is_ours(folder: Path) -> bool:
    return (folder / SEAL).is_file() or (folder / UNFINISHED).is_file()


def _size_of_file(path: Path) -> int | None:
    """Size in bytes, None for pipes, devices and files that cannot be read."""
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def _kind_of(path: str, exclude: tuple[str, ...], *, is_file: bool) -> Kind:
    segments = path.lower().split("/")
    if any(segment in JUNK_NAMES or segment.startswith(".") for segment in segments):
        return Kind.JUNK
    if any(path == pattern or fnmatchcase(path, pattern) for pattern in exclude):
        return Kind.EXCLUDED
    if not is_file:
        return Kind.SPECIAL
    if segments[-1].endswith(ARCHIVE_SUFFIXES):
        return Kind.ARCHIVE
    suffix = os.path.splitext(segments[-1])[1]  # noqa: PTH122  a string, not a Path
    if suffix in SLIDE_SUFFIXES:
        return Kind.IMAGE if reads_slides() else Kind.SLIDE
    return Kind.IMAGE if suffix in IMAGE_SUFFIXES else Kind.OTHER
