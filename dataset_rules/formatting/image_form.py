"""Convert an image to a dataset's colour model, bit depth and scale, whole or by rows."""

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.formatting.resize import resize_image, scaled_by_rules, shrunk_size
from dataset_rules.pixels.images import Pixels
from dataset_rules.pixels.row_scaling import downscale_rows
from dataset_rules.pixels.rows import Rows, rows_of
from dataset_rules.rules.rules import Rules

EPSILON = float(np.finfo(np.float32).eps)  # share of all pixels below which a side is empty

EIGHT_BIT_FORMATS = {"jpg", "bmp"}  # formats limited to 8 bits


def convert_rows(rows: Rows, rules: Rules) -> Rows:
    """Like `convert_image`, by rows.

    The rows are read twice if all values are needed first: for depth `range` and for a binary
    colour model.
    """
    span = _span(rows) if rules.depth == "range" else None
    toned = rows.map(lambda block: in_color_model(block, rules, span=span)[0])
    threshold = _otsu(_counts(toned)) if rules.color_model == "binary" else None
    return _scaled(toned, rules).map(lambda block: binarized(block, threshold))


def _scaled(rows: Rows, rules: Rules) -> Rows:
    size = shrunk_size(rows.size_px, rules)
    if size is None or size == rows.size_px:
        return rows
    if size[0] <= rows.height_px and size[1] <= rows.width_px:
        return downscale_rows(rows, size)
    return rows_of(resize_image(rows.to_array(), size))


def _span(rows: Rows) -> tuple[int, int]:
    ends = [(int(block.min()), int(block.max())) for block in rows.blocks()]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _counts(rows: Rows) -> NDArray[np.int64]:
    counts = np.zeros(256, np.int64)
    for block in rows.blocks():
        counts += np.bincount(block.ravel(), minlength=256)
    return counts


def _otsu(counts: NDArray[np.int64]) -> int:
    """Otsu's threshold, the same that OpenCV finds from these counts.

    Source: Otsu, A threshold selection method from gray-level histograms, 1979, eq. 18.
    """
    shares = counts / counts.sum()
    mean = float(shares @ np.arange(len(shares)))
    best, threshold, below, mean_below = 0.0, 0, 0.0, 0.0
    for level, share in enumerate(shares):
        total = mean_below * below
        below += share
        if not EPSILON <= below <= 1 - EPSILON:
            mean_below = total
            continue
        mean_below = (total + level * share) / below
        mean_above = (mean - below * mean_below) / (1 - below)
        between = below * (1 - below) * (mean_below - mean_above) ** 2
        if between > best:
            best, threshold = between, level
    return threshold


def in_color_model(
    image: Pixels, rules: Rules, *, span: tuple[int, int] | None = None
) -> tuple[Pixels, int | None]:
    """The image as RGB (HW3) or grey (HW), and the threshold for a `binary` colour model.

    `binarized` applies the threshold after resizing: a resized binary image is no longer binary.
    """
    image = in_depth(image, rules, span=span)
    if rules.color_model == "rgb":
        return (image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)), None
    gray = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    if rules.color_model == "grayscale":
        return gray, None
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return gray, int(threshold)


def in_depth(image: Pixels, rules: Rules, *, span: tuple[int, int] | None = None) -> Pixels:
    """The image at the bit depth of the rules; 8-bit images are unchanged.

    Args:
        image: HW or HWC.
        rules: of the dataset.
        span: lowest and highest value; those of the image if None.
    """
    is_kept = rules.image_format not in EIGHT_BIT_FORMATS and rules.color_model != "binary"
    if image.dtype != np.uint16 or (is_kept and rules.depth in {None, "keep"}):
        return image
    if rules.depth != "range":
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = span or (int(image.min()), int(image.max()))
    range_ = max(1, high - low)
    return (((image.astype(np.uint32) - low) * 255 + range_ // 2) // range_).astype(np.uint8)


def binarized(image: Pixels, threshold: int | None) -> Pixels:
    """The image thresholded to 0 and 255 (above: 255); unchanged if the threshold is None."""
    return image if threshold is None else np.where(image > threshold, 255, 0).astype(np.uint8)


def convert_image(image: Pixels, rules: Rules) -> Pixels:
    """Convert a whole new image to the colours and scale of the dataset's images."""
    toned, threshold = in_color_model(image, rules)
    return binarized(scaled_by_rules(toned, rules), threshold)
