from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.scoring.metrics import (
    AP_THRESHOLDS,
    Counts,
    Panoptic,
    matched_numbers,
    mean,
    object_counts,
    panoptic,
    pixel_counts,
    total_counts,
    total_panoptic,
)

counts = st.builds(Counts, *[st.integers(0, 1000)] * 3)


@given(counts)
def test_iou_follows_from_dice(c: Counts) -> None:
    if c.dice is None:
        assert c.iou is None
        assert c == Counts(0, 0, 0)
    else:
        assert c.iou == pytest.approx(c.dice / (2 - c.dice))


@given(st.lists(counts))
def test_counts_add_up(parts: list[Counts]) -> None:
    whole = total_counts(parts)
    assert (whole.tp, whole.fp, whole.fn) == tuple(
        sum(getattr(part, name) for part in parts) for name in ("tp", "fp", "fn")
    )


def test_pixel_counts_equal_three_nested_loops() -> None:
    rng = np.random.default_rng(0)
    truth, found, known = rng.random((3, 9, 7)) > 0.4
    expected = [0, 0, 0]
    for row in range(9):
        for column in range(7):
            if known[row, column]:
                t, f = truth[row, column], found[row, column]
                expected[0] += t and f
                expected[1] += f and not t
                expected[2] += t and not f
    assert pixel_counts(truth, found, known) == Counts(*map(int, expected))


def brute_force_matches(truth: np.ndarray, found: np.ndarray, threshold: float) -> int:
    """Maximum number of pairs with IoU >= threshold over all one-to-one assignments."""
    a = [truth == n for n in np.unique(truth) if n]
    b = [found == n for n in np.unique(found) if n]
    if len(a) > len(b):
        a, b = b, a
    close = [[(x & y).sum() / (x | y).sum() >= threshold - 1e-9 for y in b] for x in a]
    return max(
        (
            sum(close[i][j] for i, j in enumerate(order))
            for order in permutations(range(len(b)), len(a))
        ),
        default=0,
    )


def two_maps(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Two similar instance maps: squares, and the same with some pixels changed."""
    rng = np.random.default_rng(seed)
    truth = np.repeat(np.repeat(rng.integers(0, 5, (3, 3)), 2, 0), 2, 1).astype(np.int32)
    found = truth.copy()
    found[rng.random(truth.shape) < 0.3] = rng.integers(0, 5)
    return truth, found


@given(st.integers(0, 10_000))
def test_matching_equals_brute_force(seed: int) -> None:
    truth, found = two_maps(seed)
    for threshold, counted in zip((0.5, 0.7), object_counts(truth, found, (0.5, 0.7)), strict=True):
        assert counted.tp == brute_force_matches(truth, found, threshold)
        assert counted.tp + counted.fn == len(np.unique(truth[truth > 0]))
        assert counted.tp + counted.fp == len(np.unique(found[found > 0]))


def test_a_tie_at_half_is_matched_once() -> None:
    truth = np.array([[1, 1, 2, 2]], np.int32)
    found = np.array([[3, 3, 3, 3]], np.int32)
    assert object_counts(truth, found, (0.5,)) == (Counts(1, 0, 1),)


def test_scores_do_not_depend_on_object_numbers() -> None:
    rng = np.random.default_rng(3)
    truth = np.kron(rng.permutation(16).reshape(4, 4), np.ones((5, 5), int)).astype(np.int32)
    found = np.roll(truth, 1, axis=1)
    renamed = np.where(found > 0, 1000 - 7 * found, 0)
    assert object_counts(truth, found) == object_counts(truth, renamed)
    assert len(object_counts(truth, found)) == len(AP_THRESHOLDS) == 10


def test_scores_are_undefined_if_nothing_is_there_and_nothing_is_found() -> None:
    empty = np.zeros((4, 4), np.int32)
    assert object_counts(empty, empty)[0].dice is None
    assert mean([None, 0.5, 1.0]) == 0.75
    assert mean([None]) is None


@given(st.lists(st.sampled_from(["tp", "fp", "fn", "tn"]), min_size=1, max_size=40))
def test_precision_and_recall_equal_a_count_by_hand(pixels: list[str]) -> None:
    truth, found = (
        np.array([[p in names for p in pixels]]) for names in ({"tp", "fn"}, {"tp", "fp"})
    )
    counts = pixel_counts(truth, found, np.ones((1, len(pixels)), bool))
    tp = sum(p == "tp" for p in pixels)
    predicted, true = (sum(p in {"tp", other} for p in pixels) for other in ("fp", "fn"))
    assert counts.precision == (tp / predicted if predicted else None)
    assert counts.recall == (tp / true if true else None)


def naive_panoptic(truth: np.ndarray, found: np.ndarray) -> tuple[float, int, int, int]:
    """Sum of IoU, tp, fp, fn: every pair of objects, pixel by pixel."""
    iou_sum, pairs = 0.0, []
    for a in set(truth.ravel().tolist()) - {0}:
        for b in set(found.ravel().tolist()) - {0}:
            intersection = union = 0
            for x, y in zip(truth.ravel(), found.ravel(), strict=True):
                intersection += x == a and y == b
                union += x == a or y == b
            if intersection / union > 0.5:
                iou_sum += intersection / union
                pairs.append((a, b))
    n_truth, n_found = len(set(truth.ravel()) - {0}), len(set(found.ravel()) - {0})
    assert len({a for a, _ in pairs}) == len({b for _, b in pairs}) == len(pairs)
    return iou_sum, len(pairs), n_found - len(pairs), n_truth - len(pairs)


@given(st.integers(0, 10_000))
def test_panoptic_quality_equals_its_formula_pair_by_pair(seed: int) -> None:
    truth, found = two_maps(seed)
    scores = panoptic(truth, found)
    iou_sum, tp, fp, fn = naive_panoptic(truth, found)
    assert scores.counts == Counts(tp, fp, fn)
    assert scores.iou_sum == pytest.approx(iou_sum)
    if tp:
        assert scores.quality == pytest.approx(iou_sum / (tp + fp / 2 + fn / 2))
        assert scores.quality == pytest.approx(scores.segmentation * scores.recognition)
    else:
        assert scores.segmentation is None
        assert scores.quality == (0 if fp + fn else None)
    left, right = matched_numbers(truth, found)
    assert len(left) == len(right) == tp


def test_an_iou_of_half_is_a_match_for_f1_but_not_for_panoptic_quality() -> None:
    truth, found = np.array([[1, 1, 0]], np.int32), np.array([[1, 0, 0]], np.int32)
    assert panoptic(truth, found).counts.tp == 0
    assert object_counts(truth, found, (0.5,))[0].tp == 1
    both = total_panoptic([Panoptic(Counts(1, 0, 0), 0.75), Panoptic(Counts(0, 1, 1), 0.0)])
    assert both == Panoptic(Counts(1, 1, 1), 0.75)
