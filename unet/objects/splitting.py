"""One connected part of the foreground and its distance map -> its objects."""

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

from dataset_rules.ground.documents import Document
from unet.objects.targets import distance_to_border

MARGIN_PX = 4  # around a part, up to which the smoothing looks
_BLUR_PX = (2 * MARGIN_PX + 1, 2 * MARGIN_PX + 1)


class Seeds(StrEnum):
    """What tells one object of a connected part from the next."""

    CORE = "core"  # parts of the learned distance above a level
    PEAK = "peak"  # tops of the learned distance that rise by a level
    SHAPE = "shape"  # tops of the foreground's own distance to its border, which rise by px


class SplitSettings(Document):
    """How objects are taken apart; chosen on the validation split."""

    foreground: float = 0.5  # probability from which a pixel belongs to an object
    seeds: Seeds = Seeds.PEAK
    level: float = 0.1  # of the learned distance (0..1), for `shape` in px
    min_area_px: int = 8  # smaller objects are dropped from mask and map


def split_part(
    part: NDArray[np.bool_], distance: NDArray[np.float32], settings: SplitSettings
) -> NDArray[np.int32]:
    """The objects of one connected part, numbered from 1 in no special order.

    One object for each seed, grown by watershed; without a seed the part is one object. Nothing
    outside the part has a say but the distance of the pixels around it, up to `MARGIN_PX` away.

    Args:
        part: HW, the pixels of one part (pixels that touch by a side or a corner).
        distance: learned, normalised distance to the border, HW float32, 0..1.
        settings: thresholds.
    """
    height = _height(part, distance, settings.seeds)
    is_core = settings.seeds is Seeds.CORE
    count, markers = _pieces(part & (distance > settings.level if is_core else _maxima(height)), 8)
    pieces_count, pieces = _pieces(part, 4)
    if pieces_count == 1 and count <= 1:
        return part.astype(np.int32)
    if not is_core and count > 1:
        count, markers = _pieces(_tops(height, settings.level), 8)
    has_seed = np.zeros(pieces_count + 1, bool)
    has_seed[pieces[markers > 0]] = True
    bare = part & ~has_seed[pieces]
    return np.asarray(watershed(-height, np.where(bare, pieces + count, markers), mask=part))


def _pieces(where: NDArray[np.bool_], connectivity: int) -> tuple[int, NDArray[np.int32]]:
    """How many connected pieces there are, and the number of each pixel's, from 1."""
    count, pieces = cv2.connectedComponents(where.astype(np.uint8), connectivity=connectivity)
    return count - 1, np.asarray(pieces)


def _height(
    part: NDArray[np.bool_], distance: NDArray[np.float32], seeds: Seeds
) -> NDArray[np.float32]:
    """The landscape whose tops are objects, -1 around it.

    Smoothed by one pixel, so that noise has no top.
    """
    if seeds is Seeds.SHAPE:
        distance = distance_to_border(part)
    smooth = cv2.GaussianBlur(np.ascontiguousarray(distance), _BLUR_PX, 1.0)
    return np.where(part, smooth, np.float32(-1))


def _maxima(height: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels that none of their eight neighbours exceeds: every top is among them."""
    return np.asarray(height >= cv2.dilate(height, np.ones((3, 3), np.uint8)))


def _tops(height: NDArray[np.float32], level: float) -> NDArray[np.bool_]:
    """Where a top rises by `level` above the saddle to any higher one (h-maxima).

    Source: Soille, Morphological Image Analysis, 2003, section 6.3.4.
    """
    filled = reconstruction(height - np.float32(level), height)
    tops: NDArray[np.bool_] = (height - filled >= level * (1 - 1e-3)) & (height >= 0)
    return tops


def renumbered(objects: NDArray[np.int32], *, min_area_px: int = 0) -> NDArray[np.int32]:
    """Objects numbered 1.. in row order of their first pixel; smaller ones become background."""
    numbers, first, areas = np.unique(objects, return_index=True, return_counts=True)
    keep = (numbers > 0) & (areas >= min_area_px)
    order = numbers[keep][np.argsort(first[keep])]
    table = np.zeros(int(numbers.max(initial=0)) + 1, np.int32)
    table[order] = np.arange(1, len(order) + 1)
    return table[objects]
