"""The grey levels that normalisation brings to 0 and 1, from a count of all values.

An image of any size is counted block by block; the levels are those of the whole image.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dataset_rules.images import Pixels

PERCENTILES = (0.5, 99.8)  # of the values of every second row and column

Levels = tuple[np.float64, np.float64]


def levels_of(blocks: Iterable[Pixels]) -> Levels:
    """What `numpy.percentile` gives for every second pixel of an image that comes in blocks."""
    counts, top = np.zeros(1 << 16, np.int64), 0
    for block in blocks:
        values = block[top % 2 :: 2, ::2].ravel()
        counts += np.bincount(values, minlength=len(counts))
        top += len(block)
    low, high = (_percentile(counts, percent) for percent in PERCENTILES)
    return low, high


def _percentile(counts: NDArray[np.int64], percent: float) -> np.float64:
    """Percentile of counted values, by a straight line between the two nearest ranks.

    Source: Hyndman & Fan, Sample quantiles in statistical packages, 1996, definition 7.
    """
    ranks = np.cumsum(counts)
    place = percent / 100 * (ranks[-1] - 1)
    below, share = int(np.floor(place)), place - np.floor(place)
    low, high = (float(np.searchsorted(ranks, rank, "right")) for rank in (below, below + 1))
    high = min(high, float(np.flatnonzero(counts)[-1]))
    # The end from which numpy starts depends on the nearer one.
    return np.float64(
        low + (high - low) * share if share < 0.5 else high - (high - low) * (1 - share)
    )
