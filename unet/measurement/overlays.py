"""Images with outlined objects, also as data URIs."""

import base64
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import find_boundaries

from dataset_rules.pixels.images import encode

Array = NDArray[Any]

POSITIVE_RGB, NEGATIVE_RGB = (255, 30, 60), (0, 150, 255)
DISPLAY_PX = 768  # long side of images on the page: sharp on a laptop, about 150 kB each
MAX_ENLARGED = 4
TISSUE_CONTRAST = 0.7  # reduced under the outlines, so that red is visible on brown


def draw_overlay(image: Array, instances: Array, is_positive: Mapping[int, bool]) -> Array:
    """The image with each nucleus outlined, red if positive and blue if not.

    Args:
        image: HW3, uint8, RGB.
        instances: HW, unsigned integers, 0 background.
        is_positive: label of a nucleus -> whether it is positive; other nuclei are not drawn.

    Returns:
        HW3, uint8, scaled to a long side of about 768 px; outlines are inside the nuclei.
    """
    scale = min(MAX_ENLARGED, DISPLAY_PX / max(instances.shape))
    shown = resize(image, scale)
    size = (shown.shape[1], shown.shape[0])
    numbers, places = np.unique(instances, return_inverse=True)  # cv2 cannot resize wide integers
    dense = places.reshape(instances.shape).astype(np.float32)
    objects = cv2.resize(dense, size, interpolation=cv2.INTER_NEAREST_EXACT).astype(np.int64)
    border = find_boundaries(objects, mode="inner") & (numbers[objects] != 0)
    border = cv2.dilate(border.astype(np.uint8), np.ones((3, 3), np.uint8)).astype(bool)
    drawn = np.round(255 - TISSUE_CONTRAST * (255.0 - shown)).astype(np.uint8)
    for state, colour in ((False, NEGATIVE_RGB), (True, POSITIVE_RGB)):
        chosen = np.array([is_positive.get(int(number)) is state for number in numbers])
        drawn[border & chosen[objects]] = colour
    return drawn


def resize(image: Array, scale: float) -> Array:
    """Resize an image by a factor: bicubic when enlarging, area mean when shrinking."""
    height_px, width_px = (max(1, round(side * scale)) for side in image.shape[:2])
    method = cv2.INTER_CUBIC if scale > 1 else cv2.INTER_AREA
    resized: Array = np.asarray(cv2.resize(image, (width_px, height_px), interpolation=method))
    return resized


def data_uri(image: Array) -> str:
    """The image as a JPEG data URI, the `src` of an `<img>`."""
    return "data:image/jpeg;base64," + base64.b64encode(encode(image, ".jpg")).decode()
