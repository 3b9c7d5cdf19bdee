"""Probability planes that come in blocks of rows, at a larger size.

Shape suffixes: C channels, H height, W width.
"""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def grown_planes(
    blocks: Iterable[Floats], from_px: tuple[int, int], size_px: tuple[int, int]
) -> Iterator[Floats]:
    """Planes (C, H, W) that come in blocks of rows, at (height, width), by linear interpolation.

    Args:
        blocks: planes of the same rows.
        from_px: height and width that come in together.
        size_px: height and width that go out.
    """
    if from_px == size_px:
        yield from blocks
        return
    (height_px, _), (height, width) = from_px, size_px
    place = np.clip((np.arange(height) + 0.5) * (height_px / height) - 0.5, 0, height_px - 1)
    upper = np.floor(place).astype(int)
    share = (place - upper).astype(np.float32)[None, :, None]
    lower = np.minimum(upper + 1, height_px - 1)
    kept, first, made = None, 0, 0
    for block_CHW in blocks:
        wide = _widened(block_CHW, width)
        kept = wide if kept is None else np.concatenate([kept, wide], axis=1)
        ready = int(np.searchsorted(lower, first + kept.shape[1]))
        if ready > made:
            rows = slice(made, ready)
            above, below = kept[:, upper[rows] - first], kept[:, lower[rows] - first]
            yield above * (1 - share[:, rows]) + below * share[:, rows]
            made = ready
        if made < height:
            used = int(upper[made]) - first
            kept, first = kept[:, used:].copy(), first + used


def _widened(block_CHW: Floats, width: int) -> Floats:
    if block_CHW.shape[2] == width:
        return block_CHW
    size = (width, block_CHW.shape[1])
    planes = [cv2.resize(plane, size, interpolation=cv2.INTER_LINEAR) for plane in block_CHW]
    return np.stack(planes)


def resized(planes_CHW: Floats, size_px: tuple[int, ...]) -> Floats:
    """Whole planes at (height, width): area means where they shrink, else linear."""
    height, width = planes_CHW.shape[1:]
    if (height, width) == size_px:
        return planes_CHW
    shrinks = size_px[0] <= height and size_px[1] <= width
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(p, size_px[1::-1], interpolation=how) for p in planes_CHW])
