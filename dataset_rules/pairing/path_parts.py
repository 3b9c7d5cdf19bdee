"""Paths cut into parts, so that two that agree in all but one part can be found."""

import hashlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

MAX_NODES = 3_000  # files and folders that are compared; the rest is matched by template only
WORD = re.compile(r"[0-9]+|[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^0-9A-Za-z]")
_SIGNS = frozenset("_-. ()[]")  # between which a word may be exchanged
_LAST_NUMBER = re.compile(r"(?<=[^0-9])[0-9]+$")
_LEADING_ZEROS = re.compile(r"(?<![0-9])0+(?=[0-9])")

Segments = tuple[str, ...]


class Shape(StrEnum):
    """What stands for the file or files of one sample."""

    FILE = "file"
    FOLDER = "folder"  # all images in a folder, told apart by the folders above
    NAMED_FOLDER = "named folder"  # all images in a folder that bears the name of the sample
    NUMBERED = "numbered"  # all images of a folder whose names differ in the number at the end


@dataclass(frozen=True)
class Node:
    """A file, or a folder that stands for its files, split into folders, name and suffix."""

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
        """All that is left; leading zeros do not count where numbers are `padded`."""
        is_folder = self.node.shape is Shape.FOLDER
        names = (self.head, self.tail)
        if padded:
            names = (_LEADING_ZEROS.sub("", self.head), _LEADING_ZEROS.sub("", self.tail))
        return (is_folder, self.before, self.after, *names)


def nodes_among(paths: Sequence[str]) -> list[Node]:
    """Every file, and every folder in two roles; a sample of them where they are many."""
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
    """Files that would be the objects of one image: `7_obj1`, `7_obj2` make `7_obj`."""
    alike: dict[tuple[str, str], list[Node]] = defaultdict(list)
    for file in files:
        head = _LAST_NUMBER.sub("", file.name)
        if head not in {"", file.name}:
            alike[head, file.suffix].append(file)
    if all(len(group) == 1 for group in alike.values()):
        return []
    return [
        Node(Shape.NUMBERED, folders, head, suffix, is_single=len(group) == 1)
        for (head, suffix), group in alike.items()
    ]


def _sampled(nodes: list[Node]) -> list[Node]:
    """A part of many nodes that keeps together what bears the same numbers or name."""
    if len(nodes) <= MAX_NODES:
        return nodes
    alike: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        alike[_identity(node)].append(node)
    kept: list[Node] = []
    for identity in sorted(alike, key=lambda text: hashlib.sha256(text.encode()).digest()):
        if len(kept) >= MAX_NODES:
            break
        kept += alike[identity]
    return kept[: 2 * MAX_NODES]


def _identity(node: Node) -> str:
    """The numbers in a path without leading zeros, else the first word of the name."""
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
    """Ways to take a run of words out of a name, also nothing, at either end.

    Numbers tell samples apart and stay, but for one behind the only word of a run at an end of the
    name (`7_stain01`).
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
    spoken = [word for word in run if word not in _SIGNS]
    return is_whole and len(spoken) == 2 and spoken[0].isalpha() and spoken[1].isdigit()


def _may_stand_alone(words: Segments, start: int, end: int) -> bool:
    """A run at an end of the name or between signs: not letters in the midst of a hash."""
    if start == end:
        return start in {0, len(words)}
    if start == 0 or end == len(words):
        return True
    left = words[start - 1] in _SIGNS or words[start] in _SIGNS
    return left and (words[end] in _SIGNS or words[end - 1] in _SIGNS)
