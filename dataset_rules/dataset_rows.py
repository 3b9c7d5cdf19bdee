"""A new image in the form of the dataset's images, from its rows: any size in bounded memory."""

import numpy as np
from numpy.typing import NDArray

from dataset_rules.fit import resize_image, shrunk_size
from dataset_rules.row_scaling import shrunk_rows
from dataset_rules.rows import Rows, rows_of
from dataset_rules.rules import Rules
from dataset_rules.sample import binarized, in_color_model

EPSILON = float(np.finfo(np.float32).eps)  # of all pixels, below which a side is empty


def rows_as_in_dataset(rows: Rows, rules: Rules) -> Rows:
    """What `as_in_dataset` makes of the whole image.

    The rows are read once more where all values have to be seen first: for a depth of `range`
    and for a binary colour model.
    """
    span = _span(rows) if rules.depth == "range" else None
    toned = rows.mapped(lambda block: in_color_model(block, rules, span=span)[0])
    threshold = _otsu(_counts(toned)) if rules.color_model == "binary" else None
    return _scaled(toned, rules).mapped(lambda block: binarized(block, threshold))


def _scaled(rows: Rows, rules: Rules) -> Rows:
    size = shrunk_size(rows.size_px, rules)
    if size is None or size == rows.size_px:
        return rows
    if size[0] <= rows.height_px and size[1] <= rows.width_px:
        return shrunk_rows(rows, size)
    return rows_of(resize_image(rows.gathered(), size))


def _span(rows: Rows) -> tuple[int, int]:
    ends = [(int(block.min()), int(block.max())) for block in rows.blocks()]
    return min(low for low, _ in ends), max(high for _, high in ends)


def _counts(rows: Rows) -> NDArray[np.int64]:
    counts = np.zeros(256, np.int64)
    for block in rows.blocks():
        counts += np.bincount(block.ravel(), minlength=256)
    return counts


def _otsu(counts: NDArray[np.int64]) -> int:
    """The level that parts the values best, as OpenCV finds it from the same counts.

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
