import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from skimage import measure
from skimage.morphology import skeletonize

from dataset_rules.formatting.image_form import binarized, convert_image, in_color_model
from dataset_rules.formatting.resize import Part, _share, fitted, resize_label
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import read_image, read_mask
from dataset_rules.rules.fields import Fit
from dataset_rules.rules.rules import Rules
from tests.messy import tissue

SIDES = st.integers(1, 40)


def part(height, width, *, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, (height, width), np.uint8)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    return Part(image, label, (label > 0).astype(np.uint16) * 9)


def fit(source, kind, height, width):
    return fitted(source, Rules(fit=kind, height=height, width=width))


@settings(max_examples=60, deadline=None)
@given(SIDES, SIDES, st.sampled_from([Fit.STRETCH, Fit.PAD, Fit.TILE]), SIDES, SIDES)
def test_every_part_has_the_requested_size_and_only_known_classes(height, width, kind, to, across):
    parts = fit(part(height, width), kind, to, across)
    assert len(parts) == 1 or (kind is Fit.TILE and parts)
    for made in parts:
        assert made.image.shape == (to, across, 3)
        assert made.label.shape == made.instances.shape == (to, across)
        assert set(np.unique(made.label)) <= {0, 1, 2, 255}
        assert set(np.unique(made.instances)) <= {0, 9}
        assert not made.instances[made.label == 0].any()


def test_keep_changes_nothing():
    source = part(7, 9)
    assert fitted(source, Rules()) == [source]


def test_class_with_the_larger_area_wins_when_a_mask_shrinks():
    label = np.zeros((4, 4), np.uint8)
    label[:, 1:] = 2  # 3 of 4 columns
    label[:2, :2] = [[1, 1], [1, 0]]
    assert resize_label(label, (1, 1)).tolist() == [[2]]


def test_thin_line_survives_if_it_covers_half():
    label = np.zeros((64, 64), np.uint8)
    label[:, 10:12] = 1
    assert resize_label(label, (16, 16)).sum() == 16


def drawn_lines(width_px):
    """Twelve lines across 512 x 512 px, in all directions."""
    rng, label = np.random.default_rng(0), np.zeros((512, 512), np.uint8)
    for x0, y0, x1, y1 in rng.integers(0, 512, (12, 4)).tolist():
        cv2.line(label, (x0, y0), (x1, y1), 1, width_px)
    return label


def nearest(label, size):
    """Pillow's NEAREST: the pixel in the centre."""
    return np.asarray(Image.fromarray(label).resize(size[::-1], Image.Resampling.NEAREST))


def centre_line_kept(label, small):
    """Share of the structure's centre line that is still covered after shrinking."""
    large = cv2.resize(small, label.shape[::-1], interpolation=cv2.INTER_NEAREST)
    return large[skeletonize(label > 0)].mean()


def pieces(label):
    return measure.label(label, connectivity=2).max()


@pytest.mark.parametrize("width_px", [1, 2])
def test_lines_thinner_than_half_a_pixel_stay_connected(width_px):
    label = drawn_lines(width_px)
    ours, theirs = resize_label(label, (128, 128)), nearest(label, (128, 128))
    assert centre_line_kept(label, ours) > centre_line_kept(label, theirs) + 0.1
    assert pieces(ours) < pieces(theirs) * 1.1


def test_wide_objects_get_only_pixels_that_they_cover_by_half():
    label = cv2.circle(np.zeros((400, 400), np.uint8), (200, 200), 150, 1, -1)
    share = cv2.resize(label.astype(float), (100, 100), interpolation=cv2.INTER_AREA)
    assert np.array_equal(resize_label(label, (100, 100)), share >= 0.5)


@pytest.mark.parametrize(("side", "kept", "kept_by_nearest"), [(128, 0.99, 0.986), (64, 0.9, 0.8)])
def test_membranes_survive_shrinking_better_than_with_nearest_neighbour(
    real_data, side, kept, kept_by_nearest
):
    ours, theirs, torn, torn_by_nearest = [], [], 0, 0
    for path in sorted((real_data("isbi2012_em") / "data/membrane/train/label").glob("*.png")):
        label = (read_mask(path) == 0).astype(np.uint8)
        small, other = resize_label(label, (side, side)), nearest(label, (side, side))
        ours.append(centre_line_kept(label, small))
        theirs.append(centre_line_kept(label, other))
        torn, torn_by_nearest = torn + pieces(small), torn_by_nearest + pieces(other)
    assert np.mean(ours) > kept
    assert np.mean(theirs) < kept_by_nearest
    assert torn < torn_by_nearest


