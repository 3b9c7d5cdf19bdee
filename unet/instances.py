"""Label mask and distance map -> instance map."""

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

from dataset_rules.rules import Document
from unet.targets import distance_to_border


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


def split_objects(
    foreground: NDArray[np.bool_], distance: NDArray[np.float32], settings: SplitSettings
) -> NDArray[np.int32]:
    """Objects of a foreground: one for each seed, grown by watershed.

    A connected part without a seed is one object. Numbers ascend from 1 in row order of the
    objects' first pixel.

    Args:
        foreground: HW.
        distance: learned, normalised distance to the border, HW float32, 0..1.
        settings: thresholds.
    """
    if not foreground.any():
        return np.zeros(foreground.shape, np.int32)
    height = _height(foreground, distance, settings.seeds)
    if settings.seeds is Seeds.CORE:
        tops = distance > settings.level
    else:
        tops = _tops(height, settings.level)
    seeds = (tops & foreground).astype(np.uint8)
    count, markers = cv2.connectedComponents(seeds, connectivity=8)
    parts_count, parts = cv2.connectedComponents(foreground.astype(np.uint8), connectivity=4)
    has_seed = np.zeros(parts_count, bool)
    has_seed[parts[markers > 0]] = True
    bare = foreground & ~has_seed[parts]
    markers = np.where(bare, parts + count, markers)
    objects = watershed(-height, markers, mask=foreground)
    return renumbered(objects, min_area_px=settings.min_area_px)


def _height(
    foreground: NDArray[np.bool_], distance: NDArray[np.float32], seeds: Seeds
) -> NDArray[np.float32]:
    """The landscape whose tops are objects; smoothed by one pixel, so that noise has no top."""
    if seeds is Seeds.SHAPE:
        distance = distance_to_border(foreground)
    return np.asarray(cv2.GaussianBlur(distance, (0, 0), 1.0), np.float32)


def _tops(height: NDArray[np.float32], level: float) -> NDArray[np.bool_]:
    """Where a top rises by `level` above the saddle to any higher one (h-maxima).

    Source: Soille, Morphological Image Analysis, 2003, section 6.3.4.
    """
    filled = reconstruction(height - level, height)
    tops: NDArray[np.bool_] = height - filled >= level * (1 - 1e-3)
    return tops


def renumbered(objects: NDArray[np.int32], *, min_area_px: int = 0) -> NDArray[np.int32]:
    """Objects numbered 1.. in row order of their first pixel; smaller ones become background."""
    numbers, first, areas = np.unique(objects, return_index=True, return_counts=True)
    keep = (numbers > 0) & (areas >= min_area_px)
    order = numbers[keep][np.argsort(first[keep])]
    table = np.zeros(int(numbers.max(initial=0)) + 1, np.int32)
    table[order] = np.arange(1, len(order) + 1)
    return table[objects]
