"""Images as the network sees them: scaled and normalised."""

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

    Percentiles of the image itself remove exposure and bit depth. All channels share them, which
    keeps the colours. 99.8 rather than 99: nuclei may cover less than 1 %.

    Args:
        image: HW or HWC, uint8 or uint16.
        channels: of the network's input.
        levels: of the larger image that this is a part of.
    """
    stacked = image[..., None] if image.ndim == 2 else image
    low, span = levels or levels_of([image])
    scaled = (stacked.astype(np.float32) - low) / span
    if scaled.shape[2] == channels:
        return np.asarray(scaled, np.float32)
    if channels == 3:
        return np.repeat(scaled, 3, axis=2).astype(np.float32)
    return np.asarray(scaled.mean(axis=2, keepdims=True), np.float32)


def black_level(image: Pixels) -> float | None:
    """Intensity at the normalised image's 0, as a share of that at 1.

    None unless the image is stained, on a bright background.
    """
    if image.ndim == 2 or not np.ptp(image[FOURTH], axis=2).any():
        return None
    low, span = levels_of([image])
    is_bright = np.median(image[FOURTH]) > BRIGHT * np.iinfo(image.dtype).max
    return low / (low + span) if is_bright else None


def rescaled(pixels: Pixels, scale: float) -> Pixels:
    """Pixels at the plan's scale, by area means, which do not alias."""
    if scale == 1:
        return pixels
    size = [max(1, round(n * scale)) for n in pixels.shape[:2]]
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=cv2.INTER_AREA))
