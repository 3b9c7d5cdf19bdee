"""Label mask and distance map -> instance map."""

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import watershed

from dataset_rules.rules import Document


class SplitSettings(Document):
    """How objects are taken apart; chosen on the validation split."""

    foreground: float = 0.5  # probability from which a pixel belongs to an object
    seed: float = 0.5  # normalised distance from which a pixel is an object's core
    min_area_px: int = 8  # smaller objects are dropped from mask and map


def split_objects(
    foreground: NDArray[np.bool_], distance: NDArray[np.float32], settings: SplitSettings
) -> NDArray[np.int32]:
    """Objects of a foreground: one for each core of the distance map, grown by watershed.

    A connected part without a core is one object. Numbers ascend from 1 in row order of the
    objects' first pixel.

    Args:
        foreground: HW.
        distance: normalised distance to the border, HW float32, 0..1.
        settings: thresholds.
    """
    cores = ((distance > settings.seed) & foreground).astype(np.uint8)
    count, markers = cv2.connectedComponents(cores, connectivity=8)
    parts_count, parts = cv2.connectedComponents(foreground.astype(np.uint8), connectivity=4)
    has_core = np.zeros(parts_count, bool)
    has_core[parts[markers > 0]] = True
    bare = foreground & ~has_core[parts]
    markers = np.where(bare, parts + count, markers)
    objects = watershed(-distance, markers, mask=foreground)
    return renumbered(objects, min_area_px=settings.min_area_px)


def renumbered(objects: NDArray[np.int32], *, min_area_px: int = 0) -> NDArray[np.int32]:
    """Objects numbered 1.. in row order of their first pixel; smaller ones become background."""
    numbers, first, areas = np.unique(objects, return_index=True, return_counts=True)
    keep = (numbers > 0) & (areas >= min_area_px)
    order = numbers[keep][np.argsort(first[keep])]
    table = np.zeros(int(numbers.max(initial=0)) + 1, np.int32)
    table[order] = np.arange(1, len(order) + 1)
    return table[objects]
