import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.objects.object_rows import split_objects
from unet.objects.splitting import Seeds, SplitSettings, renumbered
from unet.objects.targets import distance_map, objects_of, touching_pixels
from unet.scoring.metrics import object_counts


def two_touching_discs() -> np.ndarray:
    objects = np.zeros((40, 60), np.int32)
    cv2.circle(objects, (20, 20), 10, 1, -1)
    cv2.circle(objects, (39, 20), 10, 2, -1)
    return objects


def test_touching_objects_are_split() -> None:
    objects = two_touching_discs()
    foreground = objects > 0
    assert objects_of(foreground.astype(np.uint8), None).max() == 1
    distance = distance_map(objects).astype(np.float32) / 255
    found = split_objects(foreground, distance, SplitSettings())
    assert object_counts(objects, found, (0.9,))[0].dice == 1.0


def test_a_component_without_a_seed_is_one_object() -> None:
    foreground = two_touching_discs() > 0
    found = split_objects(foreground, np.zeros(foreground.shape, np.float32), SplitSettings())
    assert found.max() == 1
    assert ((found > 0) == foreground).all()


def test_objects_below_the_minimum_area_are_removed() -> None:
    objects = np.zeros((20, 20), np.int32)
    objects[2:4, 2:4] = 9
    objects[8:18, 8:18] = 5
    kept = renumbered(objects, min_area_px=5)
    assert set(np.unique(kept)) == {0, 1}
    assert (kept > 0).sum() == 100


@given(st.integers(0, 1000))
def test_renumbering_follows_row_order_and_keeps_every_pixel(seed: int) -> None:
    objects = np.random.default_rng(seed).integers(0, 9, (6, 6)).astype(np.int32)
    new = renumbered(objects)
    first = [np.flatnonzero(new.ravel() == n)[0] for n in range(1, new.max() + 1)]
    assert first == sorted(first)
    assert ((new > 0) == (objects > 0)).all()
    assert len({(a, b) for a, b in zip(objects.ravel(), new.ravel(), strict=True)}) == len(
        np.unique(objects)
    )


def test_distance_is_high_at_the_centre_and_low_where_objects_touch() -> None:
    objects = two_touching_discs()
    distance = distance_map(objects)
    assert distance[20, 20] > 210
    assert distance[20, 39] > 210
    assert distance[20, 29] < 40
    assert (distance[objects == 0] == 0).all()
    assert touching_pixels(objects)[20, 29]


def test_ignored_and_background_pixels_belong_to_no_object() -> None:
    mask = np.array([[0, 255, 1, 0, 2]], np.uint8)
    assert objects_of(mask, None).tolist() == [[0, 0, 1, 0, 2]]


@pytest.mark.parametrize("seeds", list(Seeds))
def test_an_image_full_of_foreground_is_one_object(seeds: Seeds) -> None:
    full = np.ones((20, 30), bool)
    settings = SplitSettings(seeds=seeds, level=0.5)
    assert split_objects(full, np.ones(full.shape, np.float32), settings).tolist() == (
        np.ones((20, 30), int).tolist()
    )
    assert np.isfinite(distance_map(full.astype(np.int32))).all()


@pytest.mark.parametrize("seeds", list(Seeds))
def test_an_image_without_foreground_has_no_object(seeds: Seeds) -> None:
    empty = np.zeros((20, 30), bool)
    assert not split_objects(
        empty, np.zeros(empty.shape, np.float32), SplitSettings(seeds=seeds)
    ).any()


@pytest.mark.parametrize(("seeds", "level"), [("core", 0.5), ("peak", 0.1), ("shape", 0.75)])
def test_each_kind_of_seed_splits_two_touching_discs(seeds: str, level: float) -> None:
    objects = two_touching_discs()
    settings = SplitSettings(seeds=Seeds(seeds), level=level)
    distance = distance_map(objects).astype(np.float32) / 255
    found = split_objects(objects > 0, distance, settings)
    assert object_counts(objects, found, (0.9,))[0].dice == 1.0
