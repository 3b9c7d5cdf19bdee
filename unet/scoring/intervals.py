"""How sure a score is: bootstrap over groups, whose images are alike and stay together.

Every score here is a quotient of sums over images, or a mean of such quotients, so a resample
is a weight for each group: one matrix product gives the score of all resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000  # the ends move by about a hundredth of the width from seed to seed
CONFIDENCE = 0.95
SEED = 0

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Quotient:
    """A score as tops and bottoms by image, (N, T): the mean over T of sum(top) / sum(bottom)."""

    tops: Floats
    bottoms: Floats


def quotient(pairs: Sequence[tuple[float, float]]) -> Quotient:
    """Of one (top, bottom) an image."""
    both = np.array(pairs, np.float64).reshape(-1, 2)
    return Quotient(both[:, :1], both[:, 1:])


def mean_quotient(values: Sequence[float | None]) -> Quotient:
    """The mean over the images where a score is defined."""
    return quotient([(0.0, 0.0) if v is None else (v, 1.0) for v in values])


class Resamples:
    """Groups drawn with replacement, as many as there are, the same for every score.

    Args:
        groups: of each image, in the images' order.
        seed: of the draw.
    """

    def __init__(self, groups: Sequence[str], *, seed: int = SEED) -> None:
        names = sorted(set(groups))
        self.number = len(names)
        place = {name: i for i, name in enumerate(names)}
        self._group_of_image = np.array([place[name] for name in groups], np.int64)
        share = np.full(self.number, 1 / max(1, self.number))
        draws = np.random.default_rng(seed).multinomial(self.number, share, RESAMPLES)
        self._weights = draws.astype(np.float64)  # (resamples, groups)

    def values(self, score: Quotient) -> Floats:
        """The score of each resample; NaN where it is undefined."""
        tops, bottoms = (self._weights @ self._by_group(part) for part in
                         (score.tops, score.bottoms))  # fmt: skip
        defined = bottoms > 0
        found: Floats = np.where(defined, tops / np.where(defined, bottoms, 1), np.nan).mean(axis=1)
        return found

    def interval(self, score: Quotient) -> Interval | None:
        """The middle 95 % of the resamples; None for less than two groups."""
        return self._middle(self.values(score))

    def interval_of_difference(self, score: Quotient, other: Quotient) -> Interval | None:
        """Of `other` minus `score`, both of the same images: drawn together, so paired."""
        return self._middle(self.values(other) - self.values(score))

    def _by_group(self, part: Floats) -> Floats:
        sums = np.zeros((self.number, part.shape[1]))
        np.add.at(sums, self._group_of_image, part)
        return sums

    def _middle(self, values: Floats) -> Interval | None:
        defined = values[np.isfinite(values)]
        if self.number < 2 or not len(defined):
            return None
        ends = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(ends[0]), float(ends[1])


def point(score: Quotient) -> float | None:
    """The score of all images; None where it is undefined."""
    tops, bottoms = score.tops.sum(axis=0), score.bottoms.sum(axis=0)
    return float((tops / bottoms).mean()) if (bottoms > 0).all() else None
