"""Images read by rows from top to bottom: any size in the memory of a few rows."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import tifffile

from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import (
    MAX_PIXELS,
    PixelDigest,
    Pixels,
    read_header,
    read_image,
    read_mask,
)

TIFF_SUFFIXES = {".tif", ".tiff"}
MAX_STREAMED_PIXELS = 1 << 36  # of an image read by rows; its masks must fit on disk
WHOLE_PIXELS = 1 << 24  # smaller images are decoded at once
BLOCK_BYTES = 32 << 20  # size of a block of rows
MAX_SEGMENT_VALUES = 1 << 28  # of a row of strips or tiles, which is decoded at once

_UPRIGHT = 1  # TIFF orientation: the first row is the top


@dataclass(frozen=True)
class Rows:
    """Pixels from top to bottom; each call of `blocks` restarts at the first row.

    Blocks are HW or HWC, may have any height, and together make up the image.
    """

    height_px: int
    width_px: int
    blocks: Callable[[], Iterator[Pixels]]

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.height_px, self.width_px

    def map(self, function: Callable[[Pixels], Pixels]) -> "Rows":
        """Apply a per-pixel function to every block."""
        return Rows(
            self.height_px, self.width_px, lambda: (function(block) for block in self.blocks())
        )

    def to_array(self) -> Pixels:
        """The whole image as one array."""
        return np.concatenate(list(self.blocks()))


def rows_of(pixels: Pixels) -> Rows:
    """Rows of an in-memory image, in blocks of about `BLOCK_BYTES`."""
    height, width = pixels.shape[:2]
    count = max(1, BLOCK_BYTES // max(1, pixels[:1].nbytes))

    def blocks() -> Iterator[Pixels]:
        return (pixels[top : top + count] for top in range(0, height, count))

    return Rows(height, width, blocks)


def open_rows(path: Path) -> Rows:
    """Open an image file by rows, decoded like `read_image`.

    Large TIFFs are decoded lazily, strip by strip or tile by tile, as is the first level of a
    pyramid. Any other file is decoded at once.

    Raises:
        RulesError: if the file is not an image, damaged, or too large for its format.
    """
    header = read_header(path, max_pixels=MAX_STREAMED_PIXELS)
    pixels = header.height_px * header.width_px
    if header.format == "TIFF" and (pixels > WHOLE_PIXELS or header.pages > 1):
        rows = _rows_of_tiff(path)
        if rows is not None:
            return rows
    if pixels > MAX_PIXELS:
        raise RulesError(
            "the image is too large for its format", where=str(path),
            expected=f"at most {MAX_PIXELS} pixels, or a TIFF of grey values or RGB, 8 or 16 bits",
            found=f"{header.width_px} x {header.height_px}, {header.format} {header.mode}",
            remedy="store it as a tiled TIFF",
        )  # fmt: skip
    return rows_of(read_image(path))


def read_numbers(path: Path) -> Pixels:
    """Mask values like `read_mask`, but also 32-bit numbers in a TIFF (HW)."""
    if path.suffix in TIFF_SUFFIXES:
        with _damage_as_rules_error(path), tifffile.TiffFile(path) as file:
            page = file.pages.first
            if len(file.pages) == 1 and page.dtype == np.uint32 and page.samplesperpixel == 1:
                return np.asarray(page.asarray())
    return read_mask(path)


def values_hash(path: Path) -> str | None:
    """Content hash of a TIFF with non-image data, None for any other file.

    Non-image data are 32-bit numbers and samples that are not colours, such as object numbers and
    probabilities.
    """
    with _damage_as_rules_error(path), tifffile.TiffFile(path) as file:
        page = file.pages.first
        is_image = page.dtype in (np.uint8, np.uint16) and (
            page.samplesperpixel == 1 or page.photometric.name != "MINISBLACK")  # fmt: skip
        if len(file.pages) > 1 or is_image or not _has_small_segments(page):
            return None
        shape, kind = page.shape, page.dtype
    digest = PixelDigest(shape, kind)
    for block in _tiff_blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _rows_of_tiff(path: Path) -> Rows | None:
    """Rows of a TIFF's first page; None if it is left to `read_image`."""
    with _damage_as_rules_error(path), tifffile.TiffFile(path) as file:
        page = file.pages.first
        is_one = len(file.pages) == 1 or bool(file.series[0].is_pyramidal)
        height, width = page.imagelength, page.imagewidth
        if (
            not is_one
            or not _is_plain(page)
            or not (page.is_contiguous or _has_small_segments(page))
        ):
            return None
    return Rows(height, width, lambda: map(_as_image, _tiff_blocks(path)))


