"""Pixel scores and object scores, all derived from counts of tp, fp and fn.

An undefined score (nothing to find and nothing found) is None.
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
        return ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def iou(self) -> float | None:
        """Tp / (tp + fp + fn) (Jaccard 1912); of objects at one IoU threshold: precision of DSB."""
        return ratio(self.tp, self.tp + self.fp + self.fn)

    @property
    def precision(self) -> float | None:
        """Tp / (tp + fp): the share of what was found that is true; None if nothing was found."""
        return ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """Tp / (tp + fn): the share of the truth that was found; None if there is none."""
        return ratio(self.tp, self.tp + self.fn)


@dataclass(frozen=True)
class Panoptic:
    """Objects matched above IoU 0.5, and the sum of their IoU.

    Source: Kirillov et al. 2019, Panoptic Segmentation, eq. 1.
    """

    counts: Counts
    iou_sum: float

    def __add__(self, other: "Panoptic") -> "Panoptic":
        return Panoptic(self.counts + other.counts, self.iou_sum + other.iou_sum)

    @property
    def quality(self) -> float | None:
        """PQ = SQ x RQ; 0 if there are objects and none is matched."""
        return ratio(2 * self.iou_sum, 2 * self.counts.tp + self.counts.fp + self.counts.fn)

    @property
    def segmentation(self) -> float | None:
        """SQ: mean IoU of the matched objects; None if none is matched."""
        return ratio(self.iou_sum, self.counts.tp)

    @property
    def recognition(self) -> float | None:
        """RQ: F1 of the objects."""
        return self.counts.dice


def ratio(top: float, bottom: float) -> float | None:
    """A quotient; None if it is undefined."""
    return top / bottom if bottom else None


def total_counts(counts: Iterable[Counts]) -> Counts:
    """The sum of all counts."""
    return sum(counts, Counts(0, 0, 0))


def total_panoptic(matches: Iterable[Panoptic]) -> Panoptic:
    """The sum of all matches."""
    return sum(matches, Panoptic(Counts(0, 0, 0), 0.0))


def pixel_counts(
    truth: NDArray[np.bool_], found: NDArray[np.bool_], known: NDArray[np.bool_]
) -> Counts:
    """Counts of the known pixels where truth and prediction agree or differ (all HW)."""
    return Counts(
        int(np.count_nonzero(truth & found & known)),
        int(np.count_nonzero(~truth & found & known)),
        int(np.count_nonzero(truth & ~found & known)),
    )


def object_counts(
    truth: NDArray[np.int32], found: NDArray[np.int32], thresholds: Sequence[float] = AP_THRESHOLDS
) -> tuple[Counts, ...]:
    """Matched, extra and missed objects at each IoU threshold (>=), each object matched once.

    At an IoU of at least 0.5 a match is nearly always unique; ties are resolved by a maximum
    matching.

    Args:
        truth: instance map, HW.
        found: instance map, HW.
        thresholds: IoU, at least 0.5.
    """
    rows, columns, iou = _overlaps(truth, found)
    n_truth, n_found = _object_count(truth), _object_count(found)
    results = []
    for threshold in thresholds:
        close = iou >= threshold - 1e-9
        tp = _matching_size(rows[close], columns[close])
        results.append(Counts(tp, n_found - tp, n_truth - tp))
    return tuple(results)


def panoptic(truth: NDArray[np.int32], found: NDArray[np.int32]) -> Panoptic:
    """Objects matched above IoU 0.5, which makes each match unique (maps HW)."""
    _, _, iou = _overlaps(truth, found)
    matched = iou[iou > 0.5]
    tp = len(matched)
    return Panoptic(
        Counts(tp, _object_count(found) - tp, _object_count(truth) - tp), float(matched.sum())
    )


def matched_numbers(
    truth: NDArray[np.int32], found: NDArray[np.int32]
) -> tuple[frozenset[int], frozenset[int]]:
    """Numbers of the objects in both maps (HW) that are matched above IoU 0.5."""
    rows, columns, iou = _overlaps(truth, found)
    is_match = iou > 0.5
    return frozenset(map(int, rows[is_match])), frozenset(map(int, columns[is_match]))


def mean(values: Iterable[float | None]) -> float | None:
    """Mean of the defined values; None if there are none."""
    defined = [value for value in values if value is not None]
    return sum(defined) / len(defined) if defined else None


def _object_count(objects: NDArray[np.int32]) -> int:
    return len(np.unique(objects[objects > 0]))


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
