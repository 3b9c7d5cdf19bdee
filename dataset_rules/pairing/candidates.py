"""Names -> candidate templates: in what way the path of one file turns into that of another.

Two paths are related where they are equal but for one run of folders and one run of words in the
name (`train/img_1.png`, `train_gt/label_1.png`). Files that are related in the same way make a
candidate: a template for images and one for masks. Nothing is chosen here. A folder stands for
the files in it where one image has many mask files (`7/images/7.png`, `7/masks/*.png`).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations

from dataset_rules.pairing.path_parts import Cut, Node, Segments, Shape, cuts_of, nodes_among
from dataset_rules.pairing.template_writer import added_to, write_templates

MAX_ALIKE = 40  # more files than this that share a key do not tell each other apart
_TURNS = {
    (Shape.FILE, Shape.FILE), (Shape.FOLDER, Shape.FOLDER), (Shape.FILE, Shape.NAMED_FOLDER),
    (Shape.FILE, Shape.NUMBERED),
}  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """Two templates that some files fit, and the words in which these differ."""

    image: str
    mask: str
    image_words: str
    mask_words: str
    support: int


def candidates_among(paths: Iterable[str], *, padded: bool = False) -> list[Candidate]:
    """Template pairs by which at least one path turns into another, most support first.

    Args:
        paths: of image files.
        padded: join numbers whatever their leading zeros (`img_7`, `mask_007`).
    """
    nodes = nodes_among(sorted(paths))
    groups: dict[tuple[object, ...], list[tuple[Cut, Cut]]] = defaultdict(list)
    for left, right in _related(nodes, padded=padded):
        groups[_manner(left, right)].append((left, right))
    made = {_candidate(pairs, padded=padded) for pairs in groups.values()}
    usable = [c for c in made if c is not None and c.image != c.mask]
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
    """The exchanged parts, as one text in which words can be looked up."""
    return " ".join(sorted({" ".join((*cut.run, "".join(cut.word))) for cut in cuts}))


def _related(nodes: Iterable[Node], *, padded: bool) -> Iterator[tuple[Cut, Cut]]:
    """Ordered pairs of cuts that agree in all that was left."""
    alike: dict[tuple[object, ...], list[Cut]] = defaultdict(list)
    for node in nodes:
        for cut in cuts_of(node):
            alike[cut.key(padded=padded)].append(cut)
    for cuts in alike.values():
        if 1 < len(cuts) <= MAX_ALIKE:
            for left, right in permutations(cuts, 2):
                if _may_turn_into(left, right):
                    yield left, right


def _may_turn_into(left: Cut, right: Cut) -> bool:
    shapes = (left.node.shape, right.node.shape)
    if shapes not in _TURNS or (shapes[0] is Shape.FOLDER and not left.node.is_single):
        return False
    if _is_said_elsewhere(left, right):
        return False
    return _is_shortest(left.run, right.run) and _is_shortest(left.word, right.word)


def _is_said_elsewhere(left: Cut, right: Cut) -> bool:
    """Nothing is exchanged, and it does not stand at the end: one of many equal cuts."""
    runs, words = left.run or right.run, left.word or right.word
    return bool((not runs and left.after) or (not words and left.tail))


def _is_shortest(left: Segments, right: Segments) -> bool:
    """The runs share neither their first nor their last part: a longer cut would say no more."""
    if not left or not right:
        return True
    return left[0] != right[0] and left[-1] != right[-1]


def _manner(left: Cut, right: Cut) -> tuple[object, ...]:
    """How the one path turns into the other, without what tells the samples apart."""
    same_place = left.run == right.run and left.word == right.word
    suffixes = (left.node.suffix, right.node.suffix) if same_place else ()
    return (
        left.node.shape, right.node.shape, added_to(left.run, right.run) or (left.run, right.run),
        left.word, right.word, bool(left.head), bool(left.tail), suffixes,
    )  # fmt: skip
