"""Tiles over an image of any size and the weights that blend them.

Shape suffixes: C channels, H height, W width.
"""

from collections.abc import Callable

import cv2
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


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


def padded(image_HWC: Floats, multiple: int) -> Floats:
    """The image mirrored at its lower and right border up to multiples of `multiple`."""
    height, width = image_HWC.shape[:2]
    down, right = -height % multiple, -width % multiple
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
    height, width = image_HWC.shape[:2]
    image = padded(image_HWC, multiple)
    if max(image.shape[:2]) <= tile_px:
        return function(image)[:, :height, :width]
    image = _at_least(image, tile_px)
    weights = blending_weights(tile_px)
    total: Floats | None = None
    share = np.zeros(image.shape[:2], np.float32)
    stride = tile_px - overlap_px
    for top in tile_origins(image.shape[0], tile_px, stride):
        for left in tile_origins(image.shape[1], tile_px, stride):
            place = (slice(top, top + tile_px), slice(left, left + tile_px))
            result = function(image[place])
            if total is None:
                total = np.zeros((len(result), *image.shape[:2]), np.float32)
            total[(slice(None), *place)] += result * weights
            share[place] += weights
    assert total is not None
    total /= share
    return total[:, :height, :width]


def _at_least(image_HWC: Floats, side_px: int) -> Floats:
    height, width = image_HWC.shape[:2]
    down, right = max(0, side_px - height), max(0, side_px - width)
    grown = cv2.copyMakeBorder(image_HWC, 0, down, 0, right, cv2.BORDER_REFLECT_101)
    return np.asarray(grown).reshape(*grown.shape[:2], -1)
