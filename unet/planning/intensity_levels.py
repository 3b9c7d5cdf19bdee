"""The grey levels that normalisation maps to 0 and 1, from a histogram of all values.

An image of any size is counted block by block; the levels are those of the whole image. A black
frame, left by cutting, padding or stitching, does not count (Isensee et al. 2021 crop it): 3 px
around a crop of 256 px would turn dark grey into black.
"""

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from dataset_rules.pixels.images import Pixels

PERCENTILES = (0.5, 99.8)  # of the values of every second row and column

MIN_SPAN = {1: 8, 2: 64}  # by bytes per value: a uniform image must not become pure noise

Levels = tuple[float, float]  # the value that becomes 0, and the span up to the one that becomes 1


def levels_of(blocks: Iterable[Pixels]) -> Levels:
    """The levels of an image given as blocks of rows (HW or HWC)."""
    counts, top, min_span = np.zeros(1 << 16, np.int64), 0, 0
    lit_rows: list[NDArray[np.bool_]] = []
    lit_columns = np.zeros(0, bool)
    for block in blocks:
        values = block[top % 2 :: 2, ::2]
        counts += np.bincount(values.ravel(), minlength=len(counts))
        is_lit = np.any(values if values.ndim == 3 else values[..., None], axis=2)
        lit_rows.append(is_lit.any(axis=1))
        lit_columns = is_lit.any(axis=0) | (lit_columns if lit_columns.size else False)
        top += len(block)
        min_span = MIN_SPAN[block.dtype.itemsize]
    rows = np.concatenate(lit_rows)
    frame_share = 1 - _span(rows) * _span(lit_columns) / (len(rows) * len(lit_columns))
    counts[0] -= round(frame_share * int(counts.sum()))
    low, high = (_percentile(counts, percent) for percent in PERCENTILES)
    return low, max(high - low, min_span)


def _span(is_lit: NDArray[np.bool_]) -> int:
    """Rows (or columns) from the first to the last that is not black; all if every one is."""
    lit = np.flatnonzero(is_lit)
    return int(lit[-1] - lit[0]) + 1 if len(lit) else len(is_lit)


def _percentile(counts: NDArray[np.int64], percent: float) -> float:
    """Percentile of a histogram, interpolated linearly between the two nearest ranks.

    Source: Hyndman & Fan, Sample quantiles in statistical packages, 1996, definition 7.
    """
    ranks = np.cumsum(counts)
    position = percent / 100 * float(ranks[-1] - 1)
    below = math.floor(position)
    share = position - below
    low, high = (float(np.searchsorted(ranks, rank, "right")) for rank in (below, below + 1))
    high = min(high, float(np.flatnonzero(counts)[-1]))
    if share < 0.5:  # like numpy, from the nearer end
        return low + (high - low) * share
    return high - (high - low) * (1 - share)
