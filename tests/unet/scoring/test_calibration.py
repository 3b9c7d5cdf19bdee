import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from unet.scoring.calibration import BINS, reliability, total_reliability

# Multiples of 1/997 except 0 and 1 are on no border of two bins.
prob = arrays.arrays(
    np.float32, (4, 6), elements=st.integers(0, 997).map(lambda n: float(np.float32(n / 997)))
)
marks = arrays.arrays(np.bool_, (4, 6))


@given(prob, marks, marks)
def test_the_error_equals_a_loop_over_bins_and_pixels(p, is_true, known) -> None:
    expected, pixels = 0.0, int(known.sum())
    for number in range(BINS):
        predicted, true = [], []
        for row in range(4):
            for column in range(6):
                value = float(p[row, column])
                inside = number / BINS <= value < (number + 1) / BINS
                if known[row, column] and (inside or (number == BINS - 1 and value == 1)):
                    predicted.append(value)
                    true.append(bool(is_true[row, column]))
        if predicted:
            gap = abs(sum(predicted) / len(predicted) - sum(true) / len(true))
            expected += len(predicted) / pixels * gap
    found = reliability(p, is_true, known)
    assert sum(found.pixels) == pixels
    if pixels:
        assert found.error == pytest.approx(expected, abs=1e-6)
    else:
        assert found.error is None


@given(prob, marks)
def test_bins_of_two_images_add_up(p, is_true) -> None:
    known = np.ones_like(is_true)
    halves = [reliability(p[i : i + 2], is_true[i : i + 2], known[:2]) for i in (0, 2)]
    whole, added = reliability(p, is_true, known), total_reliability(halves)
    assert added.pixels == whole.pixels
    assert added.true == whole.true
    assert added.predicted == pytest.approx(whole.predicted)


def test_a_probability_of_70_percent_that_is_true_for_70_of_100_is_calibrated() -> None:
    is_true = np.arange(100)[None] < 70
    known = np.ones_like(is_true)
    calibrated = reliability(np.full((1, 100), 0.7, np.float32), is_true, known)
    assert calibrated.error == pytest.approx(0, abs=1e-6)
    overconfident = reliability(np.full((1, 100), 0.95, np.float32), is_true, known)
    assert overconfident.error == pytest.approx(0.25, abs=1e-6)
    (bar,) = overconfident.document()["bins"]
    assert bar["pixels"] == 100
    assert bar["share"] == pytest.approx(0.7)
    assert bar["probability"] == pytest.approx(0.95)
