"""File names -> candidate templates: how the path of one file turns into that of another.

Two paths are related if they differ only in one run of folders and one run of words in the name
(`train/img_1.png`, `train_gt/label_1.png`). Files that are related in the same way form a
candidate: a template for images and one for masks. This module does not choose between them. If
an image has many mask files (`7/images/7.png`, `7/masks/*.png`), the folder stands for them.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from dataset_rules.pairing.path_parts import Cut, Node, Segments, Shape, cuts_of, nodes_among
from dataset_rules.pairing.template_writer import added_to, write_templates

MAX_ALIKE = 40  # a key shared by more files than this is not distinctive
_RELATED_SHAPES = {
    (Shape.FILE, Shape.FILE), (Shape.FOLDER, Shape.FOLDER), (Shape.FILE, Shape.NAMED_FOLDER),
    (Shape.FILE, Shape.NUMBERED),
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """Two templates that match some files, and the words in which these files differ."""

    image: str
    mask: str
    image_words: str
    mask_words: str
    support: int


def candidates_among(paths: Iterable[str], *, padded: bool = False) -> list[Candidate]:
    """Pairs of templates that turn at least one path into another, best supported first.

    Args:
        paths: of image files.
        padded: ignore leading zeros when joining numbers (`img_7`, `mask_007`).
    """
    nodes = nodes_among(sorted(paths))
    groups: dict[tuple[object, ...], list[tuple[Cut, Cut]]] = defaultdict(list)
    for left, right in _related(nodes, padded=padded):
        groups[_relation(left, right)].append((left, right))
    found = {_candidate(pairs, padded=padded) for pairs in groups.values()}
    usable = [c for c in found if c is not None and c.image != c.mask]
    return sorted(usable, key=lambda c: (-c.support, c.image, c.mask, c.mask_words))


def _candidate(pairs: Sequence[tuple[Cut, Cut]], *, padded: bool) -> Candidate | None:
    images, masks = [left for left, _ in pairs], [right for _, right in pairs]
    texts = write_templates(images, masks, padded=padded)
    if texts is None:
        return None
    return Candidate(
        *texts, image_words=_words(images), mask_words=_words(masks),
        support=len({left.node for left in images}),
    )  # fmt: skip


def _words(cuts: Sequence[Cut]) -> str:
    """The parts that differ, joined into one text for word lookup."""
    return " ".join(sorted({" ".join((*cut.run, "".join(cut.word))) for cut in cuts}))


def _related(nodes: Iterable[Node], *, padded: bool) -> Iterator[tuple[Cut, Cut]]:
    """Ordered pairs of cuts whose remaining parts are equal."""
    by_key: dict[tuple[object, ...], list[Cut]] = defaultdict(list)
    for node in nodes:
        for cut in cuts_of(node):
            by_key[cut.key(padded=padded)].append(cut)
    for cuts in by_key.values():
        if 1 < len(cuts) <= MAX_ALIKE:
            for left, right in permutations(cuts, 2):
                if _may_turn_into(left, right):
                    yield left, right


def _may_turn_into(left: Cut, right: Cut) -> bool:
    shapes = (left.node.shape, right.node.shape)
    if shapes not in _RELATED_SHAPES or (shapes[0] is Shape.FOLDER and not left.node.is_single):
        return False
    if _is_redundant(left, right):
        return False
    return _is_shortest(left.run, right.run) and _is_shortest(left.word, right.word)


def _is_redundant(left: Cut, right: Cut) -> bool:
    """True for an empty cut that is not at the end: one of many equivalent cuts."""
    runs, words = left.run or right.run, left.word or right.word
    return bool((not runs and left.after) or (not words and left.tail))


def _is_shortest(left: Segments, right: Segments) -> bool:
    """True if the runs share neither their first nor their last part, so no shorter cut exists."""
    if not left or not right:
        return True
    return left[0] != right[0] and left[-1] != right[-1]


def _relation(left: Cut, right: Cut) -> tuple[object, ...]:
    """How one path turns into the other, independent of the sample."""
    same_place = left.run == right.run and left.word == right.word
    suffixes = (left.node.suffix, right.node.suffix) if same_place else ()
    return (
        left.node.shape, right.node.shape, added_to(left.run, right.run) or (left.run, right.run),
        left.word, right.word, bool(left.head), bool(left.tail), suffixes,
    )  # fmt: skip
