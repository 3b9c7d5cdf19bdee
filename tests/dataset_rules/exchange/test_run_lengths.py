import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from pycocotools import mask as coco_mask

from dataset_rules.exchange.run_lengths import packed, unpacked
from dataset_rules.ground.errors import RulesError

AREAS = arrays(
    np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20)), elements=st.integers(0, 1)
)


def area_of(segmentation, height, width):
    area = np.zeros((height, width), np.uint8)
    area[unpacked(segmentation, height, width)] = 1
    return area


@given(AREAS.filter(np.any))
def test_encoding_equals_that_of_pycocotools_and_is_reversible(area):
    height, width = area.shape
    counts = packed(*np.nonzero(area), height, width)
    assert counts.encode() == coco_mask.encode(np.asfortranarray(area))["counts"]
    assert np.array_equal(area_of({"size": [height, width], "counts": counts}, height, width), area)


def test_uncompressed_runs_are_in_column_order():
    area = area_of({"size": [2, 3], "counts": [1, 2, 3]}, 2, 3)
    assert area.tolist() == [[0, 1, 0], [1, 0, 0]]


def test_polygons_are_rasterised_as_by_pycocotools():
    assert area_of([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6).tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 0, 0],
        [0, 0, 0, 0, 0, 0],
        [0, 0, 0, 0, 0, 0],
    ]


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [5, 6], "counts": [3, 4]}, "do not cover"),
        ({"size": [5, 6], "counts": [0, 31]}, "do not cover"),
        ({"size": [5, 6], "counts": [30, -1, 1]}, "not a list of numbers"),
        ({"size": [5, 6], "counts": [2**40]}, "not a list of numbers"),
        ({"size": [5, 6], "counts": "zzzzzzzzzzzzzz"}, "damaged"),
        ({"size": [5, 6], "counts": "P"}, "truncated"),
        ({"size": [5, 6], "counts": None}, "not a list of numbers"),
        ({"size": [6, 5], "counts": [30]}, "another size"),
        ([[1, 1, 2, 2]], "not a list of numbers"),
        ([[1, 1, 2, 2, 1e9, 3]], "outside the image"),
        ([[1, 1, 2, 2, float("nan"), 3]], "outside the image"),
        ([], "not a list of numbers"),
        (None, "neither polygons nor run lengths"),
    ],
)  # fmt: skip
def test_damaged_segmentations_are_rejected(segmentation, message):
    with pytest.raises(RulesError, match=message):
        unpacked(segmentation, 5, 6)


@given(st.text(max_size=12))
def test_any_text_is_decoded_or_rejected(counts):
    try:
        rows, columns = unpacked({"size": [5, 6], "counts": counts}, 5, 6)
    except RulesError:
        return
    assert ((rows >= 0) & (rows < 5) & (columns >= 0) & (columns < 6)).all()
