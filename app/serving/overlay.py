"""Images for browsers: 8 bit RGB, and with outlined objects."""

import cv2
import numpy as np

from dataset_rules.pixels.images import Pixels, encode

MAX_SIDE_PX = 2048  # larger images add no detail on a page and are slow to send
# Okabe-Ito colours that stand out from brown, blue and pink stain; by class id from 1.
COLOURS = ((0, 255, 120), (255, 220, 0), (0, 200, 255), (255, 80, 200), (255, 140, 0))
FILL_OPACITY = 0.25


def displayable(image: Pixels) -> Pixels:
    """The image in 8 bits and RGB, no side longer than `MAX_SIDE_PX`."""
    if image.dtype == np.uint16:
        low, high = np.percentile(image, (0.5, 99.5))
        scaled = (image.astype(np.float32) - low) / max(1.0, float(high - low))
        image = (scaled.clip(0, 1) * 255).astype(np.uint8)
    if image.ndim == 2:
        image = np.repeat(image[..., None], 3, axis=2)
    return _downscale(image, cv2.INTER_AREA)


def overlay_png(image: Pixels, mask: Pixels, instances: Pixels) -> bytes:
    """PNG of the image, each object and class outlined and lightly filled in its colour."""
    picture = displayable(image).copy()
    mask = _downscale(mask, cv2.INTER_NEAREST)
    outlines = _outlines(_downscale(instances, cv2.INTER_NEAREST)) | _outlines(mask)
    for class_id in np.unique(mask[mask > 0]):
        colour = np.array(COLOURS[(int(class_id) - 1) % len(COLOURS)], np.float32)
        inside = mask == class_id
        picture[inside] = (picture[inside] * (1 - FILL_OPACITY) + colour * FILL_OPACITY).astype(
            np.uint8
        )
        picture[inside & outlines] = colour.astype(np.uint8)
    return encode(picture, ".png")


def _outlines(labels: Pixels) -> Pixels:
    """True at pixels of an object that touch another object or the background."""
    padded = np.pad(labels.astype(np.int32), 1)
    middle = padded[1:-1, 1:-1]
    neighbours = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
    differs = np.zeros(middle.shape, bool)
    for neighbour in neighbours:
        differs |= neighbour != middle
    return differs & (middle > 0)


def _downscale(pixels: Pixels, interpolation: int) -> Pixels:
    height, width = pixels.shape[:2]
    scale = MAX_SIDE_PX / max(height, width)
    if scale >= 1:
        return pixels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(pixels, size, interpolation=interpolation))
