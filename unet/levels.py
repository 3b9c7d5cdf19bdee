"""The grey levels that normalisation brings to 0 and 1, from a count of all values.

An image of any size is counted block by block; the levels are those of the whole image.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dataset_rules.images import Pixels

PERCENTILES = (0.5, 99.8)  # of the values of every second row and column

LEAST_SPAN = {1: 8, 2: 64}  # by bytes a value: an even image must not become pure noise

Levels = tuple[float, float]  # what becomes 0, and how far above it lies what becomes 1


def levels_of(blocks: Iterable[Pixels]) -> Levels:
    """The levels that `normalized` takes of a whole image, of one that comes in blocks of rows."""
    counts, top, least = np.zeros(1 << 16, np.int64), 0, 0
    for block in blocks:
        values = block[top % 2 :: 2, ::2].ravel()
        counts += np.bincount(values, minlength=len(counts))
        top += len(block)
        least = LEAST_SPAN[block.dtype.itemsize]
    low, high = (_percentile(counts, percent) for percent in PERCENTILES)
    return low, max(high - low, least)


def _percentile(counts: NDArray[np.int64], percent: float) -> float:
    """Percentile of counted values, by a straight line between the two nearest ranks.

    Source: Hyndman & Fan, Sample quantiles in statistical packages, 1996, definition 7.
    """
    ranks = np.cumsum(counts)
    place = percent / 100 * float(ranks[-1] - 1)
    below = math.floor(place)
    share = place - below
    low, high = (float(np.searchsorted(ranks, rank, "right")) for rank in (below, below + 1))
    high = min(high, float(np.flatnonzero(counts)[-1]))
    if share < 0.5:  # numpy starts from the nearer end
        return low + (high - low) * share
    return high - (high - low) * (1 - share)
