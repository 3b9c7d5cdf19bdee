"""Pixel scores and object scores: count tp, fp and fn once, derive every score.

A score that is undefined (nothing to find and nothing found) is None.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array
from scipy.sparse.csgraph import maximum_bipartite_matching

AP_THRESHOLDS = tuple(round(0.5 + 0.05 * i, 2) for i in range(10))


@dataclass(frozen=True)
class Counts:
    """True positives, false positives and false negatives, of pixels or of objects."""

    tp: int
    fp: int
    fn: int

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def dice(self) -> float | None:
        """2 tp / (2 tp + fp + fn), which is F1 (Dice 1945)."""
        total = 2 * self.tp + self.fp + self.fn
        return 2 * self.tp / total if total else None

    @property
    def iou(self) -> float | None:
        """Tp / (tp + fp + fn) (Jaccard 1912); of objects at one IoU threshold: precision of DSB."""
        total = self.tp + self.fp + self.fn
        return self.tp / total if total else None


def total(counts: Iterable[Counts]) -> Counts:
    """Counts added up."""
    return sum(counts, Counts(0, 0, 0))


def pixel_counts(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], known: NDArray[np.bool_]
) -> Counts:
    """Pixels where truth and finding agree or differ, of those that are known (all HW)."""
    return Counts(
        int(np.count_nonzero(truth & found & known)),
        int(np.count_nonzero(~truth & found & known)),
        int(np.count_nonzero(truth & ~found & known)),
    )


def object_counts(
    truth: NDArray[np.int32], found: NDArray[np.int32], thresholds: Sequence[float] = AP_THRESHOLDS
) -> tuple[Counts, ...]:
    """Matched, surplus and missed objects at each IoU threshold (>=), each object used once.

    From IoU 0.5 on a pair is nearly always unique; ties are settled by a maximum matching.

    Args:
        truth: instance map, HW.
        found: instance map, HW.
        thresholds: IoU from 0.5 on.
    """
    rows, columns, iou = _overlaps(truth, found)
    n_truth, n_found = len(np.unique(truth[truth > 0])), len(np.unique(found[found > 0]))
    results = []
    for threshold in thresholds:
        close = iou >= threshold - 1e-9
        tp = _matching_size(rows[close], columns[close])
        results.append(Counts(tp, n_found - tp, n_truth - tp))
    return tuple(results)


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the defined values, None if there is none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _overlaps(
    truth: NDArray[np.int32], found: NDArray[np.int32]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
    """Object numbers and IoU of every pair that shares a pixel."""
    width = int(found.max(initial=0)) + 1
    pairs, shared = np.unique(
        truth.ravel().astype(np.int64) * width + found.ravel(), return_counts=True
    )
    rows, columns = np.divmod(pairs, width)
    area_truth, area_found = np.bincount(truth.ravel()), np.bincount(found.ravel())
    both = (rows > 0) & (columns > 0)
    rows, columns, shared = rows[both], columns[both], shared[both]
    return rows, columns, shared / (area_truth[rows] + area_found[columns] - shared)


def _matching_size(rows: NDArray[np.int64], columns: NDArray[np.int64]) -> int:
    if not len(rows):
        return 0
    graph = csr_array((np.ones(len(rows), np.int8), (rows, columns)))
    return int(np.count_nonzero(maximum_bipartite_matching(graph, perm_type="column") >= 0))
