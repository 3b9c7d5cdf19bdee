"""Tiles over an image of any size, and the weights that blend them.

Shape suffixes: C channels, H height, W width.
"""

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.pixels.images import Pixels

Floats = NDArray[np.float32]

BLOCK_PX = 1 << 22  # finished pixels that are yielded together


def tile_origins(length_px: int, tile_px: int, stride_px: int) -> list[int]:
    """First pixel of every tile along one axis; the last tile ends at the border.

    Raises:
        ValueError: if the tile is longer than the axis, or the stride would leave gaps.
    """
    last = length_px - tile_px
    if last < 0:
        raise ValueError(f"tile of {tile_px} px on an axis of {length_px} px: pad the image")
    if not 1 <= stride_px <= tile_px:
        raise ValueError(f"stride of {stride_px} px: must be 1..{tile_px} so that tiles touch")
    return [*range(0, last, stride_px), last]


def blending_weights(tile_px: int) -> Floats:
    """Gaussian over a tile (HW), sigma an eighth of its side as in nnU-Net, never below 1e-3.

    Source: Isensee et al. 2021, sliding-window inference.
    """
    axis = np.arange(tile_px) - (tile_px - 1) / 2
    gauss = np.exp(-0.5 * (axis / (tile_px / 8)) ** 2)
    return np.maximum(np.outer(gauss, gauss), 1e-3).astype(np.float32)


def padded(image_HWC: Pixels, multiple: int) -> Pixels:
    """The image, mirrored at its lower and right border, at multiples of `multiple`."""
    height, width = image_HWC.shape[:2]
    return _mirrored(image_HWC, -height % multiple, -width % multiple)


def _mirrored(image_HWC: Pixels, down: int, right: int) -> Pixels:
    if not down and not right:
        return image_HWC
    grown = cv2.copyMakeBorder(image_HWC, 0, down, 0, right, cv2.BORDER_REFLECT_101)
    return np.asarray(grown).reshape(*grown.shape[:2], -1)


def blended(
    image_HWC: Floats,
    function: Callable[[Floats], Floats],
    *,
    multiple: int,
    tile_px: int,
    overlap_px: int,
) -> Floats:
    """`function` (HWC -> CHW of the same size) applied tile by tile to an image, (C, H, W).

    An image that fits into one tile is processed as a whole. Otherwise square tiles overlap and
    are averaged with `blending_weights`, so that no seams show.
    """
    rows = blended_rows(
        [image_HWC], function, size_px=image_HWC.shape[:2], multiple=multiple, tile_px=tile_px,
        overlap_px=overlap_px,
    )  # fmt: skip
    return np.concatenate(list(rows), axis=1)


def blended_rows(
    blocks_HWC: Iterable[Pixels],
    function: Callable[[Pixels], Floats],
    *,
    size_px: tuple[int, ...],
    multiple: int,
    tile_px: int,
    overlap_px: int,
) -> Iterator[Floats]:
    """The same for an image in blocks of rows: yields blocks of rows (C, H, W) as they finish.

    Keeps at most the rows of one tile, of the image and of the result.
    """
    height, width = size_px
    if max(_rounded_up(height, multiple), _rounded_up(width, multiple)) <= tile_px:
        image_HWC = np.concatenate(list(blocks_HWC))
        yield function(padded(image_HWC, multiple))[:, :height, :width]
        return
    bands = _bands(blocks_HWC, height, multiple=multiple, tile_px=tile_px, overlap_px=overlap_px)
    total, weight_sum, weights = None, None, blending_weights(tile_px)
    for top, next_top, band_HWC in bands:
        for left in tile_origins(band_HWC.shape[1], tile_px, tile_px - overlap_px):
            result = function(band_HWC[:, left : left + tile_px])
            if total is None or weight_sum is None:
                weight_sum = np.zeros(band_HWC.shape[:2], np.float32)
                total = np.zeros((len(result), *weight_sum.shape), np.float32)
            total[:, :, left : left + tile_px] += result * weights
            weight_sum[:, left : left + tile_px] += weights
        assert total is not None
        assert weight_sum is not None
        done, step = min(next_top, height) - top, max(1, BLOCK_PX // width)
        for start in range(0, done, step):
            rows = slice(start, min(start + step, done))
            yield total[:, rows, :width] / weight_sum[rows, :width]
        _shift_up(total, next_top - top)
        _shift_up(weight_sum[None], next_top - top)


def _rounded_up(length: int, multiple: int) -> int:
    return length + -length % multiple


def _bands(
    blocks_HWC: Iterable[Pixels], height: int, *, multiple: int, tile_px: int, overlap_px: int
) -> Iterator[tuple[int, int, Pixels]]:
    """Per row of tiles: its first row, that of the next one, and its pixels, mirrored to size."""
    padded_height = max(_rounded_up(height, multiple), tile_px)
    tops = tile_origins(padded_height, tile_px, tile_px - overlap_px)
    blocks = iter(blocks_HWC)
    kept, first = _widened(next(blocks), multiple, tile_px), 0
    for top, next_top in zip(tops, [*tops[1:], padded_height], strict=True):
        kept, first = kept[top - first :], top
        parts, received = [kept], first + len(kept)
        while received < min(top + tile_px, height):
            parts.append(_widened(next(blocks), multiple, tile_px))
            received += len(parts[-1])
        kept = np.concatenate(parts) if len(parts) > 1 else kept
        if received == height:
            kept = _mirrored(kept, _rounded_up(height, multiple) - height, 0)
            kept = _mirrored(kept, max(0, tile_px - len(kept) - first), 0)
        yield top, next_top, kept[:tile_px]


def _widened(block_HWC: Pixels, multiple: int, tile_px: int) -> Pixels:
    """Rows mirrored on the right to a multiple, and then to at least the width of a tile."""
    block = block_HWC[..., None] if block_HWC.ndim == 2 else block_HWC
    block = _mirrored(block, 0, -block.shape[1] % multiple)
    return _mirrored(block, 0, max(0, tile_px - block.shape[1]))


def _shift_up(rows_CHW: Floats, count: int) -> None:
    """Shift rows up by a count, filling with zeros from below."""
    kept = rows_CHW.shape[1] - count
    rows_CHW[:, :kept] = rows_CHW[:, count:]
    rows_CHW[:, kept:] = 0
