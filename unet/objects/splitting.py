"""One connected component of the foreground and its distance map -> its objects."""

from enum import StrEnum

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.morphology import reconstruction
from skimage.segmentation import watershed

from dataset_rules.ground.documents import Document
from unet.objects.targets import distance_to_border

MARGIN_PX = 4  # radius of the smoothing kernel
_BLUR_PX = (2 * MARGIN_PX + 1, 2 * MARGIN_PX + 1)


class Seeds(StrEnum):
    """How the seeds of the objects in a connected component are found."""

    CORE = "core"  # regions where the learned distance exceeds a level
    PEAK = "peak"  # peaks of the learned distance that are at least a level high
    SHAPE = "shape"  # the same of the foreground's own distance to its border, in px


class SplitSettings(Document):
    """How touching objects are split; chosen on the validation split."""

    foreground: float = 0.5  # minimum probability of an object's pixel
    seeds: Seeds = Seeds.PEAK
    level: float = 0.1  # of the learned distance (0..1); in px for `shape`
    min_area_px: int = 8  # smaller objects are removed from mask and instance map


def split_component(
    component: NDArray[np.bool_], distance: NDArray[np.float32], settings: SplitSettings
) -> NDArray[np.int32]:
    """The objects of one connected component, numbered from 1 in no particular order.

    One object per seed, grown by watershed; without a seed the component is one object. Outside
    the component, only the distance of pixels up to `MARGIN_PX` away affects the result.

    Args:
        component: HW, the pixels of one component (8-connected).
        distance: learned, normalised distance to the border, HW float32, 0..1.
        settings: thresholds.
    """
    height = _height(component, distance, settings.seeds)
    is_core = settings.seeds is Seeds.CORE
    count, markers = _components(
        component & (distance > settings.level if is_core else _maxima(height)), 8
    )
    parts, labels = _components(component, 4)
    if parts == 1 and count <= 1:
        return component.astype(np.int32)
    if not is_core and count > 1:
        count, markers = _components(_h_maxima(height, settings.level), 8)
    has_seed = np.zeros(parts + 1, bool)
    has_seed[labels[markers > 0]] = True
    bare = component & ~has_seed[labels]
    return np.asarray(watershed(-height, np.where(bare, labels + count, markers), mask=component))


def _components(where: NDArray[np.bool_], connectivity: int) -> tuple[int, NDArray[np.int32]]:
    """The number of connected components, and the label of each pixel, from 1."""
    count, labels = cv2.connectedComponents(where.astype(np.uint8), connectivity=connectivity)
    return count - 1, np.asarray(labels)


def _height(
    component: NDArray[np.bool_], distance: NDArray[np.float32], seeds: Seeds
) -> NDArray[np.float32]:
    """The landscape whose peaks are objects, -1 outside; smoothed by one pixel against noise."""
    if seeds is Seeds.SHAPE:
        distance = distance_to_border(component)
    smooth = cv2.GaussianBlur(np.ascontiguousarray(distance), _BLUR_PX, 1.0)
    return np.where(component, smooth, np.float32(-1))


def _maxima(height: NDArray[np.float32]) -> NDArray[np.bool_]:
    """Pixels that none of their eight neighbours exceeds; they include every peak."""
    return np.asarray(height >= cv2.dilate(height, np.ones((3, 3), np.uint8)))


def _h_maxima(height: NDArray[np.float32], level: float) -> NDArray[np.bool_]:
    """Peaks that rise by `level` above the saddle to any higher one (h-maxima).

    Source: Soille, Morphological Image Analysis, 2003, section 6.3.4.
    """
    filled = reconstruction(height - np.float32(level), height)
    peaks: NDArray[np.bool_] = (height - filled >= level * (1 - 1e-3)) & (height >= 0)
    return peaks


def renumbered(objects: NDArray[np.int32], *, min_area_px: int = 0) -> NDArray[np.int32]:
    """Objects numbered 1.. in row order of their first pixel; smaller ones become background."""
    numbers, first, areas = np.unique(objects, return_index=True, return_counts=True)
    keep = (numbers > 0) & (areas >= min_area_px)
    order = numbers[keep][np.argsort(first[keep])]
    table = np.zeros(int(numbers.max(initial=0)) + 1, np.int32)
    table[order] = np.arange(1, len(order) + 1)
    return table[objects]
