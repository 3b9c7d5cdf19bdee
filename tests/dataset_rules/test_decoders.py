import io
import itertools

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dataset_rules.decoders import decode_common
from dataset_rules.errors import RulesError
from dataset_rules.images import read_image
from tests.messy import tissue

TISSUE = tissue(5)[0]
GRAY = TISSUE[..., 0]
SIZES = [(1, 1), (7, 5), (16, 16), (17, 33)]


def by_both(tmp_path, image, kind, **options):
    """Pixels by Pillow and by the fast decoder."""
    path = tmp_path / "file"
    image.save(path, kind, **options)
    with Image.open(path) as opened:
        expected = np.asarray(opened)
        found = decode_common(path, opened.format, opened.mode)
    return expected, found


@pytest.mark.parametrize(("size", "is_progressive"), [*itertools.product(SIZES, [False, True])])
def test_jpeg_has_the_pixels_that_pillow_finds(tmp_path, size, is_progressive):
    part = Image.fromarray(TISSUE[: size[0], : size[1]])
    for subsampling, quality in itertools.product((0, 1, 2), (30, 92)):
        expected, found = by_both(tmp_path, part, "JPEG", quality=quality,
                                  subsampling=subsampling, progressive=is_progressive)  # fmt: skip
        assert np.array_equal(found, expected)
    expected, found = by_both(tmp_path, part.convert("L"), "JPEG")
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_png_has_the_pixels_that_pillow_finds_without_alpha(tmp_path, mode):
    image = Image.fromarray(TISSUE).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(GRAY))
    expected, found = by_both(tmp_path, image, "PNG")
    if "A" in mode:
        expected = expected[..., :3] if mode == "RGBA" else expected[..., 0]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("chunk", "body"),
    [(b"gAMA", (100_000).to_bytes(4, "big")), (b"sBIT", b"\5\5\5"), (b"tRNS", b"\0\1\0\2\0\3"),
     (b"iCCP", b"x\0\0broken")],
)  # fmt: skip
def test_other_chunks_change_no_pixel_and_print_nothing(tmp_path, capfd, chunk, body):
    info = PngInfo()
    info.add(chunk, body)
    expected, found = by_both(tmp_path, Image.fromarray(TISSUE), "PNG", pnginfo=info)
    assert np.array_equal(found, expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("PNG", "P"), ("BMP", "RGB")])
def test_rarer_files_are_left_to_pillow(tmp_path, kind, mode):
    assert by_both(tmp_path, Image.fromarray(TISSUE).convert(mode), kind)[1] is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_file_is_refused_in_pillows_words(tmp_path, kind):
    data = io.BytesIO()
    Image.fromarray(TISSUE).save(data, kind)
    path = tmp_path / "file"
    path.write_bytes(data.getvalue()[:-100])
    assert decode_common(path, kind, "RGB") is None
    with pytest.raises(RulesError, match="damaged or cut short"):
        read_image(path)
