"""What the words in a path say: image, truth, or something derived from either."""

import re
from enum import StrEnum
from functools import lru_cache


def _known(words: str) -> frozenset[str]:
    return frozenset(words.split())


TRUTH = _known(
    "mask masks msk label labels lbl gt groundtruth ground truth annot annots annotation "
    "annotations annotated seg segs segmentation segmentations manual target targets gold"
)
IMAGE = _known(
    "image images img imgs im raw tissue photo photos picture pictures input inputs original "
    "originals orig slide slides frame frames source rgb ihc scan scans"
)
DERIVED = _known(
    "pred preds predict predicts predicted prediction predictions output outputs out result "
    "results overlay overlays prob probs probability probabilities heatmap heatmaps preview "
    "previews thumb thumbs thumbnail thumbnails vis visualization visualisation"
)
_MIN_AFFIX = 4  # shorter words also stand by chance inside others ("im" in "dim")

_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^\W\d_a-zA-Z]+")


class Role(StrEnum):
    """What a word says of the file that bears it."""

    IMAGE = "image"
    TRUTH = "truth"
    DERIVED = "derived"


def words_of(text: str) -> list[str]:
    """Lower-case words of a path or a part of one; digits and signs separate."""
    return [word.lower() for word in _WORD.findall(text)]


def roles_in(text: str) -> set[Role]:
    """The roles that the words of `text` name.

    >>> sorted(roles_in("test_groundtruth"))
    [<Role.TRUTH: 'truth'>]
    """
    return {role for word in words_of(text) for role in _roles_of(word)}


@lru_cache(maxsize=4_096)
def _roles_of(word: str) -> frozenset[Role]:
    table = ((Role.IMAGE, IMAGE), (Role.TRUTH, TRUTH), (Role.DERIVED, DERIVED))
    return frozenset(role for role, known in table if _is_named(word, known))


def _is_named(word: str, known: frozenset[str]) -> bool:
    """A known word, or one run together with another: `trainannot`, `labelcol`."""
    if word in known:
        return True
    return any(
        len(part) >= _MIN_AFFIX and (word.startswith(part) or word.endswith(part)) for part in known
    )
