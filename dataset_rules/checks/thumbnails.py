"""Thumbnails, small enough to compare thousands of images and masks with each other."""

import base64
from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.dataset import IGNORE
from dataset_rules.ground.documents import Document
from dataset_rules.pixels.images import Pixels, pixel_hash

SIDE_PX = 32  # of a thumbnail: 1 kB each


class ImageThumbnail(Document):
    """Thumbnail and statistics of an image, to find duplicates."""

    digest: str  # of the decoded pixels
    small: str  # SIDE_PX x SIDE_PX grey values, base64
    brightness: float  # median of the grey values, 0 to 255
    colour: float  # mean difference of the highest and the lowest channel, 0 to 255

    @property
    def pixels(self) -> Pixels:
        """The thumbnail, SIDE_PX x SIDE_PX, uint8."""
        return _unpacked(self.small)


class MaskThumbnail(Document):
    """Thumbnail of a label mask, to check whether it belongs to an image."""

    object_share: float  # of the pixels that are not ignored: 0 is empty, 1 is full
    small: str  # object share in each of SIDE_PX x SIDE_PX cells, 0 to 255, base64

    @property
    def pixels(self) -> Pixels:
        """Object shares, SIDE_PX x SIDE_PX, uint8."""
        return _unpacked(self.small)


def image_thumbnail(image: Pixels, digest: str | None = None) -> ImageThumbnail:
    """The thumbnail of an image (HW or HW3, uint8 or uint16).

    Args:
        image: its pixels.
        digest: hash of these pixels, if already known.
    """
    small = _shrunk(_in_8_bits(image))
    grey = small if small.ndim == 2 else np.asarray(cv2.cvtColor(small, cv2.COLOR_RGB2GRAY))
    colour = 0.0 if small.ndim == 2 else float(np.ptp(small, axis=2).mean())
    return ImageThumbnail(
        digest=digest or pixel_hash(image), small=_packed(grey),
        brightness=float(np.median(grey)), colour=round(colour, 2),
    )  # fmt: skip


def mask_thumbnail(label: Pixels) -> MaskThumbnail:
    """The thumbnail of a label mask (HW, uint8); all classes but background count as object."""
    is_object = np.asarray(cv2.inRange(label, 1, IGNORE - 1))
    ignored = cv2.countNonZero(cv2.inRange(label, IGNORE, IGNORE))
    counted = label.size - ignored
    share = cv2.countNonZero(is_object) / counted if counted else 0.0
    return MaskThumbnail(object_share=share, small=_packed(_shrunk(is_object)))


def stacked(smalls: Sequence[Pixels]) -> NDArray[np.float32]:
    """Thumbnails as one array, N x SIDE_PX x SIDE_PX."""
    if not smalls:
        return np.zeros((0, SIDE_PX, SIDE_PX), np.float32)
    return np.stack(smalls).astype(np.float32)


def _in_8_bits(image: Pixels) -> Pixels:
    """Scale 16 bits by the image's own range: microscopes often use a small part of it."""
    if image.dtype == np.uint8:
        return image
    low, high = int(image.min()), int(image.max())
    return ((image.astype(np.float32) - low) * (255 / max(1, high - low))).astype(np.uint8)


def _shrunk(pixels: Pixels) -> Pixels:
    """The area mean, regardless of the aspect ratio; small images are enlarged."""
    return np.asarray(cv2.resize(pixels, (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA))


def _packed(pixels: Pixels) -> str:
    return base64.b64encode(np.ascontiguousarray(pixels).tobytes()).decode()


def _unpacked(text: str) -> Pixels:
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(SIDE_PX, SIDE_PX)
