import io
import itertools
import shutil
import sysconfig
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels import decoders
from dataset_rules.pixels.decoders import decode_fast
from dataset_rules.pixels.images import read_image
from tests.messy import tissue

TISSUE = tissue(5)[0]
GRAY = TISSUE[..., 0]
SIZES = [(1, 1), (7, 5), (16, 16), (17, 33)]


def decode_with_both(tmp_path, image, kind, **options):
    """Pixels decoded by Pillow and by the fast decoder."""
    path = tmp_path / "file"
    image.save(path, kind, **options)
    with Image.open(path) as opened:
        expected = np.asarray(opened)
        found = decode_fast(path, opened.format, opened.mode)
    return expected, found


@pytest.mark.parametrize(("size", "is_progressive"), [*itertools.product(SIZES, [False, True])])
def test_jpeg_pixels_equal_pillows(tmp_path, size, is_progressive):
    crop = Image.fromarray(TISSUE[: size[0], : size[1]])
    for subsampling, quality in itertools.product((0, 1, 2), (30, 92)):
        expected, found = decode_with_both(tmp_path, crop, "JPEG", quality=quality,
                                  subsampling=subsampling, progressive=is_progressive)  # fmt: skip
        assert np.array_equal(found, expected)
    expected, found = decode_with_both(tmp_path, crop.convert("L"), "JPEG")
    assert np.array_equal(found, expected)


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_png_pixels_equal_pillows_without_alpha(tmp_path, mode):
    image = Image.fromarray(TISSUE).convert(mode)
    if "A" in mode:
        image.putalpha(Image.fromarray(GRAY))
    expected, found = decode_with_both(tmp_path, image, "PNG")
    if "A" in mode:
        expected = expected[..., :3] if mode == "RGBA" else expected[..., 0]
    assert np.array_equal(found, expected)


@pytest.mark.parametrize(
    ("chunk", "body"),
    [(b"gAMA", (100_000).to_bytes(4, "big")), (b"sBIT", b"\5\5\5"), (b"tRNS", b"\0\1\0\2\0\3"),
     (b"iCCP", b"x\0\0broken")],
)  # fmt: skip
def test_ancillary_chunks_change_no_pixel_and_print_nothing(tmp_path, capfd, chunk, body):
    info = PngInfo()
    info.add(chunk, body)
    expected, found = decode_with_both(tmp_path, Image.fromarray(TISSUE), "PNG", pnginfo=info)
    assert np.array_equal(found, expected)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(("kind", "mode"), [("JPEG", "CMYK"), ("PNG", "P"), ("BMP", "RGB")])
def test_less_common_files_are_left_to_pillow(tmp_path, kind, mode):
    assert decode_with_both(tmp_path, Image.fromarray(TISSUE).convert(mode), kind)[1] is None


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_damaged_file_is_left_to_pillow_and_refused(tmp_path, kind):
    data = io.BytesIO()
    Image.fromarray(TISSUE).save(data, kind)
    path = tmp_path / "file"
    path.write_bytes(data.getvalue()[:-100])
    assert decode_fast(path, kind, "RGB") is None
    with pytest.raises(RulesError, match="damaged or cut short"):
        read_image(path)


# Mask rows: runs of few values, so that filtered bytes are often zero.
runs = st.lists(
    st.tuples(st.sampled_from([0, 0, 255, 255, 1, 128]), st.integers(1, 40)), min_size=1, max_size=9
)


def predicted(filter_type, left, up, corner):
    """Prediction of one byte, as the PNG specification defines it."""
    estimate = left + up - corner
    distances = [abs(estimate - byte) for byte in (left, up, corner)]
    nearest = (left, up, corner)[distances.index(min(distances))]
    return (0, left, up, (left + up) // 2, nearest)[filter_type]


def gray_png(pixels, filter_types):
    """A grey PNG with the given filter type per row."""
    height, width = pixels.shape
    framed = np.pad(pixels.astype(int), ((1, 0), (1, 0)))
    rows = bytearray()
    for y, filter_type in enumerate(filter_types, start=1):
        rows.append(filter_type)
        for x in range(1, width + 1):
            near = framed[y, x - 1], framed[y - 1, x], framed[y - 1, x - 1]
            rows.append((framed[y, x] - predicted(min(filter_type, 4), *near)) % 256)
    head = width.to_bytes(4, "big") + height.to_bytes(4, "big") + bytes([8, 0, 0, 0, 0])
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    )


@given(rows=st.lists(st.tuples(runs, st.integers(0, 4)), min_size=1, max_size=12))
def test_all_filter_types_are_undone(tmp_path_factory, rows):
    lines = [np.repeat(*map(np.array, zip(*run, strict=True))) for run, _ in rows]
    width = max(map(len, lines))
    pixels = np.stack([np.resize(line, width) for line in lines]).astype(np.uint8)
    path = tmp_path_factory.getbasetemp() / "filters.png"
    path.write_bytes(gray_png(pixels, [filter_type for _, filter_type in rows]))
    assert np.array_equal(np.asarray(Image.open(path)), pixels)
    assert np.array_equal(decode_fast(path, "PNG", "L"), pixels)


def altered(data, kind, at, byte, *, is_crc_updated):
    """Change one byte of a chunk, with or without updating its checksum."""
    start = data.index(kind)
    length = int.from_bytes(data[start - 4 : start], "big")
    body = bytearray(data[start : start + 4 + length])
    body[4 + at] = byte
    end = start + 4 + length
    crc = zlib.crc32(body).to_bytes(4, "big") if is_crc_updated else data[end : end + 4]
    return data[:start] + bytes(body) + crc + data[end + 4 :]


GRAY_PNG = gray_png(GRAY[:20, :20], [0, 1, 2, 3, 4] * 4)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(altered(GRAY_PNG, b"IDAT", 30, 7, is_crc_updated=False), id="wrong checksum"),
        pytest.param(altered(GRAY_PNG, b"IDAT", 30, 7, is_crc_updated=True), id="broken deflate"),
        pytest.param(altered(GRAY_PNG, b"IHDR", 7, 99, is_crc_updated=True), id="more rows stated"),
        pytest.param(altered(GRAY_PNG, b"IHDR", 7, 3, is_crc_updated=True), id="fewer rows stated"),
        pytest.param(
            altered(GRAY_PNG, b"IHDR", 3, 21, is_crc_updated=True), id="wider rows stated"
        ),
        pytest.param(gray_png(GRAY[:3, :20], [0, 9, 0]), id="no such filter"),
        pytest.param(GRAY_PNG[:90], id="cut short"),
    ],
)
def test_damaged_mask_is_left_to_pillow(tmp_path, data):
    path = tmp_path / "mask.png"
    path.write_bytes(data)
    assert decode_fast(path, "PNG", "L") is None


def test_unfilter_is_compiled_if_a_compiler_is_available():
    headers = Path(sysconfig.get_path("include")) / "Python.h"
    if shutil.which("cc") is None or not headers.exists():
        pytest.skip("no C compiler or no Python.h: dataset_rules/pixels/_unfilter.c was not built")
    assert decoders.unfilter is not None
