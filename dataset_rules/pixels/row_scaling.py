"""Rows at a smaller size: area means as OpenCV makes them, of the rows at hand."""

import math
from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.pixels.images import Pixels
from dataset_rules.pixels.rows import Rows

Floats = NDArray[np.float32]


def shrunk_rows(rows: Rows, size_px: tuple[int, int]) -> Rows:
    """Rows at (height, width), which are not above their own: each value the mean of its area."""
    return Rows(*size_px, lambda: _shrunk_blocks(rows, size_px))


def _shrunk_blocks(rows: Rows, size_px: tuple[int, int]) -> Iterator[Pixels]:
    height, width = size_px
    factor = rows.height_px / height
    kept, first, made = np.empty(0, np.float32), 0, 0
    for block in rows.blocks():
        narrow = _narrowed(block, width)
        kept = np.concatenate([kept, narrow]) if len(kept) else narrow
        known = first + len(kept)
        is_last = known == rows.height_px
        ready = height if is_last else min(height, math.floor(known / factor - 1e-9))
        if ready > made:
            means = np.stack([_area_mean(kept, index * factor - first, factor)
                              for index in range(made, ready)])  # fmt: skip
            yield _as_kind(means, block)
            made = ready
            used = math.floor(made * factor) - first
            kept, first = kept[used:].copy(), first + used


def _narrowed(block: Pixels, width: int) -> Floats:
    """Each row at another width, as float32."""
    values = np.ascontiguousarray(block, np.float32)
    if block.shape[1] == width:
        return values
    return np.asarray(cv2.resize(values, (width, len(block)), interpolation=cv2.INTER_AREA))


def _area_mean(rows: Floats, start: float, length: float) -> Floats:
    """Mean of the rows from `start` over `length`, border rows by the share that lies inside."""
    first, last = math.floor(start), min(len(rows), math.ceil(start + length - 1e-6))
    places = np.arange(first, last)
    shares = np.minimum(places + 1, start + length) - np.maximum(places, start)
    weights = (shares / shares.sum()).astype(np.float32)
    return np.asarray(np.tensordot(weights, rows[first:last], 1), np.float32)


def _as_kind(means: Floats, like: Pixels) -> Pixels:
    if like.dtype.kind == "f":
        return means
    return np.asarray(np.floor(means + 0.5)).astype(like.dtype)
