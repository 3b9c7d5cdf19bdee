import contextlib
import io

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import encode, pixel_hash, read_header, read_image, read_mask
from tests.messy import tissue

GRADIENT = (np.arange(40 * 50) * 7 % 256).astype(np.uint8).reshape(40, 50)
DEEP = (np.arange(40 * 50) * 31).astype(np.uint16).reshape(40, 50)
COLOR = np.dstack([GRADIENT, GRADIENT.T.reshape(40, 50), 255 - GRADIENT])


def saved(tmp_path, image, name, **options):
    path = tmp_path / name
    image.save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tiff"])
@pytest.mark.parametrize("pixels", [GRADIENT, COLOR], ids=["grey", "colour"])
def test_lossless_formats_round_trip(tmp_path, suffix, pixels):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode(pixels, suffix))
    assert np.array_equal(read_image(path), pixels)


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("pixels", [DEEP, np.dstack([DEEP, DEEP[::-1], DEEP])], ids=["g", "c"])
def test_16_bit_images_keep_their_depth(tmp_path, suffix, pixels):
    path = tmp_path / f"a{suffix}"
    path.write_bytes(encode(pixels, suffix))
    assert read_header(path).bits == 16
    assert np.array_equal(read_image(path), pixels)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits", "raw"])
def test_compressed_tiff_is_read(tmp_path, compression):
    path = saved(tmp_path, Image.fromarray(COLOR), "a.tif", compression=compression)
    assert np.array_equal(read_image(path), COLOR)


def test_palette_is_read_as_indices_for_masks_and_colours_for_images(tmp_path):
    image = Image.fromarray(GRADIENT % 3, mode=None).convert("P")
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 0, 200])
    path = saved(tmp_path, image, "a.png")
    assert np.array_equal(read_mask(path), GRADIENT % 3)
    assert read_image(path)[0, :3].tolist() == [[9, 9, 9], [200, 0, 0], [0, 0, 200]]


def test_alpha_is_dropped(tmp_path):
    rgba = Image.fromarray(np.dstack([COLOR, GRADIENT]))
    grey = Image.fromarray(np.dstack([GRADIENT, GRADIENT]))
    assert np.array_equal(read_image(saved(tmp_path, rgba, "a.png")), COLOR)
    assert np.array_equal(read_image(saved(tmp_path, grey, "b.png")), GRADIENT)


def test_image_with_exif_rotation_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = saved(tmp_path, Image.fromarray(COLOR), "a.jpg", exif=exif)
    assert read_image(path).shape == (50, 40, 3)
    assert (read_header(path).height_px, read_header(path).width_px) == (50, 40)


def test_pixel_size_is_read_from_tiff_tags(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, GRADIENT, resolution=(40_000, 40_000), resolutionunit="CENTIMETER")
    assert read_header(path).pixel_size_um == pytest.approx(0.25)


def test_stack_of_pages_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.stack([GRADIENT] * 3), photometric="minisblack")
    with pytest.raises(RulesError, match="stack of pages"):
        read_image(tmp_path / "a.tif")


def test_hash_depends_on_pixels_and_shape_but_not_on_the_encoder(tmp_path):
    other = GRADIENT.copy()
    other[3, 3] ^= 1
    hashes = {pixel_hash(p) for p in (GRADIENT, other, GRADIENT.reshape(50, 40), DEEP)}
    assert len(hashes) == 4
    path = saved(tmp_path, Image.fromarray(GRADIENT), "a.png", compress_level=0)
    assert pixel_hash(read_image(path)) == pixel_hash(GRADIENT)


def files():
    image = Image.fromarray(tissue(1)[0])
    encoded = []
    for kind, options in (
        ("PNG", {}),
        ("JPEG", {}),
        ("BMP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
    ):
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        encoded.append((kind.lower(), buffer.getvalue()))
    encoded += [("png", encode(DEEP, ".png")), ("tiff", encode(DEEP, ".tiff"))]
    return encoded


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from(files()),
    st.lists(st.tuples(st.floats(0, 0.999), st.integers(0, 255)), max_size=8),
    st.floats(0, 1),
)
def test_mutated_file_is_read_or_refused(tmp_path_factory, file, changes, keep):
    suffix, data = file
    mutated = bytearray(data[: max(1, int(len(data) * keep))] if keep < 0.5 else data)
    for place, value in changes:
        mutated[int(place * len(mutated))] = value
    path = tmp_path_factory.getbasetemp() / f"mutated.{suffix}"
    path.write_bytes(mutated)
    with contextlib.suppress(RulesError):
        assert read_image(path).dtype in (np.uint8, np.uint16)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("pixels", [GRADIENT[:30], DEEP[:30]], ids=["8 bits", "16 bits"])
def test_image_is_read_upright_and_matches_the_size_in_its_header(tmp_path, pixels, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path, Image.fromarray(pixels), "a.png", exif=exif)
    header, image = read_header(path), read_image(path)
    assert header.orientation == orientation
    assert (header.height_px, header.width_px) == image.shape
    quarter_turns = {1: 0, 3: 2, 6: 3, 8: 1}
    if orientation in quarter_turns:
        assert np.array_equal(image, np.rot90(pixels, quarter_turns[orientation]))
    else:
        mirrored = {2: pixels[:, ::-1], 4: pixels[::-1], 5: pixels.T, 7: pixels[::-1, ::-1].T}
        assert np.array_equal(image, mirrored[orientation])


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif"])
def test_header_of_truncated_file_is_marked_as_cut_short(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tifffile.imwrite(path, tissue(1, size=60)[0])  # the directory precedes the pixels
    else:
        path.write_bytes(encode(tissue(1, size=60)[0], suffix))
    assert not read_header(path).is_cut_short
    path.write_bytes(path.read_bytes()[:-200])
    assert read_header(path).is_cut_short


@pytest.mark.parametrize(("mode", "has_alpha"), [("RGBA", True), ("LA", True), ("RGB", False)])
def test_header_states_whether_there_is_alpha(tmp_path, mode, has_alpha):
    path = saved(tmp_path, Image.new(mode, (5, 5)), "a.png")
    assert read_header(path).has_alpha is has_alpha
