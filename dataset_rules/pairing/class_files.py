"""Masks of several classes, each in files of its own: known by areas that lie apart.

Two drawings of the same thing, a mask and a prediction or two annotators' masks, cover each
other; masks of two classes do not. What lies in between (a nucleus within its cell) is left to a
person.
"""

import re
from collections.abc import Sequence
from itertools import combinations

import cv2

from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.masks.profile import Look, Looker, as_area, overlap_of
from dataset_rules.pairing.keywords import words_of
from dataset_rules.pairing.pairs import MaskSource, Pairing
from dataset_rules.rules.template import Template

APART = 0.2  # of the smaller area at most is covered by both of two classes
APART_ON_AVERAGE = 0.1  # as `APART`, of files that show one object each
MAX_MANY = 3  # images of which such files are compared
MAX_NUMBERED = 9  # numbers that may be classes
MIN_IMAGES = 3  # that have the same numbers, before this says anything
CLASS_WORDS = frozenset({"class", "cls", "c", "ch", "channel", "cat", "category", "kind", "type"})
MAX_COMPARED = 9  # images in which two classes are compared

Peer = tuple[Template, Pairing]


def class_sources(peers: Sequence[Peer], look: Looker) -> tuple[MaskSource, ...]:
    """A source for each class, numbered in the order of the templates; none where there is doubt.

    Args:
        peers: templates of masks of the same images, with what they pair.
        look: at a file.
    """
    if len(peers) < 2:
        return ()
    if not all(_lie_apart(one, other, look) for (_, one), (_, other) in combinations(peers, 2)):
        return ()
    templates = sorted((template for template, _ in peers), key=lambda t: t.text)
    names = _names_of([template.text for template in templates])
    return tuple(
        MaskSource(template, number, name)
        for number, (template, name) in enumerate(zip(templates, names, strict=True), start=1)
    )


def numbered_classes(template: Template, pairing: Pairing, look: Looker) -> tuple[MaskSource, ...]:
    """A source for each number where the numbered files of an image are classes, not objects.

    Classes they are where all images have the same few numbers, and the word before the number
    says so or the files show several areas, which no file of one object does.
    """
    numbers = [tuple(_number_of(path) for path in pair.masks) for pair in pairing.pairs]
    first = numbers[0]
    if len(pairing.pairs) < MIN_IMAGES or len(first) > MAX_NUMBERED or set(numbers) != {first}:
        return ()
    word = next(iter(words_of(template.text.rpartition("/")[2].partition("{object")[0])[-1:]), "")
    if word not in CLASS_WORDS and not _show_several_areas(pairing, look):
        return ()
    return tuple(
        MaskSource(Template(template.text.replace("{object:int}", number)), place)
        for place, number in enumerate(first, start=1)
    )


def _number_of(path: str) -> str:
    numbers: list[str] = re.findall("[0-9]+", path.rpartition(".")[0])
    return numbers[-1]


def _show_several_areas(pairing: Pairing, look: Looker) -> bool:
    """True where most of the files show areas that do not touch."""
    masks = [path for pair in pairing.pairs[:MAX_COMPARED] for path in pair.masks]
    grids = [seen.grid for path in masks if isinstance(seen := look(path), Look)]
    counts = [cv2.connectedComponents(as_area(grid))[0] - 1 for grid in grids]
    return bool(counts) and sum(count > 1 for count in counts) > len(counts) / 2


def lie_apart(pairing: Pairing, look: Looker) -> bool:
    """True where the files of an image hardly cover each other, as those of objects do.

    Masks of different images would, when they are taken for objects of one.
    """
    overlaps = []
    for pair in pairing.pairs[:MAX_MANY]:
        looks = [seen for p in pair.masks[:MAX_COMPARED] if isinstance(seen := look(p), Look)]
        drawn = [seen for seen in looks if any(seen.grid)]
        overlaps += [overlap_of(one, other) for one, other in combinations(drawn, 2)]
    return not overlaps or sum(overlaps) / len(overlaps) <= APART_ON_AVERAGE


def class_note(sources: Sequence[MaskSource]) -> Finding:
    """What is taken for classes, and how to say otherwise."""
    said = ", ".join(f"{source.template.text} ({source.class_id})" for source in sources)
    return Finding(
        code="class_files", severity=Severity.INFO,
        message=f"{len(sources)} masks of one image lie apart from each other and are read as "
        f"classes: {said}",
        remedy="state source.image and source.mask if one of them alone is the mask",
    )  # fmt: skip


def _lie_apart(one: Pairing, other: Pairing, look: Looker) -> bool:
    """True where images with both masks were seen, and in none the masks cover each other."""
    masks = {pair.image: pair.masks[0] for pair in other.pairs}
    both = [(p.masks[0], masks[p.image]) for p in one.pairs if p.image in masks]
    if any(left == right for left, right in both):
        return False
    looks = [(look(left), look(right)) for left, right in both[:MAX_COMPARED]]
    seen = [
        overlap_of(left, right)
        for left, right in looks
        if isinstance(left, Look) and isinstance(right, Look) and any(left.grid) and any(right.grid)
    ]
    return bool(seen) and max(seen) <= APART


def _names_of(texts: Sequence[str]) -> list[str]:
    """The words that not all templates share, as the name of each class."""
    words = [words_of(text) for text in texts]
    shared = set(words[0]).intersection(*words[1:])
    return ["_".join(word for word in own if word not in shared) for own in words]
