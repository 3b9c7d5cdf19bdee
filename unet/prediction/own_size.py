"""Objects found at the dataset's scale, converted to the image's own size.

Objects are separated at the dataset's scale, for which the settings were chosen; outlines follow
the probabilities.

Shape suffixes: C channels (classes and distance), H height, W width.
"""

from collections.abc import Iterator

import cv2
import numpy as np
from numpy.typing import NDArray
from skimage.segmentation import expand_labels, watershed

from unet.objects.object_rows import LabelRows
from unet.objects.splitting import SplitSettings, renumbered
from unet.prediction.decoding import Prediction
from unet.prediction.planes import resized, upscaled_planes

Floats = NDArray[np.float32]

WHOLE_PIXELS = 1 << 26  # in larger images, borders between objects ignore the probabilities
REACH_PX = 2  # at the dataset's scale: how far outlines may extend beyond the objects found there


def at_own_size(
    found: Prediction, prob_CHW: Floats, split: SplitSettings, *, size_px: tuple[int, int]
) -> Iterator[tuple[LabelRows, Floats]]:
    """Rows of mask and objects with their probability planes, from top to bottom.

    Args:
        found: at the dataset's scale.
        prob_CHW: class probabilities and distance at the plan's scale.
        split: the foreground threshold.
        size_px: height and width of the image.
    """
    if size_px[0] * size_px[1] <= WHOLE_PIXELS:
        yield _whole(found, resized(prob_CHW, size_px), split)
        return
    yield from _by_rows(found, prob_CHW, split, size_px)


def _whole(found: Prediction, prob_CHW: Floats, split: SplitSettings) -> tuple[LabelRows, Floats]:
    size = (prob_CHW.shape[2], prob_CHW.shape[1])
    near = cv2.resize(found.instances, size, interpolation=cv2.INTER_NEAREST_EXACT)
    foreground = prob_CHW[0] <= 1 - split.foreground
    grown = watershed(-prob_CHW[-1], np.where(foreground, near, 0), mask=foreground)
    return _with_classes(renumbered(grown.astype(np.int32)), prob_CHW)


def _by_rows(
    found: Prediction, prob_CHW: Floats, split: SplitSettings, size_px: tuple[int, int]
) -> Iterator[tuple[LabelRows, Floats]]:
    """Assign each foreground pixel to the nearest object at the dataset's scale."""
    objects = expand_labels(found.instances, REACH_PX).astype(np.int32)
    rows, columns = (
        ((np.arange(own) + 0.5) * (small / own)).astype(int)
        for own, small in zip(size_px, objects.shape, strict=True)
    )
    numbers, top, count = np.zeros(int(objects.max(initial=0)) + 1, np.int32), 0, 0
    height, width = prob_CHW.shape[1:]
    blocks = (prob_CHW[:, row : row + 1] for row in range(height))
    for planes in upscaled_planes(blocks, (height, width), size_px):
        near = objects[rows[top : top + planes.shape[1]]][:, columns]
        near = np.where(planes[0] <= 1 - split.foreground, near, 0)
        known, first = np.unique(near, return_index=True)
        is_new = (known > 0) & (numbers[known] == 0)
        new = known[is_new][np.argsort(first[is_new])]
        numbers[new] = np.arange(count + 1, count + 1 + len(new))
        count, top = count + len(new), top + planes.shape[1]
        yield _with_classes(numbers[near], planes)


def _with_classes(objects: NDArray[np.int32], prob_CHW: Floats) -> tuple[LabelRows, Floats]:
    classes = prob_CHW[1:-1].argmax(0) + 1
    return LabelRows(np.where(objects > 0, classes, 0).astype(np.uint8), objects), prob_CHW
