"""Objects of a label mask, and the distance map from which the network learns to split them."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.dataset import IGNORE
from dataset_rules.pixels.images import Pixels


def foreground_of(mask: Pixels) -> NDArray[np.bool_]:
    """True where a label mask (HW, uint8) has a class other than background."""
    foreground: NDArray[np.bool_] = (mask != 0) & (mask != IGNORE)
    return foreground


def objects_of(mask: Pixels, instances: Pixels | None) -> NDArray[np.int32]:
    """Instance map (HW, int32): the dataset's, else connected components of the foreground."""
    if instances is not None:
        return instances.astype(np.int32)
    _, labels = cv2.connectedComponents(foreground_of(mask).astype(np.uint8), connectivity=4)
    return np.asarray(labels, np.int32)


def touching_pixels(objects: NDArray[np.int32]) -> NDArray[np.bool_]:
    """True at object pixels with one of their four neighbours in another object."""
    edge = np.zeros(objects.shape, bool)
    for near, far in (((slice(1, None),), (slice(None, -1),)),
                      ((slice(None), slice(1, None)), (slice(None), slice(None, -1)))):  # fmt: skip
        differs = (objects[near] != objects[far]) & (objects[near] > 0) & (objects[far] > 0)
        edge[near] |= differs
        edge[far] |= differs
    return edge


def depths(objects: NDArray[np.int32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Distance of each pixel to its object's border, and the maximum of each object.

    Returns:
        distance in px (HW, float32) and the inscribed radius in px, indexed by object number.
    """
    distance = distance_to_border((objects > 0) & ~touching_pixels(objects))
    radius = np.zeros(int(objects.max(initial=0)) + 1, np.float32)
    np.maximum.at(radius, objects.ravel(), distance.ravel())
    return distance, radius


def distance_to_border(inside: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Distance in px of each True pixel to the nearest False one (HW, float32).

    The edge of the image is not the border of an object: an object cut by it continues outside.
    Where nothing is False, the distance is the image's longer side.
    """
    padded = cv2.copyMakeBorder(inside.astype(np.uint8), 1, 1, 1, 1, cv2.BORDER_REPLICATE)
    distance = cv2.distanceTransform(padded, cv2.DIST_L2, 5)[1:-1, 1:-1]
    return np.asarray(np.minimum(distance, max(inside.shape)), np.float32)


def distance_map(objects: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Normalised distance to the border, 0 at the border to 255 at each object's centre (HW)."""
    distance, radius = depths(objects)
    scaled = distance * 255 / np.maximum(radius, 1)[objects]
    return np.minimum(scaled, 255).astype(np.uint8)
