import numpy as np
import pytest

from dataset_rules.ground.errors import UserError
from unet.measurement.stains import (
    HAEMATOXYLIN,
    estimate_white,
    mix_stains,
    optical_density,
    scale_stains,
    separate_stains,
    stain_matrix,
)


def test_stain_vectors_have_unit_length_and_the_third_is_orthogonal():
    matrix = stain_matrix()
    assert np.allclose(np.linalg.norm(matrix, axis=1), 1)
    assert np.allclose(matrix[2] @ matrix[:2].T, 0)


def test_optical_density_is_one_for_a_tenth_of_the_light():
    image = np.full((2, 2, 3), 1_000, np.uint16)
    assert np.allclose(optical_density(image, np.array([10_000.0] * 3)), 1)


def test_black_pixels_have_a_finite_density():
    black = np.zeros((2, 2, 3), np.uint8)
    assert np.allclose(optical_density(black, np.array([255.0] * 3)), np.log10(255))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_mixed_stains_are_separated_again(dtype):
    blue, brown = np.meshgrid(np.linspace(0, 0.8, 9), np.linspace(0, 0.8, 9))
    top = np.iinfo(dtype).max
    image = np.round(mix_stains(blue, brown) * top).astype(dtype)
    stains = separate_stains(image, np.array([float(top)] * 3))
    close = 0.02 if dtype is np.uint8 else 1e-3  # rounding to 8 bits in dark pixels
    assert np.allclose(stains.haematoxylin, blue, atol=close)
    assert np.allclose(stains.dab, brown, atol=close)
    assert np.allclose(stains.residual, 0, atol=close)


def test_white_follows_uneven_light_under_tissue():
    row, col = np.mgrid[-1:1:256j, -1:1:256j]
    light = 220 * (1 + 0.05 * row - 0.04 * col - 0.05 * (row**2 + col**2))
    passed = np.ones((256, 256))
    passed[40:140, 60:180] = 0.4  # tissue that covers whole blocks
    image = np.repeat((light * passed)[..., None], 3, axis=2).astype(np.uint8)
    error = np.abs(estimate_white(image)[..., 0] - light) / light
    assert error.mean() < 0.01
    assert error.max() < 0.04  # in a corner, where no block's centre lies


def test_small_image_has_one_white():
    image = np.full((20, 20, 3), 200, np.uint8)
    image[:10] = 90
    assert np.allclose(estimate_white(image), 200)


def test_grey_image_is_refused():
    with pytest.raises(UserError, match="expected an RGB image"):
        separate_stains(np.zeros((8, 8), np.uint8))


def test_equal_amounts_of_stain_leave_the_light_as_it_is() -> None:
    light = np.random.default_rng(0).uniform(0.05, 1, (4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(scale_stains(light, np.ones(3)), light, rtol=1e-4)


def test_twice_the_haematoxylin_has_twice_its_optical_density() -> None:
    blue = np.array(HAEMATOXYLIN) / np.linalg.norm(HAEMATOXYLIN)
    passed = scale_stains((10 ** -(0.3 * blue))[None, None], np.array([2.0, 1.0, 1.0]))
    np.testing.assert_allclose(-np.log10(passed[0, 0]), 0.6 * blue, atol=1e-4)
