"""File lists shipped with a dataset: the files they name, and which of these are present.

A list is a text file most of whose lines name image files (`/data/train/1.png /data/gt/1.png`)
or, without a suffix, stems of image files. The folders in a list need not be those of the source:
a name is present if some path ends in its last folder and file name, or in the file name alone if
it has no folder.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from dataset_rules.ground.findings import Finding, Severity, counted, join_limited
from dataset_rules.pixels.images import IMAGE_SUFFIXES
from dataset_rules.sources.files import Files

LIST_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".lst", ".list"})
MAX_LIST_BYTES = 16 << 20
MIN_NAMING_LINES = 0.5  # of the lines of a list: those that name an image
MAX_SHOWN = 3  # absent files in a message

_SPACES = str.maketrans(",;\t\"'", "     ")


@dataclass(frozen=True)
class FileList:
    """A list, the paths of the source that it names, and the names without a file."""

    path: str
    lines: int
    present: tuple[str, ...]
    absent: tuple[str, ...]
    complete_lines: int


def read_list(folder: Files, path: str, images: Sequence[str]) -> FileList | None:
    """Read a text file of the source as a list; None if it is not one.

    Args:
        folder: of the source.
        path: of the text file in it.
        images: all image files of the source.
    """
    lines = _lines_of(folder / path)
    index = _index_of(images)
    named = [names for line in lines if (names := _names_in(line, index))]
    if not lines or len(named) < MIN_NAMING_LINES * len(lines):
        return None
    found = [[(name, _found(name, index)) for name in names] for names in named]
    flat = [item for items in found for item in items]
    return FileList(
        path=path,
        lines=len(named),
        present=tuple(sorted({place for _, places in flat for place in places})),
        absent=tuple(sorted({name for name, places in flat if not places})),
        complete_lines=sum(all(places for _, places in items) for items in found),
    )


def lists_among(folder: Files, texts: Iterable[str], images: Sequence[str]) -> list[FileList]:
    """All lists among the other files of a source."""
    paths = [path for path in texts if os.path.splitext(path)[1].lower() in LIST_SUFFIXES]  # noqa: PTH122
    found = (read_list(folder, path, images) for path in paths)
    return [file_list for file_list in found if file_list is not None]


def check_lists(lists: Iterable[FileList]) -> list[Finding]:
    """Find files that a list names but the source lacks."""
    return [
        Finding(
            code="absent_files", severity=Severity.WARNING, paths=(file_list.path,),
            message=f"{file_list.path} lists {counted(file_list.lines, 'sample')}, "
            f"{file_list.complete_lines} of them are here; "
            f"{counted(len(file_list.absent), 'file')} that it names "
            f"{'is' if len(file_list.absent) == 1 else 'are'} absent: "
            + join_limited(file_list.absent, MAX_SHOWN, ", "),
            remedy="add the files, or go on without them: what is here is read",
        )
        for file_list in lists
        if file_list.absent
    ]  # fmt: skip


def _lines_of(file: Path) -> list[str]:
    try:
        if file.stat().st_size > MAX_LIST_BYTES:
            return []
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return []
    return [line for line in text.splitlines() if line.strip()]


def _index_of(images: Sequence[str]) -> Mapping[str, list[str]]:
    """All images by file name and by stem."""
    index: dict[str, list[str]] = defaultdict(list)
    for path in images:
        name = path.rpartition("/")[2]
        index[name].append(path)
        index[name.rpartition(".")[0]].append(path)
    return index


def _names_in(line: str, index: Mapping[str, list[str]]) -> list[str]:
    """Words of a line that are image paths; a lone word may also be the stem of an image."""
    words = line.strip().translate(_SPACES).split()
    names = [word for word in [line.strip(), *words] if _is_image(word)]
    if len(names) > 1 and names[0] == line.strip():
        names = names[:1] if line.strip() in index else names[1:]  # a name may contain spaces
    return names or [word for word in words[:1] if len(words) == 1 and word in index]


def _is_image(word: str) -> bool:
    return os.path.splitext(word)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  not a local path


def _found(name: str, index: Mapping[str, list[str]]) -> list[str]:
    """Paths that end in the last folder and file name of a listed name."""
    *folders, file = name.replace("\\", "/").strip("/").split("/")
    places = index.get(file, [])
    tail = f"{folders[-1]}/{file}" if folders else file
    return [path for path in places if not folders or f"/{path}".endswith(f"/{tail}")]
