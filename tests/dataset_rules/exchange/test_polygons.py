import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from dataset_rules.exchange.polygons import filled, outline_of

AREAS = arrays(bool, st.tuples(st.integers(1, 14), st.integers(1, 14)))


def covered(area):
    result = np.zeros(area.shape, bool)
    result[filled(outline_of(*np.nonzero(area)))] = True
    return result


@given(AREAS.filter(np.any))
def test_object_of_one_part_is_restored_exactly_with_all_its_holes(area):
    _, parts = cv2.connectedComponents(area.astype(np.uint8), connectivity=8)
    part = parts == 1
    assert np.array_equal(covered(part), part)


@given(AREAS.filter(np.any))
def test_outline_of_several_parts_covers_them_all(area):
    assert covered(area)[area].all()


def test_parts_are_joined_by_the_shortest_line():
    area = np.zeros((9, 20), bool)
    area[2:6, 2:6] = area[3:7, 12:16] = True
    extra = covered(area) & ~area
    assert extra.sum() == 6  # columns 6 to 11 between the parts
    assert set(np.nonzero(extra)[1].tolist()) == set(range(6, 12))


def test_adjacent_holes_and_an_island_in_a_hole():
    area = np.ones((30, 30), bool)
    area[5:25, 3:12] = area[5:25, 14:27] = False
    assert np.array_equal(covered(area), area)
    area[10:15, 18:22] = True  # a second part, joined by a line through the hole
    assert (covered(area) & ~area).sum() == min(10 - 4, 18 - 13, 27 - 21, 25 - 14) - 1


@pytest.mark.parametrize("shape", [(1, 1), (1, 7), (7, 1), (2, 2)])
def test_smallest_objects_have_at_least_three_corners(shape):
    area = np.ones(shape, bool)
    assert len(outline_of(*np.nonzero(area))) >= 3
    assert np.array_equal(covered(area), area)
