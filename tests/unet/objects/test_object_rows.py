import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unet.objects import object_rows as objects_module
from unet.objects.object_rows import StreamingSplitter, split_objects
from unet.objects.splitting import Seeds, SplitSettings
from unet.objects.targets import distance_map

SPLITS = [
    SplitSettings(seeds=seeds, level=level, min_area_px=6)
    for seeds, level in [(Seeds.CORE, 0.5), (Seeds.PEAK, 0.1), (Seeds.SHAPE, 0.75)]
]


def nuclei(height: int, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Foreground and a noisy learned distance of ellipses that touch and overlap."""
    rng = np.random.default_rng(seed)
    objects = np.zeros((height, width), np.int32)
    for number in range(1, height * width // 200 + 2):
        centre = (int(rng.integers(width)), int(rng.integers(height)))
        axes = (int(rng.integers(2, 12)), int(rng.integers(2, 12)))
        cv2.ellipse(objects, centre, axes, int(rng.integers(180)), 0, 360, number, -1)
    noise = rng.normal(0, 0.02, objects.shape)
    return objects > 0, (distance_map(objects) / 255 + noise).clip(0, 1).astype(np.float32)


def in_blocks(foreground, distance, split, step, *, max_rows=None) -> tuple[np.ndarray, list]:
    splitter = StreamingSplitter(split, foreground.shape, max_rows=max_rows)
    classes = np.ones(foreground.shape, np.uint8)
    found = [
        splitter.push(*(a[top : top + step] for a in (foreground, distance, classes)))
        for top in range(0, len(foreground), step)
    ]
    return np.concatenate([rows.instances for rows in found]), found


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 90), st.integers(1, 90), st.integers(1, 40), st.sampled_from(SPLITS))
def test_objects_and_numbers_do_not_depend_on_the_blocks(
    height: int, width: int, step: int, split: SplitSettings
) -> None:
    foreground, distance = nuclei(height, width, height * 91 + width)
    whole = split_objects(foreground, distance, split)
    assert (in_blocks(foreground, distance, split, step)[0] == whole).all()


def test_rows_are_returned_before_the_last_ones_arrive() -> None:
    foreground, distance = nuclei(400, 60, 3)
    _, found = in_blocks(foreground, distance, SPLITS[1], 50)
    assert sum(len(rows.mask) for rows in found[:6]) > 100


def test_classes_are_kept_inside_objects() -> None:
    foreground, distance = nuclei(60, 60, 5)
    classes = np.random.default_rng(0).integers(1, 4, foreground.shape).astype(np.uint8)
    found = StreamingSplitter(SPLITS[0], foreground.shape).push(foreground, distance, classes)
    assert (found.instances == split_objects(foreground, distance, SPLITS[0])).all()
    assert found.instances.max() > 3
    assert (found.mask == np.where(found.instances > 0, classes, 0)).all()


@pytest.mark.parametrize("split", SPLITS, ids=str)
def test_a_component_taller_than_the_buffer_continues_below_the_cut(
    split: SplitSettings,
) -> None:
    """A bar from top to bottom stays one object, and few rows are pending."""
    foreground = np.zeros((500, 40), bool)
    foreground[:, 10:20] = True
    foreground[100:120, 25:35] = True
    distance = np.where(foreground, 0.9, 0).astype(np.float32)
    objects, found = in_blocks(foreground, distance, split, 25, max_rows=80)
    assert max(len(rows.mask) for rows in found) <= 110
    assert len(np.unique(objects[:, 10:20])) == 1
    assert len(np.unique(objects)) == 3


@pytest.mark.parametrize("split", SPLITS, ids=str)
@pytest.mark.parametrize("step", [7, 40])
def test_a_component_larger_than_a_cell_is_cut_on_a_grid_and_its_objects_continue(
    split: SplitSettings, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objects_module, "CELL_PX", 32)
    foreground = np.zeros((120, 150), bool)
    foreground[20:30, 5:140] = foreground[50:110, 70:80] = True
    _, distance = nuclei(120, 150, 1)
    distance = np.where(foreground, 0.9, distance * 0.1).astype(np.float32)
    whole = split_objects(foreground, distance, split)
    assert whole.max() == 2
    assert ((whole > 0) == foreground).all()
    foreground, distance = nuclei(120, 150, 8)
    foreground[:, 60:64] = True
    whole = split_objects(foreground, distance, split)
    assert (in_blocks(foreground, distance, split, step)[0] == whole).all()
    first = [np.flatnonzero(whole == number)[0] for number in range(1, whole.max() + 1)]
    assert first == sorted(first)


def test_an_empty_image_has_no_objects() -> None:
    none = np.zeros((30, 20), bool)
    assert not split_objects(none, none.astype(np.float32), SPLITS[0]).any()
