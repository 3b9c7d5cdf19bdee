"""Tiles over an image of any size and the weights that blend them.

Shape suffixes: C channels, H height, W width.
"""

from collections.abc import Callable, Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.pixels.images import Pixels

Floats = NDArray[np.float32]

PIECE_PX = 1 << 22  # of finished rows that are handed on together


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
    """The image mirrored at its lower and right border up to multiples of `multiple`."""
    height, width = image_HWC.shape[:2]
    return _grown(image_HWC, -height % multiple, -width % multiple)


def _grown(image_HWC: Pixels, down: int, right: int) -> Pixels:
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
    """`function` (HWC -> CHW at equal size) over the whole image, tile by tile, (C, H, W).

    An image that fits one tile is taken whole; else square tiles overlap and are averaged by
    `blending_weights`, so that no seam shows.
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
    """The same of an image that comes in blocks of rows: blocks of rows (C, H, W), when finished.

    Not more than the rows of one tile are kept, of the image and of the result.
    """
    height, width = size_px
    if max(_up(height, multiple), _up(width, multiple)) <= tile_px:
        image_HWC = np.concatenate(list(blocks_HWC))
        yield function(padded(image_HWC, multiple))[:, :height, :width]
        return
    bands = _bands(blocks_HWC, height, multiple=multiple, tile_px=tile_px, overlap_px=overlap_px)
    total, share, weights = None, None, blending_weights(tile_px)
    for top, next_top, band_HWC in bands:
        for left in tile_origins(band_HWC.shape[1], tile_px, tile_px - overlap_px):
            result = function(band_HWC[:, left : left + tile_px])
            if total is None or share is None:
                share = np.zeros(band_HWC.shape[:2], np.float32)
                total = np.zeros((len(result), *share.shape), np.float32)
            total[:, :, left : left + tile_px] += result * weights
            share[:, left : left + tile_px] += weights
        assert total is not None
        assert share is not None
        done, step = min(next_top, height) - top, max(1, PIECE_PX // width)
        for start in range(0, done, step):
            piece = slice(start, min(start + step, done))
            yield total[:, piece, :width] / share[piece, :width]
        _move_up(total, next_top - top)
        _move_up(share[None], next_top - top)


def _up(length: int, multiple: int) -> int:
    return length + -length % multiple


def _bands(
    blocks_HWC: Iterable[Pixels], height: int, *, multiple: int, tile_px: int, overlap_px: int
) -> Iterator[tuple[int, int, Pixels]]:
    """First row of each row of tiles, that of the next one, and its pixels, mirrored to size."""
    tall = max(_up(height, multiple), tile_px)
    tops = tile_origins(tall, tile_px, tile_px - overlap_px)
    blocks = iter(blocks_HWC)
    kept, first = _widened(next(blocks), multiple, tile_px), 0
    for top, next_top in zip(tops, [*tops[1:], tall], strict=True):
        kept, first = kept[top - first :], top
        parts, known = [kept], first + len(kept)
        while known < min(top + tile_px, height):
            parts.append(_widened(next(blocks), multiple, tile_px))
            known += len(parts[-1])
        kept = np.concatenate(parts) if len(parts) > 1 else kept
        if known == height:
            kept = _grown(kept, _up(height, multiple) - height, 0)
            kept = _grown(kept, max(0, tile_px - len(kept) - first), 0)
        yield top, next_top, kept[:tile_px]


def _widened(block_HWC: Pixels, multiple: int, tile_px: int) -> Pixels:
    """Rows mirrored at their right end to a multiple, and further to the width of a tile."""
    block = block_HWC[..., None] if block_HWC.ndim == 2 else block_HWC
    block = _grown(block, 0, -block.shape[1] % multiple)
    return _grown(block, 0, max(0, tile_px - block.shape[1]))


def _move_up(rows_CHW: Floats, count: int) -> None:
    """Rows move up by a count; zeros come in from below."""
    kept = rows_CHW.shape[1] - count
    rows_CHW[:, :kept] = rows_CHW[:, count:]
    rows_CHW[:, kept:] = 0
