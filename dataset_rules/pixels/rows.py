"""Images as rows, read from top to bottom: one of any size in the memory of some rows."""

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
MOST_PIXELS = 1 << 36  # of an image that is read by rows; its masks have to fit a disk
WHOLE_PIXELS = 1 << 24  # up to which an image is decoded at once
BLOCK_BYTES = 32 << 20  # of the rows that are handed on together
MOST_SEGMENT_VALUES = 1 << 28  # of a row of strips or tiles that is decoded at once

_UPRIGHT = 1  # TIFF's number for an image whose first row is its top


@dataclass(frozen=True)
class Rows:
    """Pixels from top to bottom; every call of `blocks` begins a pass at the first row.

    The blocks are HW or HWC, of any heights, and together they are the image.
    """

    height_px: int
    width_px: int
    blocks: Callable[[], Iterator[Pixels]]

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.height_px, self.width_px

    def mapped(self, function: Callable[[Pixels], Pixels]) -> "Rows":
        """The rows with a function of single pixels applied to every block."""
        return Rows(
            self.height_px, self.width_px, lambda: (function(block) for block in self.blocks())
        )

    def gathered(self) -> Pixels:
        """The whole image."""
        return np.concatenate(list(self.blocks()))


def rows_of(pixels: Pixels) -> Rows:
    """The rows of an image that is in memory, in blocks of some megabytes."""
    height, width = pixels.shape[:2]
    count = max(1, BLOCK_BYTES // max(1, pixels[:1].nbytes))

    def blocks() -> Iterator[Pixels]:
        return (pixels[top : top + count] for top in range(0, height, count))

    return Rows(height, width, blocks)


def open_rows(path: Path) -> Rows:
    """The rows of an image file as `read_image` decodes it.

    A large TIFF is decoded as its rows are asked for, strip by strip or tile by tile, also the
    first level of a pyramid. Any other file is decoded at once.

    Raises:
        RulesError: if it is no image, damaged, or too large for its format.
    """
    header = read_header(path, most_pixels=MOST_PIXELS)
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
    """Values of a mask as `read_mask` gives them, also numbers of 32 bits in a TIFF (HW)."""
    if path.suffix in TIFF_SUFFIXES:
        with _damage_named(path), tifffile.TiffFile(path) as file:
            page = file.pages.first
            if len(file.pages) == 1 and page.dtype == np.uint32 and page.samplesperpixel == 1:
                return np.asarray(page.asarray())
    return read_mask(path)


def values_hash(path: Path) -> str | None:
    """Content hash of a TIFF whose values are no picture's, None of any other file.

    Such are numbers of 32 bits and samples that are no colours: object numbers, probabilities.
    """
    with _damage_named(path), tifffile.TiffFile(path) as file:
        page = file.pages.first
        is_picture = page.dtype in (np.uint8, np.uint16) and (
            page.samplesperpixel == 1 or page.photometric.name != "MINISBLACK")  # fmt: skip
        if len(file.pages) > 1 or is_picture or not _is_cut_fine(page):
            return None
        shape, kind = page.shape, page.dtype
    digest = PixelDigest(shape, kind)
    for block in _tiff_blocks(path):
        digest.update(block)
    return digest.hexdigest()


def _rows_of_tiff(path: Path) -> Rows | None:
    """Rows of a TIFF's first page; None where `read_image` has to see to it."""
    with _damage_named(path), tifffile.TiffFile(path) as file:
        page = file.pages.first
        is_one = len(file.pages) == 1 or bool(file.series[0].is_pyramidal)
        height, width = page.imagelength, page.imagewidth
        if not is_one or not _is_plain(page) or not (page.is_contiguous or _is_cut_fine(page)):
            return None
    return Rows(height, width, lambda: map(_as_picture, _tiff_blocks(path)))


def _is_plain(page: Any) -> bool:
    """True for upright grey values or RGB of 8 or 16 bits, alpha aside."""
    kind, samples = page.photometric.name, page.samplesperpixel
    is_color = kind == "RGB" or (kind == "YCBCR" and page.compression.name == "JPEG")
    return (
        (kind == "MINISBLACK" if samples < 3 else is_color and samples < 5)
        and page.dtype in (np.uint8, np.uint16)
        and page.bitspersample == 8 * page.dtype.itemsize
        and page.imagedepth == 1
        and page.tags.valueof("Orientation", _UPRIGHT) == _UPRIGHT
    )


def _is_cut_fine(page: Any) -> bool:
    """True where no row of strips or tiles is too large to be decoded at once."""
    return bool(_side(page) * page.imagewidth * page.samplesperpixel <= MOST_SEGMENT_VALUES)


def _is_planar(page: Any) -> bool:
    """True where each sample has its own plane."""
    return bool(page.planarconfig == tifffile.PLANARCONFIG.SEPARATE and page.samplesperpixel > 1)


def _side(page: Any) -> int:
    """Rows of a segment: of a tile or strip."""
    return int(page.tilelength if page.is_tiled else min(page.rowsperstrip, page.imagelength))


def _tiff_blocks(path: Path) -> Iterator[Pixels]:
    """All samples of the first page, HWC, some megabytes at a time."""
    with _damage_named(path), tifffile.TiffFile(path) as file, path.open("rb") as data:
        page = file.pages.first
        row_bytes = page.imagewidth * page.samplesperpixel * page.dtype.itemsize
        side = 1 if page.is_contiguous else _side(page)
        count = side * max(1, BLOCK_BYTES // (side * row_bytes))
        read = _stored if page.is_contiguous else _segments
        for top in range(0, page.imagelength, count):
            yield read(page, data, top, min(count, page.imagelength - top))


def _as_picture(block: Pixels) -> Pixels:
    """Grey values or RGB, without alpha."""
    return block[..., 0] if block.shape[2] < 3 else np.ascontiguousarray(block[..., :3])


def _stored(page: Any, data: BinaryIO, top: int, rows: int) -> Pixels:
    """Rows that lie in the file as they are, HWC."""
    planes = page.samplesperpixel if _is_planar(page) else 1
    shape = (rows, page.imagewidth, page.samplesperpixel // planes)
    row_bytes = shape[1] * shape[2] * page.dtype.itemsize
    kind, parts = page.dtype.newbyteorder(page.parent.byteorder), []
    for plane in range(planes):
        data.seek(page.dataoffsets[0] + (plane * page.imagelength + top) * row_bytes)
        parts.append(np.fromfile(data, kind, rows * shape[1] * shape[2]))
        if parts[-1].nbytes < rows * row_bytes:
            raise ValueError(f"it ends within the rows from {top} on")
    joined = np.concatenate([part.reshape(shape) for part in parts], axis=2)
    return joined.astype(page.dtype, copy=False)


def _segments(page: Any, data: BinaryIO, top: int, rows: int) -> Pixels:
    """Whole rows of strips or tiles, HWC."""
    samples, side = page.samplesperpixel, _side(page)
    is_planar = _is_planar(page)
    across = -(-page.imagewidth // page.tilewidth) if page.is_tiled else 1
    down = -(-page.imagelength // side)
    block = np.zeros((rows, page.imagewidth, samples), page.dtype)
    for plane in range(samples if is_planar else 1):
        first = (plane * down + top // side) * across
        for index in range(first, first + -(-rows // side) * across):
            pixels, (_, _, row, left, _), _ = _decoded(page, data, index)
            if pixels is None:  # a segment that the file leaves out is empty
                continue
            part = pixels[0, : rows + top - row, : page.imagewidth - left]
            place = block[row - top : row - top + len(part), left : left + part.shape[1]]
            place[..., plane if is_planar else slice(None)] = part[..., 0] if is_planar else part
    return block


def _decoded(page: Any, data: BinaryIO, index: int) -> Any:
    """A segment, its place and its shape as tifffile gives them."""
    size = page.databytecounts[index]
    data.seek(page.dataoffsets[index])
    stored = data.read(size) if size else None
    if stored is not None and len(stored) < size:
        raise ValueError(f"part {index} has {len(stored)} of {size} bytes")
    return page.decode(stored, index, jpegtables=page.jpegtables, jpegheader=page.jpegheader)


@contextmanager
def _damage_named(path: Path) -> Iterator[None]:
    """Whatever tifffile and its codecs raise, as what it is: a damaged file."""
    try:
        yield
    except RulesError:
        raise
    except Exception as error:
        raise RulesError(
            "the image is damaged or cut short", where=str(path), found=str(error)
        ) from error
