from dataclasses import asdict
from math import pi, sqrt

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_rules.ground.errors import UserError
from unet.measurement.morphometry import measure_shapes


def disc(radius_px, side_px=120):
    row, col = np.mgrid[:side_px, :side_px] - side_px // 2
    return (row**2 + col**2 <= radius_px**2).astype(np.uint16)


def rectangle(height_px, width_px):
    mask = np.zeros((100, 100), np.uint16)
    mask[10 : 10 + height_px, 20 : 20 + width_px] = 1
    return mask


def blobs(seed):
    """Objects of any shape, including single pixels and lines."""
    rng = np.random.default_rng(seed)
    return np.where(rng.random((24, 24)) < 0.4, rng.integers(1, 6, (24, 24)), 0).astype(np.uint16)


@pytest.mark.parametrize("radius_px", [10, 25, 40])
def test_a_disc_measures_like_a_circle(radius_px):
    (shape,) = measure_shapes(disc(radius_px))
    assert shape.area_px == pytest.approx(pi * radius_px**2, rel=0.02)
    assert shape.perimeter_px == pytest.approx(2 * pi * radius_px, rel=0.04)
    assert shape.equivalent_diameter_px == pytest.approx(2 * radius_px, rel=0.01)
    assert shape.feret_max_px == pytest.approx(2 * radius_px + 1, abs=1)
    assert shape.eccentricity == pytest.approx(0, abs=0.05)
    assert shape.solidity > 0.92  # the hull closes the steps of the border
    assert shape.circularity > 0.92


def test_rectangle_has_its_area_diagonal_and_solidity():
    (shape,) = measure_shapes(rectangle(40, 70))
    assert shape.area_px == 2800
    assert shape.feret_max_px == pytest.approx(sqrt(40**2 + 70**2))
    assert shape.solidity == 1
    assert (shape.centroid_row_px, shape.centroid_col_px) == (29.5, 54.5)
    assert shape.eccentricity == pytest.approx(sqrt(1 - (40**2 - 1) / (70**2 - 1)), abs=0.01)


def test_sizes_in_micrometres_need_a_pixel_size():
    (shape,) = measure_shapes(disc(10))
    assert shape.area_um2 is None
    assert shape.perimeter_um is None
    (shape,) = measure_shapes(disc(10), pixel_size_um=0.5)
    assert shape.area_um2 == shape.area_px / 4
    assert shape.feret_max_um == shape.feret_max_px / 2


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), factor=st.floats(0.1, 10))
def test_pixel_size_times_k_gives_area_times_k_squared(seed, factor):
    once = measure_shapes(blobs(seed), pixel_size_um=0.3)
    scaled = measure_shapes(blobs(seed), pixel_size_um=0.3 * factor)
    for a, b in zip(once, scaled, strict=True):
        assert b.area_um2 == pytest.approx(a.area_um2 * factor**2)
        assert b.perimeter_um == pytest.approx(a.perimeter_um * factor)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_rotation_by_90_degrees_keeps_all_shape_measurements(seed):
    before, after = measure_shapes(blobs(seed)), measure_shapes(np.rot90(blobs(seed)))
    for a, b in zip(before, after, strict=True):
        kept = {k: v for k, v in asdict(a).items() if not k.startswith("centroid")}
        assert {k: asdict(b)[k] for k in kept} == pytest.approx(kept, abs=1e-6)


def test_numbers_of_objects_may_have_gaps_and_any_order():
    mask = np.zeros((40, 40), np.uint16)
    mask[2:12, 2:12], mask[20:25, 20:25] = 900, 7
    assert [(s.label, s.area_px) for s in measure_shapes(mask)] == [(7, 25), (900, 100)]


def test_empty_map_has_no_objects():
    assert measure_shapes(np.zeros((10, 10), np.uint16)) == ()


@pytest.mark.parametrize("size_um", [0, -1, float("nan"), float("inf")])
def test_an_invalid_pixel_size_is_refused(size_um):
    with pytest.raises(UserError, match="pixel size"):
        measure_shapes(disc(5, 20), pixel_size_um=size_um)
