import io

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from dataset_rules.pixels.png import PngWriter, encode_png, png_text, png_with_text
from tests.messy import tissue

SHAPES = st.one_of(
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=40),
    arrays.array_shapes(min_dims=2, max_dims=2, max_side=40).map(lambda shape: (*shape, 3)),
)
PIXELS = st.sampled_from([np.uint8, np.uint16]).flatmap(lambda kind: arrays.arrays(kind, SHAPES))


def decoded(data):
    """Decode with both Pillow and OpenCV, which check different things."""
    Image.open(io.BytesIO(data)).load()
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    return pixels[..., ::-1] if pixels.ndim == 3 else pixels


@settings(deadline=None)
@given(pixels=PIXELS)
def test_any_pixels_round_trip(pixels):
    found = decoded(encode_png(pixels))
    assert found.dtype == pixels.dtype
    assert np.array_equal(found.reshape(pixels.shape), pixels)


@pytest.mark.parametrize("kind", ["flat", "noise"])
def test_image_of_several_bands_round_trips(kind):
    noise = np.random.default_rng(0).integers(0, 256, (400, 1000, 3), np.uint8)
    pixels = noise if kind == "noise" else np.zeros_like(noise)
    assert np.array_equal(decoded(encode_png(pixels)), pixels)


def test_tissue_is_at_most_5_percent_larger_than_pillows_file():
    image = np.tile(tissue(3)[0], (4, 4, 1))
    noisy = image + np.random.default_rng(0).integers(0, 9, image.shape, np.uint8)
    expected = io.BytesIO()
    Image.fromarray(noisy).save(expected, "PNG")
    assert len(encode_png(noisy)) < 1.05 * len(expected.getvalue())


def test_non_contiguous_view_is_written_correctly():
    pixels = np.arange(60, dtype=np.uint8).reshape(6, 10)
    assert np.array_equal(decoded(encode_png(pixels[::2, ::-1].T)), pixels[::2, ::-1].T)


@pytest.mark.parametrize("pixels", [np.zeros((2, 2), np.float32), np.zeros((2, 2, 4), np.uint8)])
def test_unsupported_array_is_refused(pixels):
    with pytest.raises(ValueError, match="as PNG"):
        encode_png(pixels)


def test_text_chunk_round_trips_and_pixels_are_unchanged():
    pixels = np.eye(9, dtype=np.uint8)
    data = png_with_text(encode_png(pixels), "key", "text")
    assert png_text(data, "key") == "text"
    assert np.array_equal(decoded(data), pixels)


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 17), st.sampled_from(["u1", "u2"]))
def test_png_written_row_by_row_round_trips(height: int, width: int, step: int, kind: str) -> None:
    rng = np.random.default_rng(height * 41 + width)
    pixels = rng.integers(0, np.iinfo(kind).max, (height, width)).astype(kind)
    for is_flat in (True, False):
        file = io.BytesIO()
        writer = PngWriter(file, (height, width), kind=kind, is_flat=is_flat)
        for top in range(0, height, step):
            writer.write(pixels[top : top + step])
        writer.close()
        decoded = cv2.imdecode(np.frombuffer(file.getvalue(), np.uint8), cv2.IMREAD_UNCHANGED)
        assert decoded.dtype == pixels.dtype
        assert (decoded == pixels).all()
