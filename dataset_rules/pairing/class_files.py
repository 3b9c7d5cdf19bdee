"""Recognise masks of several classes in separate files by their disjoint areas.

Two masks of the same objects (a mask and a prediction, or masks by two annotators) overlap;
masks of two classes do not. Cases in between (a nucleus within its cell) become a question to
the user.
"""

import re
from collections.abc import Sequence
from itertools import combinations

import cv2

from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.masks.profile import FileProfile, Profiler, grid_array, overlap_of
from dataset_rules.pairing.keywords import words_of
from dataset_rules.pairing.pairs import MaskSource, Pairing
from dataset_rules.rules.template import Template

MAX_CLASS_OVERLAP = 0.2  # of two classes, as a share of the smaller area
MAX_MEAN_OBJECT_OVERLAP = 0.1  # of files with one object each, as a share of the smaller area
MAX_OBJECT_IMAGES = 3  # images whose object files are compared
MAX_NUMBERED = 9  # numbered files per image that may be classes
MIN_IMAGES = 3  # with the same numbers, for the numbers to count as classes
CLASS_WORDS = frozenset({"class", "cls", "c", "ch", "channel", "cat", "category", "kind", "type"})
MAX_COMPARED = 9  # images for which two classes are compared

Peer = tuple[Template, Pairing]


def class_sources(peers: Sequence[Peer], profile: Profiler) -> tuple[MaskSource, ...]:
    """One mask source per class, numbered in template order; empty if in doubt.

    Args:
        peers: mask templates for the same images, with their pairings.
        profile: returns the profile of a file.
    """
    if len(peers) < 2:
        return ()
    if not all(_are_disjoint(a, b, profile) for (_, a), (_, b) in combinations(peers, 2)):
        return ()
    templates = sorted((template for template, _ in peers), key=lambda t: t.text)
    names = _names_of([template.text for template in templates])
    return tuple(
        MaskSource(template, number, name)
        for number, (template, name) in enumerate(zip(templates, names, strict=True), start=1)
    )


def numbered_classes(
    template: Template, pairing: Pairing, profile: Profiler
) -> tuple[MaskSource, ...]:
    """One mask source per number if the numbered files of an image are classes, not objects.

    They are classes if all images have the same few numbers and either the word before the number
    says so or the files contain several areas, which a file of one object does not.
    """
    numbers = [tuple(_number_of(path) for path in pair.masks) for pair in pairing.pairs]
    first = numbers[0]
    if len(pairing.pairs) < MIN_IMAGES or len(first) > MAX_NUMBERED or set(numbers) != {first}:
        return ()
    word = next(iter(words_of(template.text.rpartition("/")[2].partition("{object")[0])[-1:]), "")
    if word not in CLASS_WORDS and not _have_several_areas(pairing, profile):
        return ()
    return tuple(
        MaskSource(Template(template.text.replace("{object:int}", number)), place)
        for place, number in enumerate(first, start=1)
    )


def _number_of(path: str) -> str:
    numbers: list[str] = re.findall("[0-9]+", path.rpartition(".")[0])
    return numbers[-1]


def _have_several_areas(pairing: Pairing, profile: Profiler) -> bool:
    """True if most of the files contain several areas that do not touch."""
    masks = [path for pair in pairing.pairs[:MAX_COMPARED] for path in pair.masks]
    grids = [found.grid for path in masks if isinstance(found := profile(path), FileProfile)]
    counts = [cv2.connectedComponents(grid_array(grid))[0] - 1 for grid in grids]
    return bool(counts) and sum(count > 1 for count in counts) > len(counts) / 2


def have_disjoint_objects(pairing: Pairing, profile: Profiler) -> bool:
    """True if the files of an image hardly overlap, as expected of object files.

    Masks of different images that are mistaken for objects of one image do overlap.
    """
    overlaps = []
    for pair in pairing.pairs[:MAX_OBJECT_IMAGES]:
        profiles = [
            found for p in pair.masks[:MAX_COMPARED] if isinstance(found := profile(p), FileProfile)
        ]
        drawn = [found for found in profiles if any(found.grid)]
        overlaps += [overlap_of(a, b) for a, b in combinations(drawn, 2)]
    return not overlaps or sum(overlaps) / len(overlaps) <= MAX_MEAN_OBJECT_OVERLAP


def class_note(sources: Sequence[MaskSource]) -> Finding:
    """A note on the files taken for classes, and how to override it."""
    listed = ", ".join(f"{source.template.text} ({source.class_id})" for source in sources)
    return Finding(
        code="class_files", severity=Severity.INFO,
        message=f"{len(sources)} masks of one image lie apart from each other and are read as "
        f"classes: {listed}",
        remedy="state source.image and source.mask if one of them alone is the mask",
    )  # fmt: skip


def _are_disjoint(a: Pairing, b: Pairing, profile: Profiler) -> bool:
    """True if some images have both masks and these overlap in none of them."""
    masks = {pair.image: pair.masks[0] for pair in b.pairs}
    both = [(p.masks[0], masks[p.image]) for p in a.pairs if p.image in masks]
    if any(left == right for left, right in both):
        return False
    profiles = [(profile(left), profile(right)) for left, right in both[:MAX_COMPARED]]
    overlaps = [
        overlap_of(left, right)
        for left, right in profiles
        if isinstance(left, FileProfile)
        and isinstance(right, FileProfile)
        and any(left.grid)
        and any(right.grid)
    ]
    return bool(overlaps) and max(overlaps) <= MAX_CLASS_OVERLAP


def _names_of(texts: Sequence[str]) -> list[str]:
    """The name of each class: the words of its template that not all templates share."""
    words = [words_of(text) for text in texts]
    shared = set(words[0]).intersection(*words[1:])
    return ["_".join(word for word in own if word not in shared) for own in words]