def test_every_object_pixel_has_a_number_after_shrinking():
    label = drawn_lines(1)
    instances = label.astype(np.uint16) * 7
    (made,) = fit(Part(np.zeros((512, 512), np.uint8), label, instances), Fit.STRETCH, 100, 100)
    assert np.array_equal(made.instances, made.label.astype(np.uint16) * 7)


def test_padding_is_ignored_and_images_are_never_enlarged():
    (made,) = fit(part(3, 5), Fit.PAD, 6, 6)
    assert (made.label[:3, :5] != 255).all()
    assert (made.label[3:] == 255).all() and (made.label[:, 5:] == 255).all()
    assert made.scale == 1.0


def test_pad_shrinks_large_images_in_proportion():
    (made,) = fit(part(20, 40), Fit.PAD, 10, 10)
    assert (made.label[5:] == 255).all() and not (made.label[:5] == 255).any()
    assert made.scale == pytest.approx(4.0)


def test_crop_takes_the_centre():
    source = part(6, 8)
    (made,) = fit(source, Fit.CROP, 2, 4)
    assert np.array_equal(made.image, source.image[2:4, 2:6])


def test_crop_of_a_small_image_is_rejected():
    with pytest.raises(RulesError, match="too small"):
        fit(part(4, 9), Fit.CROP, 5, 5)


def test_tiles_cover_the_image_and_have_their_position_as_suffix():
    source = part(10, 7)
    made = fit(source, Fit.TILE, 4, 4)
    assert [tile.suffix for tile in made] == [f"_r{i}c{j}" for i in range(3) for j in range(2)]
    assert np.array_equal(made[-1].image, source.image[6:, 3:])


def test_scale_is_unknown_if_the_sides_are_stretched_differently():
    assert fit(part(20, 20), Fit.STRETCH, 10, 20)[0].scale is None
    assert fit(part(20, 20), Fit.STRETCH, 10, 10)[0].scale == pytest.approx(2.0)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop", "tile", "keep"])
@pytest.mark.parametrize("color_model", ["rgb", "grayscale", "binary"])
def test_image_of_the_dataset_is_not_changed_by_conversion(fit, color_model):
    size = {} if fit == "keep" else {"height": 24, "width": 32}
    rules = Rules(fit=fit, color_model=color_model, **size)
    image, instances = tissue(1, size=40)
    toned, threshold = in_color_model(image, rules)
    parts = fitted(Part(toned, (instances > 0).astype(np.uint8), None), rules)
    assert len(parts) == (4 if fit == "tile" else 1)
    for part in parts:
        kept = binarized(part.image, threshold)
        assert np.array_equal(convert_image(kept, rules), kept)
        assert color_model != "binary" or set(np.unique(kept)) <= {0, 255}


@pytest.mark.parametrize("step", [(1, 1), (3, 4), (9, 2), (5, 8), (31, 8), (5, 7), (15, 17)])
def test_share_of_a_class_is_the_area_mean_for_any_scale_factor(step):
    down, right = step
    label = np.random.default_rng(1).integers(0, 3, (20 * down, 30 * right), np.uint8)
    mean = (label == 2).reshape(20, down, 30, right).mean((1, 3))
    assert np.abs(_share((label == 2).view(np.uint8), (20, 30)) - 255.0 * mean).max() <= 0.5


def test_photograph_decoded_at_half_size_is_close_to_the_area_mean(tmp_path):
    pixels = np.asarray(
        cv2.resize(tissue(3, size=100)[0], (640, 480), interpolation=cv2.INTER_CUBIC)
    )
    Image.fromarray(pixels).save(tmp_path / "a.jpg", quality=92)
    label, mean = np.zeros((480, 640), np.uint8), read_image(tmp_path / "a.jpg")
    mean = mean.reshape(160, 3, 160, 4, 3).mean((1, 3))
    halved = read_image(tmp_path / "a.jpg", shrinks_to_px=(160, 160))
    assert halved.shape == (240, 320, 3)
    (made,) = fit(Part(halved, label, None), Fit.STRETCH, 160, 160)
    assert 10 * np.log10(255**2 / np.mean((made.image - mean) ** 2)) > 40
