"""Walk a source into a sorted list of entries: no pixels are read and nothing is decided."""

import os
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from pathlib import Path

from dataset_rules.errors import RulesError
from dataset_rules.images import IMAGE_SUFFIXES
from dataset_rules.manifest import BEGUN, SEAL

JUNK_NAMES = frozenset({"thumbs.db", "desktop.ini", "__macosx", "@eadir"})


class Kind(StrEnum):
    """What the name of a file says that it is."""

    IMAGE = "image"
    OTHER = "other"
    JUNK = "junk"
    EXCLUDED = "excluded"


WHY = {
    Kind.OTHER: "no image file",
    Kind.JUNK: "left behind by an operating system or hidden",
    Kind.EXCLUDED: "excluded by the rules",
}


@dataclass(frozen=True)
class Entry:
    """A file of the source; the path is relative to it, with forward slashes."""

    path: str
    size_bytes: int
    kind: Kind


def discover(source: Path, exclude: tuple[str, ...] = ()) -> tuple[Entry, ...]:
    """Every file below `source`, sorted by path.

    Args:
        source: a folder.
        exclude: relative paths as they are, or shell patterns in which `*` also crosses folders.

    Raises:
        RulesError: if there is no such folder, or no file in it.
    """
    _refuse_non_folder(source)
    entries = [_entry(source, path, exclude) for path in _files(source)]
    if not entries:
        raise RulesError(
            "the folder is empty", where=str(source), expected="images and their masks",
            remedy="name the folder that holds them",
        )  # fmt: skip
    return tuple(sorted(entries, key=lambda entry: entry.path))


def _refuse_non_folder(source: Path) -> None:
    if source.is_dir():
        return
    raise RulesError(
        "no such folder" if not source.exists() else "this is neither a folder nor an archive",
        where=str(source), expected="a folder, .zip, .tar or .tar.gz with images and masks",
    )  # fmt: skip


def _files(source: Path) -> list[Path]:
    """All files; our own datasets inside the source are results and are passed over."""
    found: list[Path] = []
    for place, folders, names in os.walk(source, onerror=_refuse_unreadable):
        here = Path(place)
        folders[:] = [name for name in folders if not _is_ours(here / name)]
        found += [here / name for name in names]
    return found


def _refuse_unreadable(error: OSError) -> None:
    raise RulesError(
        "the folder cannot be read", where=str(error.filename), found=str(error.strerror)
    ) from error


def _is_ours(folder: Path) -> bool:
    return (folder / SEAL).is_file() or (folder / BEGUN).is_file()


def _entry(source: Path, path: Path, exclude: tuple[str, ...]) -> Entry:
    relative = path.relative_to(source).as_posix()
    size = path.lstat().st_size
    return Entry(relative, size, _kind_of(relative, exclude))


def _kind_of(path: str, exclude: tuple[str, ...]) -> Kind:
    segments = path.lower().split("/")
    if any(segment in JUNK_NAMES or segment.startswith(".") for segment in segments):
        return Kind.JUNK
    if any(path == pattern or fnmatchcase(path, pattern) for pattern in exclude):
        return Kind.EXCLUDED
    suffix = os.path.splitext(segments[-1])[1]  # noqa: PTH122  a string here, not a path
    return Kind.IMAGE if suffix in IMAGE_SUFFIXES else Kind.OTHER
