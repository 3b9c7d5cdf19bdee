"""Downscaling an image by rows: area averages like OpenCV's, with only some rows in memory."""

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.pixels.images import Pixels
from dataset_rules.pixels.rows import Rows

Floats = NDArray[np.float32]


def downscale_rows(rows: Rows, size_px: tuple[int, int]) -> Rows:
    """Downscale to (height, width), at most the original size; each value is an area average."""
    return Rows(*size_px, lambda: _shrunk_blocks(rows, size_px))


def _shrunk_blocks(rows: Rows, size_px: tuple[int, int]) -> Iterator[Pixels]:
    height, width = size_px
    factor = rows.height_px / height
    kept, first, done = np.empty(0, np.float32), 0, 0
    for block in rows.blocks():
        narrow = _resize_width(block, width)
        kept = np.concatenate([kept, narrow]) if len(kept) else narrow
        known = first + len(kept)
        is_last = known == rows.height_px
        ready = height if is_last else min(height, math.floor(known / factor - 1e-9))
        if ready > done:
            means = np.stack([_area_mean(kept, index * factor - first, factor)
                              for index in range(done, ready)])  # fmt: skip
            yield _as_dtype_of(means, block)
            done = ready
            used = math.floor(done * factor) - first
            kept, first = kept[used:].copy(), first + used


def _resize_width(block: Pixels, width: int) -> Floats:
    """Resize each row to the given width, as float32."""
    values = np.ascontiguousarray(block, np.float32)
    if block.shape[1] == width:
        return values
    return np.asarray(cv2.resize(values, (width, len(block)), interpolation=cv2.INTER_AREA))


def _area_mean(rows: Floats, start: float, length: float) -> Floats:
    """Mean of `length` rows from `start`; border rows are weighted by their overlap."""
    first, last = math.floor(start), min(len(rows), math.ceil(start + length - 1e-6))
    indices = np.arange(first, last)
    overlaps = np.minimum(indices + 1, start + length) - np.maximum(indices, start)
    weights = (overlaps / overlaps.sum()).astype(np.float32)
    return np.asarray(np.tensordot(weights, rows[first:last], 1), np.float32)


def _as_dtype_of(means: Floats, like: Pixels) -> Pixels:
    if like.dtype.kind == "f":
        return means
    return np.asarray(np.floor(means + 0.5)).astype(like.dtype)
