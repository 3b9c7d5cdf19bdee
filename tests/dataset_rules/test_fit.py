import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dataset_rules.errors import RulesError
from dataset_rules.fit import Part, fitted, resize_label
from dataset_rules.rules import Fit, Rules
from dataset_rules.sample import as_in_dataset, binarized, in_color_model
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
def test_every_part_has_the_size_asked_for_and_only_known_classes(height, width, kind, to, across):
    for made in fit(part(height, width), kind, to, across):
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


def test_thin_line_survives_where_it_covers_half():
    label = np.zeros((64, 64), np.uint8)
    label[:, 10:12] = 1
    assert resize_label(label, (16, 16)).sum() == 16


def test_pad_ignores_what_it_adds_and_never_enlarges():
    (made,) = fit(part(3, 5), Fit.PAD, 6, 6)
    assert (made.label[:3, :5] != 255).all()
    assert (made.label[3:] == 255).all() and (made.label[:, 5:] == 255).all()
    assert made.scale == 1.0


def test_pad_shrinks_what_is_too_large_in_proportion():
    (made,) = fit(part(20, 40), Fit.PAD, 10, 10)
    assert (made.label[5:] == 255).all() and not (made.label[:5] == 255).any()
    assert made.scale == pytest.approx(4.0)


def test_crop_takes_the_middle():
    source = part(6, 8)
    (made,) = fit(source, Fit.CROP, 2, 4)
    assert np.array_equal(made.image, source.image[2:4, 2:6])


def test_crop_of_a_small_image_is_refused():
    with pytest.raises(RulesError, match="too small"):
        fit(part(4, 9), Fit.CROP, 5, 5)


def test_tiles_cover_the_image_and_bear_their_place():
    source = part(10, 7)
    made = fit(source, Fit.TILE, 4, 4)
    assert [tile.suffix for tile in made] == [f"_r{i}c{j}" for i in range(3) for j in range(2)]
    assert np.array_equal(made[-1].image, source.image[6:, 3:])


def test_scale_is_unknown_where_the_sides_are_stretched_differently():
    assert fit(part(20, 20), Fit.STRETCH, 10, 20)[0].scale is None
    assert fit(part(20, 20), Fit.STRETCH, 10, 10)[0].scale == pytest.approx(2.0)


@pytest.mark.parametrize("fit", ["stretch", "pad", "crop", "tile", "keep"])
@pytest.mark.parametrize("color_model", ["rgb", "grayscale", "binary"])
def test_an_image_of_the_dataset_stays_as_it_is_when_it_comes_back(fit, color_model):
    size = {} if fit == "keep" else {"height": 24, "width": 32}
    rules = Rules(fit=fit, color_model=color_model, **size)
    image, instances = tissue(1, size=40)
    toned, threshold = in_color_model(image, rules)
    for part in fitted(Part(toned, (instances > 0).astype(np.uint8), None), rules):
        kept = binarized(part.image, threshold)
        assert np.array_equal(as_in_dataset(kept, rules), kept)
        assert color_model != "binary" or set(np.unique(kept)) <= {0, 255}
