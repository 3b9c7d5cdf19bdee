"""Classify the words in a path: image, ground truth, or derived from either."""

import re
from enum import StrEnum
from functools import lru_cache


def _words(words: str) -> frozenset[str]:
    return frozenset(words.split())


TRUTH = _words(
    "mask masks msk label labels lbl gt groundtruth ground truth annot annots annotation "
    "annotations annotated seg segs segmentation segmentations manual target targets gold"
)
IMAGE = _words(
    "image images img imgs im raw tissue photo photos picture pictures input inputs original "
    "originals orig slide slides frame frames source rgb ihc scan scans"
)
DERIVED = _words(
    "pred preds predict predicts predicted prediction predictions output outputs out result "
    "results overlay overlays prob probs probability probabilities heatmap heatmaps preview "
    "previews thumb thumbs thumbnail thumbnails vis visualization visualisation"
)
_MIN_AFFIX = 4  # shorter words occur inside others by chance ("im" in "dim")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+")


class Role(StrEnum):
    """What a word in a file name says about the file."""

    IMAGE = "image"
    TRUTH = "truth"
    DERIVED = "derived"


def words_of(text: str) -> list[str]:
    """Lower-case words of a path or part of one, separated by digits and punctuation."""
    return [word.lower() for word in _WORD.findall(text)]


def roles_in(text: str) -> set[Role]:
    """The roles indicated by the words of `text`.

    >>> sorted(roles_in("test_groundtruth"))
    [<Role.TRUTH: 'truth'>]
    """
    return {role for word in words_of(text) for role in _roles_of(word)}


@lru_cache(maxsize=4_096)
def _roles_of(word: str) -> frozenset[Role]:
    table = ((Role.IMAGE, IMAGE), (Role.TRUTH, TRUTH), (Role.DERIVED, DERIVED))
    return frozenset(role for role, known in table if _contains_known(word, known))


def _contains_known(word: str, known: frozenset[str]) -> bool:
    """True for a known word, alone or joined with another: `trainannot`, `labelcol`."""
    if word in known:
        return True
    return any(
        len(affix) >= _MIN_AFFIX and (word.startswith(affix) or word.endswith(affix))
        for affix in known
    )
