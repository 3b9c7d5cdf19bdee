"""Pixel values: colours packed into integers, panels of a composite, unique values."""

import cv2
import numpy as np

from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import Pixels
from dataset_rules.rules.fields import Panel


def crop_panel(pixels: Pixels, panel: Panel, index: int) -> Pixels:
    """One panel of a composite; remainders at the right and bottom are dropped.

    Raises:
        RulesError: if the file is smaller than one pixel per panel.
    """
    height, width = pixels.shape[0] // panel.rows, pixels.shape[1] // panel.columns
    if not height or not width:
        raise RulesError(
            "the image is too small for its panels", expected=f"{panel.columns} x {panel.rows}",
            found=f"{pixels.shape[1]} x {pixels.shape[0]} px", remedy="correct source.panel",
        )  # fmt: skip
    row, column = divmod(index, panel.columns)
    area = slice(row * height, (row + 1) * height), slice(column * width, (column + 1) * width)
    return pixels[area]


def gray_if_equal(pixels: Pixels) -> Pixels:
    """HW if all three channels are equal, else the image unchanged."""
    if pixels.ndim == 2:
        return pixels
    first = pixels[..., 0]
    equal = np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])
    return first if equal else pixels


def pack_colors(pixels: Pixels) -> Pixels:
    """One integer per pixel: HW unchanged, HW3 (uint8) as 0xRRGGBB."""
    if pixels.ndim == 2:
        return pixels
    red, green, blue = (pixels[..., channel].astype(np.uint64) for channel in range(3))
    bits = 16 if pixels.dtype == np.uint16 else 8
    return (red << (2 * bits)) | (green << bits) | blue


def unpack_color(value: int) -> tuple[int, int, int]:
    """The RGB colour of a packed value."""
    return value >> 16, value >> 8 & 255, value & 255


def values_in(label: Pixels) -> list[int]:
    """Unique values of a uint8 array, ascending."""
    low, high = int(label.min()), int(label.max())
    if high - low <= 1:
        return sorted({low, high})
    counts = cv2.calcHist([label], [0], None, [256], [0, 256])  # 4x faster than np.unique
    return [int(value) for value in np.flatnonzero(counts)]
