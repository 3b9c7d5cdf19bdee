"""Mask and objects from class probabilities.

Shape suffixes: C channels, H height, W width.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from unet.objects.object_rows import split_objects
from unet.objects.splitting import SplitSettings
from unet.prediction.planes import resized


@dataclass(frozen=True)
class Prediction:
    """Label mask and instance map of an image, at the image's own size."""

    mask: NDArray[np.uint8]  # HW class ids
    instances: NDArray[np.int32]  # HW object numbers from 1


def decoded(
    prob_CHW: NDArray[np.float32], split: SplitSettings, size: tuple[int, ...]
) -> Prediction:
    """Mask and objects from probabilities and distance (K + 1, H, W), at `size` (height, width)."""
    prob_CHW = resized(prob_CHW, size)
    foreground = prob_CHW[0] <= 1 - split.foreground
    objects = split_objects(foreground, prob_CHW[-1], split)
    classes = prob_CHW[1:-1].argmax(0) + 1
    return Prediction(np.where(objects > 0, classes, 0).astype(np.uint8), objects)
