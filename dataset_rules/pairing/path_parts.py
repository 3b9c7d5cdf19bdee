"""Cut paths into parts, to find two paths that differ in one part only."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_NODES = 3_000  # files and folders that are compared; the rest are matched by template only
WORD = re.compile(r"[0-9]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^0-9A-Za-z]")
_SEPARATORS = frozenset("_-. ()[]")  # delimit a word that may differ
_LAST_NUMBER = re.compile(r"(?<=[^0-9])[0-9]+$")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")

Segments = tuple[str, ...]


class Shape(StrEnum):
    """What represents the file or files of one sample."""

    FILE = "file"
    FOLDER = "folder"  # all images in a folder, identified by the parent folders
    NAMED_FOLDER = "named folder"  # all images in a folder named after the sample
    NUMBERED = "numbered"  # all images in a folder whose names differ in the trailing number


@dataclass(frozen=True)
class Node:
    """A file, or a folder representing its files, split into folders, name and suffix."""

    shape: Shape
    folders: Segments
    name: str
    suffix: str
    stem: str = ""  # of the only file in a folder
    is_single: bool = True


@dataclass(frozen=True)
class Cut:
    """A node with one run of folders and one run of its name taken out."""

    node: Node
    before: Segments
    run: Segments
    after: Segments
    head: str
    word: Segments
    tail: str

    def key(self, *, padded: bool) -> tuple[object, ...]:
        """The remaining parts; `padded` ignores leading zeros."""
        is_folder = self.node.shape is Shape.FOLDER
        names = (self.head, self.tail)
        if padded:
            names = (_LEADING_ZEROS.sub("", self.head), _LEADING_ZEROS.sub("", self.tail))
        return (is_folder, self.before, self.after, *names)


def nodes_among(paths: Sequence[str]) -> list[Node]:
    """Every file, and every folder in two roles; a sample if there are too many."""
    inside: dict[Segments, list[Node]] = defaultdict(list)
    for path in paths:
        *folders, file = path.split("/")
        name, dot, suffix = file.rpartition(".")
        inside[tuple(folders)].append(Node(Shape.FILE, tuple(folders), name, dot + suffix, name))
    nodes = [node for files in inside.values() for node in files]
    for place, files in inside.items():
        if place:
            nodes += _folder_nodes(place, files)
        nodes += _numbered_nodes(place, files)
    return _sampled(nodes)


def _folder_nodes(folders: Segments, files: Sequence[Node]) -> list[Node]:
    suffixes = {file.suffix for file in files}
    suffix = files[0].suffix if len(suffixes) == 1 else ""
    single = len(files) == 1
    stem = files[0].stem if single else ""
    return [
        Node(Shape.FOLDER, folders, "", suffix, stem, single),
        Node(Shape.NAMED_FOLDER, folders[:-1], folders[-1], suffix, stem, single),
    ]


def _numbered_nodes(folders: Segments, files: Sequence[Node]) -> list[Node]:
    """Files that may be the objects of one image: `7_obj1`, `7_obj2` become `7_obj`."""
    groups: dict[tuple[str, str], list[Node]] = defaultdict(list)
    for file in files:
        head = _LAST_NUMBER.sub("", file.name)
        if head not in {"", file.name}:
            groups[head, file.suffix].append(file)
    if all(len(group) == 1 for group in groups.values()):
        return []
    return [
        Node(Shape.NUMBERED, folders, head, suffix, is_single=len(group) == 1)
        for (head, suffix), group in groups.items()
    ]


def _sampled(nodes: list[Node]) -> list[Node]:
    """A sample of many nodes that keeps nodes with the same numbers or name together."""
    if len(nodes) <= MAX_NODES:
        return nodes
    groups: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        groups[_identity(node)].append(node)
    kept: list[Node] = []
    for identity in sorted(groups, key=lambda text: hashlib.sha256(text.encode()).digest()):
        if len(kept) >= MAX_NODES:
            break
        kept += groups[identity]
    return kept[: 2 * MAX_NODES]


def _identity(node: Node) -> str:
    """The numbers in a path without leading zeros, or the first word of the name."""
    numbers = re.findall("0*([0-9]+)", "/".join((*node.folders, node.name)))
    return " ".join(numbers) or "".join(WORD.findall(node.name)[:1]).lower()


def cuts_of(node: Node) -> Iterator[Cut]:
    """Every way to take one run of folders and one run of words out of a node."""
    count = len(node.folders)
    words = list(_word_cuts(node.name))
    for start in range(count + 1):
        for end in range(start, count + 1):
            before, run, after = node.folders[:start], node.folders[start:end], node.folders[end:]
            for head, word, tail in words:
                if before or after or head or tail:
                    yield Cut(node, before, run, after, head, word, tail)


def _word_cuts(name: str) -> Iterator[tuple[str, Segments, str]]:
    """Every way to take a run of words, possibly empty, out of a name.

    Numbers identify samples and stay, except one after the only word of a run at either end of
    the name (`7_stain01`).
    """
    words = tuple(WORD.findall(name))
    for start in range(len(words) + 1):
        for end in range(start, len(words) + 1):
            if not _is_exchangeable(words[start:end], is_whole=start == 0 or end == len(words)):
                continue
            if _may_stand_alone(words, start, end):
                yield "".join(words[:start]), words[start:end], "".join(words[end:])


def _is_exchangeable(run: Segments, *, is_whole: bool) -> bool:
    if not any(word[0].isdigit() for word in run):
        return True
    words = [word for word in run if word not in _SEPARATORS]
    return is_whole and len(words) == 2 and words[0].isalpha() and words[1].isdigit()


def _may_stand_alone(words: Segments, start: int, end: int) -> bool:
    """True for a run at an end of the name or between separators, not letters inside a hash."""
    if start == end:
        return start in {0, len(words)}
    if start == 0 or end == len(words):
        return True
    left = words[start - 1] in _SEPARATORS or words[start] in _SEPARATORS
    return left and (words[end] in _SEPARATORS or words[end - 1] in _SEPARATORS)