def _is_plain(page: Any) -> bool:
    """True for upright grey or RGB images of 8 or 16 bits, with or without alpha."""
    kind, samples = page.photometric.name, page.samplesperpixel
    is_color = kind == "RGB" or (kind == "YCBCR" and page.compression.name == "JPEG")
    return (
        (kind == "MINISBLACK" if samples < 3 else is_color and samples < 5)
        and page.dtype in (np.uint8, np.uint16)
        and page.bitspersample == 8 * page.dtype.itemsize
        and page.imagedepth == 1
        and page.tags.valueof("Orientation", _UPRIGHT) == _UPRIGHT
    )


def _has_small_segments(page: Any) -> bool:
    """True if each row of strips or tiles is small enough to decode at once."""
    return bool(_segment_rows(page) * page.imagewidth * page.samplesperpixel <= MAX_SEGMENT_VALUES)


def _is_planar(page: Any) -> bool:
    """True if each sample is stored in a separate plane."""
    return bool(page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1)


def _segment_rows(page: Any) -> int:
    """Number of rows in a tile or strip."""
    return int(page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength))


def _tiff_blocks(path: Path) -> Iterator[Pixels]:
    """Blocks of the first page with all samples, HWC."""
    with _damage_as_rules_error(path), tifffile.TiffFile(path) as file, path.open("rb") as data:
        page = file.pages.first
        row_bytes = page.imagewidth * page.samplesperpixel * page.dtype.itemsize
        segment_rows = 1 if page.is_contiguous else _segment_rows(page)
        count = segment_rows * max(1, BLOCK_BYTES // (segment_rows * row_bytes))
        read = _read_uncompressed if page.is_contiguous else _read_segments
        for top in range(0, page.imagelength, count):
            yield read(page, data, top, min(count, page.imagelength - top))


def _as_image(block: Pixels) -> Pixels:
    """Grey or RGB, without alpha."""
    return block[..., 0] if block.shape[2] < 3 else np.ascontiguousarray(block[..., :3])


def _read_uncompressed(page: Any, data: BinaryIO, top: int, rows: int) -> Pixels:
    """Read contiguous uncompressed rows, HWC."""
    planes = page.samplesperpixel if _is_planar(page) else 1
    shape = (rows, page.imagewidth, page.samplesperpixel // planes)
    row_bytes = shape[1] * shape[2] * page.dtype.itemsize
    kind, parts = page.dtype.newbyteorder(page.parent.byteorder), []
    for plane in range(planes):
        data.seek(page.dataoffsets[0] + (plane * page.imagelength + top) * row_bytes)
        parts.append(np.fromfile(data, kind, rows * shape[1] * shape[2]))
        if parts[-1].nbytes < rows * row_bytes:
            raise ValueError(f"the file ends within the rows from {top}")
    joined = np.concatenate([part.reshape(shape) for part in parts], axis=2)
    return joined.astype(page.dtype, copy=False)


def _read_segments(page: Any, data: BinaryIO, top: int, rows: int) -> Pixels:
    """Decode whole rows of strips or tiles, HWC."""
    samples, segment_rows = page.samplesperpixel, _segment_rows(page)
    is_planar = _is_planar(page)
    across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
    down = -(-page.imagelength // segment_rows)
    block = np.zeros((rows, page.imagewidth, samples), page.dtype)
    for plane in range(samples if is_planar else 1):
        first = (plane * down + top // segment_rows) * across
        for index in range(first, first + -(-rows // segment_rows) * across):
            pixels, (_, _, row, left, _), _ = _decode_segment(page, data, index)
            if pixels is None:  # segments missing from the file are empty
                continue
            part = pixels[0, : rows + top - row, : page.imagewidth - left]
            place = block[row - top : row - top + len(part), left : left + part.shape[1]]
            place[..., plane if is_planar else slice(None)] = part[..., 0] if is_planar else part
    return block


def _decode_segment(page: Any, data: BinaryIO, index: int) -> Any:
    """A segment with its position and shape, as returned by tifffile."""
    size = page.databytecounts[index]
    data.seek(page.dataoffsets[index])
    stored = data.read(size) if size else None
    if stored is not None and len(stored) < size:
        raise ValueError(f"segment {index} has {len(stored)} of {size} bytes")
    return page.decode(stored, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)


@contextmanager
def _damage_as_rules_error(path: Path) -> Iterator[None]:
    """Turn any exception of tifffile and its codecs into an error about a damaged file."""
    try:
        yield
    except RulesError:
        raise
    except Exception as error:
        raise RulesError(
            "the image is damaged or cut short", where=str(path), found=str(error)
        ) from error
