import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from unet.network.tiles import blended, blending_weights, tile_origins


@given(st.integers(1, 60), st.integers(1, 400), st.data())
def test_tiles_cover_every_pixel_and_stay_inside(
    tile: int, extra: int, data: st.DataObject
) -> None:
    length, stride = tile + extra - 1, data.draw(st.integers(1, tile))
    covered = np.zeros(length, int)
    for origin in tile_origins(length, tile, stride):
        assert 0 <= origin <= length - tile
        covered[origin : origin + tile] += 1
    assert covered.min() >= 1


def test_tile_longer_than_axis_is_refused() -> None:
    with pytest.raises(ValueError, match="pad the image"):
        tile_origins(10, 11, 4)
    with pytest.raises(ValueError, match="tiles touch"):
        tile_origins(10, 4, 5)


@given(st.integers(1, 150), st.integers(1, 150), st.sampled_from([0, 8, 16]))
def test_an_identity_network_returns_its_input(height: int, width: int, overlap: int) -> None:
    image = np.random.default_rng(height * 151 + width).random((height, width, 3), np.float32)
    shapes = []

    def identity(tile: np.ndarray) -> np.ndarray:
        shapes.append(tile.shape)
        return tile.transpose(2, 0, 1)

    result = blended(image, identity, multiple=16, tile_px=64, overlap_px=overlap)
    np.testing.assert_allclose(result, image.transpose(2, 0, 1), atol=1e-5)
    sides = {side for shape in shapes for side in shape[:2]}
    assert sides
    assert all(side % 16 == 0 and side <= 64 for side in sides)


def test_weights_decrease_towards_the_border_and_stay_positive() -> None:
    weights = blending_weights(64)
    assert weights[31, 31] == weights.max() > 100 * weights[0, 0]
    assert weights.min() > 0
    np.testing.assert_allclose(weights, weights[::-1].T)
