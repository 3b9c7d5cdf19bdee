"""Resizing of probability planes, also in blocks of rows.

Shape suffixes: C channels, H height, W width.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def upscaled_planes(
    blocks: Iterable[Floats], from_px: tuple[int, int], size_px: tuple[int, int]
) -> Iterator[Floats]:
    """Planes (C, H, W) in blocks of rows, scaled up by linear interpolation.

    Args:
        blocks: rows of all planes, from top to bottom.
        from_px: total height and width of the input.
        size_px: height and width of the output.
    """
    if from_px == size_px:
        yield from blocks
        return
    (height_px, _), (height, width) = from_px, size_px
    position = np.clip((np.arange(height) + 0.5) * (height_px / height) - 0.5, 0, height_px - 1)
    upper = np.floor(position).astype(int)
    share = (position - upper).astype(np.float32)[None, :, None]
    lower = np.minimum(upper + 1, height_px - 1)
    kept, first, done = None, 0, 0
    for block_CHW in blocks:
        wide = _widened(block_CHW, width)
        kept = wide if kept is None else np.concatenate([kept, wide], axis=1)
        ready = int(np.searchsorted(lower, first + kept.shape[1]))
        if ready > done:
            rows = slice(done, ready)
            above, below = kept[:, upper[rows] - first], kept[:, lower[rows] - first]
            yield above * (1 - share[:, rows]) + below * share[:, rows]
            done = ready
        if done < height:
            used = int(upper[done]) - first
            kept, first = kept[:, used:].copy(), first + used


def _widened(block_CHW: Floats, width: int) -> Floats:
    if block_CHW.shape[2] == width:
        return block_CHW
    size = (width, block_CHW.shape[1])
    planes = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in block_CHW]
    return np.stack(planes)


def resized(planes_CHW: Floats, size_px: tuple[int, ...]) -> Floats:
    """Whole planes at (height, width): area means when shrinking, else linear interpolation."""
    height, width = planes_CHW.shape[1:]
    if (height, width) == size_px:
        return planes_CHW
    shrinks = size_px[0] <= height and size_px[1] <= width
    method = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(p, size_px[1::-1], interpolation=method) for p in planes_CHW])
