"""Confidence intervals of scores: bootstrap over groups, because images of a group are alike.

Every score is a quotient of sums over images, or a mean of such quotients. So a resample is a
weight per group, and one matrix product gives the score of all resamples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000  # the ends vary by about 1 % of the width between seeds
CONFIDENCE = 0.95
SEED = 0

Floats = NDArray[np.float64]
Interval = tuple[float, float]


@dataclass(frozen=True)
class Quotient:
    """A score: the mean over T of sum(numerators) / sum(denominators), both (images, T)."""

    numerators: Floats
    denominators: Floats


def pooled_quotient(pairs: Sequence[tuple[float, float]]) -> Quotient:
    """A score pooled over images, from one (numerator, denominator) per image."""
    columns = np.array(pairs, np.float64).reshape(-1, 2)
    return Quotient(columns[:, :1], columns[:, 1:])


def mean_quotient(values: Sequence[float | None]) -> Quotient:
    """A score averaged over the images where it is defined."""
    return pooled_quotient([(0.0, 0.0) if v is None else (v, 1.0) for v in values])


class Resamples:
    """Groups drawn with replacement, as many as there are; the same draws for every score.

    Args:
        groups: group of each image.
        seed: of the draws.
    """

    def __init__(self, groups: Sequence[str], *, seed: int = SEED) -> None:
        names = sorted(set(groups))
        self.groups = len(names)
        index = {name: i for i, name in enumerate(names)}
        self._group_of_image = np.array([index[name] for name in groups], np.int64)
        share = np.full(self.groups, 1 / max(1, self.groups))
        draws = np.random.default_rng(seed).multinomial(self.groups, share, RESAMPLES)
        self._weights = draws.astype(np.float64)  # (resamples, groups)

    def values(self, score: Quotient) -> Floats:
        """The score of each resample; NaN where it is undefined."""
        top, bottom = (self._weights @ self._by_group(sums) for sums in
                       (score.numerators, score.denominators))  # fmt: skip
        defined = bottom > 0
        found: Floats = np.where(defined, top / np.where(defined, bottom, 1), np.nan).mean(axis=1)
        return found

    def interval(self, score: Quotient) -> Interval | None:
        """The middle 95 % of the resamples; None for fewer than two groups."""
        return self._middle(self.values(score))

    def interval_of_difference(self, score: Quotient, other: Quotient) -> Interval | None:
        """The interval of `other` minus `score` on the same images and draws, so paired."""
        return self._middle(self.values(other) - self.values(score))

    def _by_group(self, values: Floats) -> Floats:
        sums = np.zeros((self.groups, values.shape[1]))
        np.add.at(sums, self._group_of_image, values)
        return sums

    def _middle(self, values: Floats) -> Interval | None:
        defined = values[np.isfinite(values)]
        if self.groups < 2 or not len(defined):
            return None
        ends = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        return float(ends[0]), float(ends[1])


def point_estimate(score: Quotient) -> float | None:
    """The score of all images; None if it is undefined."""
    top, bottom = score.numerators.sum(axis=0), score.denominators.sum(axis=0)
    return float((top / bottom).mean()) if (bottom > 0).all() else None
