"""A look at a file: its header, and how its pixels are spread over values."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from math import log10
from pathlib import Path

import numpy as np

from dataset_rules.errors import RulesError
from dataset_rules.files import Files
from dataset_rules.images import Header, Pixels, read_header, read_image, read_mask

MAX_VALUES = 4_096  # the rarest beyond it are counted in `pixels` only


@dataclass(frozen=True)
class Look:
    """What was seen in one file."""

    header: Header
    dtype: str
    values: dict[int, int]  # value -> pixels; colours are packed as 0xRRGGBB
    value_count: int
    is_color: bool  # the channels differ somewhere
    flatness: float  # share of pixels that equal their right neighbour

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.header.height_px, self.header.width_px

    @property
    def likeness(self) -> float:
        """Near 1 for the flat areas and few values of a mask, near 0 for a photograph."""
        return self.flatness - 0.1 * log10(self.value_count)


@dataclass(frozen=True)
class Damage:
    """Why a file could not be looked at."""

    what: str


Looker = Callable[[str], Look | Damage]


def looker(source: Files, *, as_colors: bool = False) -> Looker:
    """A function from relative path to what is seen there; each file is decoded once.

    Args:
        source: the files of the source.
        as_colors: see the colours of a palette, not its indices.
    """

    @cache
    def look(path: str) -> Look | Damage:
        try:
            return look_at(source / path, as_colors=as_colors)
        except RulesError as error:
            return Damage(f"{error.what}" + (f": {error.found}" if error.found else ""))

    return look


def look_at(path: Path, *, as_colors: bool = False) -> Look:
    """Decode one file; raises `RulesError` where it is damaged."""
    header = read_header(path)
    values = gray_if_equal(read_image(path) if as_colors else read_mask(path))
    packed = pack(values)
    found, counts = _counted(packed)
    keep = np.argsort(-counts, kind="stable")[:MAX_VALUES]
    return Look(
        header=header,
        dtype=values.dtype.name,
        values={int(found[i]): int(counts[i]) for i in sorted(keep)},
        value_count=len(found),
        is_color=values.ndim == 3,
        flatness=float(np.mean(packed[:, 1:] == packed[:, :-1])) if packed.shape[1] > 1 else 1.0,
    )


def gray_if_equal(pixels: Pixels) -> Pixels:
    """HW of an image whose three channels are equal, else the image as it is."""
    if pixels.ndim == 2:
        return pixels
    first = pixels[..., 0]
    equal = np.array_equal(first, pixels[..., 1]) and np.array_equal(first, pixels[..., 2])
    return first if equal else pixels


def pack(pixels: Pixels) -> Pixels:
    """One integer a pixel: HW as it is, HW3 (uint8) as 0xRRGGBB."""
    if pixels.ndim == 2:
        return pixels
    red, green, blue = (pixels[..., channel].astype(np.uint64) for channel in range(3))
    bits = 16 if pixels.dtype == np.uint16 else 8
    return (red << (2 * bits)) | (green << bits) | blue


def unpack(value: int) -> tuple[int, int, int]:
    """The colour in a packed value."""
    return value >> 16, value >> 8 & 255, value & 255


def _counted(packed: Pixels) -> tuple[Pixels, Pixels]:
    if packed.dtype in (np.uint8, np.uint16):
        counts = np.bincount(packed.ravel())
        found = np.flatnonzero(counts)
        return found, counts[found]
    found, counts = np.unique(packed, return_counts=True)
    return found, counts


def compactness_of(path: Path) -> float:
    """Share of its bounding box that a value but 0 fills, as a median over the values of a mask.

    Near 1 where each value is one blob, near 0 where it is scattered over the image.
    """
    packed = pack(gray_if_equal(read_mask(path)))
    order = np.argsort(packed, axis=None, kind="stable")
    rows, columns = np.divmod(order, packed.shape[1])
    ordered = packed.ravel()[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    height = np.maximum.reduceat(rows, starts) - np.minimum.reduceat(rows, starts) + 1
    width = np.maximum.reduceat(columns, starts) - np.minimum.reduceat(columns, starts) + 1
    pixels = np.diff(np.r_[starts, packed.size])
    is_object = ordered[starts] != 0
    return float(np.median((pixels / (height * width))[is_object])) if is_object.any() else 0.0
