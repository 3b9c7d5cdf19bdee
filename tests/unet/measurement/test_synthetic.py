import numpy as np
import pytest
from scipy.ndimage import grey_dilation, label
from skimage.segmentation import clear_border

from dataset_rules.pixels.images import read_image, read_mask
from unet.measurement.synthetic import (
    MASKS,
    MAX_CUT,
    RADIUS_PX,
    SLIDES,
    draw_field,
    read_truth,
    write_messy_folder,
    write_unseen_fields,
)


@pytest.fixture(scope="module")
def fields():
    return [draw_field(np.random.default_rng([11, n])) for n in range(6)]


def test_same_seed_draws_the_same_field():
    a, b = (draw_field(np.random.default_rng(4), height_px=90, width_px=140) for _ in range(2))
    assert a.image.shape == (90, 140, 3)
    assert (a.image == b.image).all()
    assert (a.instances == b.instances).all()
    assert (a.positive == b.positive).all()


def test_every_nucleus_is_connected_and_counted(fields):
    for field in fields:
        numbers = np.unique(field.instances)
        assert numbers.tolist() == list(range(field.count + 1))
        assert all(label(field.instances == n)[1] == 1 for n in numbers[1:])


def test_nuclei_overlap_by_no_more_than_a_border(fields):
    smallest_px = (1 - MAX_CUT) * np.pi * RADIUS_PX[0] ** 2 * 0.55  # flattened and wobbling
    for field in fields:
        whole = clear_border(field.instances)
        areas = np.bincount(whole[whole > 0])
        assert areas[areas > 0].min() > smallest_px


def test_some_nuclei_touch(fields):
    touching = 0
    for field in fields:
        grown = grey_dilation(field.instances, 3)
        meets = (grown != field.instances) & (field.instances > 0)
        touching += len(np.unique(field.instances[meets]))
    assert 0.2 < touching / sum(field.count for field in fields) < 0.9


def test_brown_nuclei_are_brown_and_blue_ones_blue(fields):
    for field in fields:
        for number, is_positive in enumerate(field.positive, start=1):
            red, _, blue = field.image[field.instances == number].mean(axis=0)
            assert (red > blue) == is_positive


def test_share_of_positive_nuclei_differs_between_fields(fields):
    assert np.ptp([field.positive.mean() for field in fields]) > 0.2


def test_messy_folder_has_pairs_and_junk_and_is_reproducible(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    write_messy_folder(a, seed=3, fields=2)
    write_messy_folder(b, seed=3, fields=2)
    names = [path.relative_to(a).as_posix() for path in a.rglob("*") if path.is_file()]
    assert f"{SLIDES}/IHC_002.png" in names
    assert f"{MASKS}/IHC_002_nuclei.png" in names
    assert f"{SLIDES}/._IHC_001.png" in names
    assert all((a / name).read_bytes() == (b / name).read_bytes() for name in names)
    mask = read_mask(a / MASKS / "IHC_001_nuclei.png")
    assert mask.dtype == np.uint16
    assert mask.shape == read_image(a / SLIDES / "IHC_001.png").shape[:2]


def test_an_interrupted_messy_folder_is_completed(tmp_path):
    write_messy_folder(tmp_path, seed=3, fields=2)
    kept, lost = (tmp_path / SLIDES / f"IHC_00{n}.png" for n in (1, 2))
    before, time = lost.read_bytes(), kept.stat().st_mtime_ns
    lost.unlink()
    write_messy_folder(tmp_path, seed=3, fields=2)
    assert lost.read_bytes() == before
    assert kept.stat().st_mtime_ns == time


def test_unseen_fields_come_with_the_truth(tmp_path):
    paths = write_unseen_fields(tmp_path, seed=5, fields=2)
    field = draw_field(np.random.default_rng([5, 1]))
    assert [path.name for path in paths] == ["unseen_01.png", "unseen_02.png"]
    assert (read_image(paths[0]) == field.image).all()
    assert read_truth(tmp_path)["unseen_01"] == (field.count, field.positive_count)
