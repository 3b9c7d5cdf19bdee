"""Images as the network sees them: scaled, normalised."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.pixels.images import Pixels
from unet.planning.intensity_levels import Levels, levels_of
from unet.planning.sample_statistics import BRIGHT, FOURTH


def normalized(
    image: Pixels, *, channels: int, levels: Levels | None = None
) -> NDArray[np.float32]:
    """The image with its 0.5th percentile at 0 and its 99.8th at 1 (`levels_of`), HWC float32.

    Percentiles of the image itself make exposure and bit depth disappear. All channels share
    them, so that colour stays. 99.8 rather than 99: nuclei may cover less than a hundredth.

    Args:
        image: HW or HWC, uint8 or uint16.
        channels: that the network takes.
        levels: of a larger image that this is a part of.
    """
    stacked = image[..., None] if image.ndim == 2 else image
    low, span = levels or levels_of([image])
    scaled = (stacked.astype(np.float32) - low) / span
    if scaled.shape[2] == channels:
        return np.asarray(scaled, np.float32)
    if channels == 3:
        return np.repeat(scaled, 3, axis=2).astype(np.float32)
    return np.asarray(scaled.mean(axis=2, keepdims=True), np.float32)


def darkness(image: Pixels) -> float | None:
    """Share of light at the normalised image's 0, if it is stained and its ground is bright."""
    if image.ndim == 2 or not np.ptp(image[FOURTH], axis=2).any():
        return None
    low, span = levels_of([image])
    is_bright = np.median(image[FOURTH]) > BRIGHT * np.iinfo(image.dtype).max
    return low / (low + span) if is_bright else None


def rescaled(pixels: Pixels, scale: float) -> Pixels:
    """Pixels at the plan's scale: area means, so that nothing aliases."""
    if scale == 1:
        return pixels
    size = [max(1, round(n * scale)) for n in pixels.shape[:2]]
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA))
