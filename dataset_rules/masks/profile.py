"""Profile of a file: its header and the distribution of its pixel values."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from math import log10
from pathlib import Path

import numpy as np

from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import Header, Pixels, read_header, read_image, read_mask
from dataset_rules.pixels.values import crop_panel, gray_if_equal, pack_colors
from dataset_rules.rules.fields import Panel
from dataset_rules.sources.files import Files

RINGING = 63  # JPEG artefacts around drawn areas reach grey values up to this
MAX_BETWEEN = 0.35  # pixels between the two tones of a JPEG mask, as a share of the rarer tone
JPEG_MASK_LIKENESS = 0.7  # of a two-tone JPEG
GRID = 64  # points per side that `Look.grid` samples
MIN_COMMON = 0.9  # share of their area that masks of the same content have in common
PHOTOGRAPH = 0.4  # upper bound of a photograph's likeness to a mask, even with a plain background
MAX_VALUES = 4_096  # distinct values that a profile keeps, the most frequent ones


@dataclass(frozen=True)
class FileProfile:
    """Header and pixel statistics of one file."""

    header: Header
    dtype: str
    values: dict[int, int]  # value -> pixels; colours are packed as 0xRRGGBB
    value_count: int
    is_color: bool  # the channels differ in at least one pixel
    flatness: float  # share of pixels equal to their right neighbour
    grid: bytes = field(default=b"", repr=False)  # GRID x GRID samples, 1 where the value is not 0

    palette: Mapping[int, int] = field(default_factory=dict)  # index -> colour as 0xRRGGBB

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.header.height_px, self.header.width_px

    @property
    def likeness(self) -> float:
        """Likeness to a mask: near 1 for flat areas and few values, near 0 for a photograph."""
        flat = self.flatness - 0.1 * log10(self.value_count)
        return max(flat, JPEG_MASK_LIKENESS) if self.is_jpeg_mask else flat

    @property
    def is_jpeg_mask(self) -> bool:
        """A JPEG with two tones and little in between: a mask with ringing at its edges."""
        if self.header.format != "JPEG" or self.is_color:
            return False
        low = sum(count for value, count in self.values.items() if value <= RINGING)
        high = sum(count for value, count in self.values.items() if value >= 255 - RINGING)
        between = sum(self.values.values()) - low - high
        return between <= MAX_BETWEEN * min(low, high)


@dataclass(frozen=True)
class Damage:
    """Why a file could not be read."""

    what: str


Profiler = Callable[[str], FileProfile | Damage]


def cached_profiler(
    source: Files, *, as_colors: bool = False, panel: Panel | None = None
) -> Profiler:
    """A function from relative path to profile; each file is decoded once.

    Args:
        source: the files of the source.
        as_colors: use the colours of a palette, not its indices.
        panel: profile only the mask panel of composites.
    """

    @cache
    def profile(path: str) -> FileProfile | Damage:
        try:
            return profile_file(source / path, as_colors=as_colors, panel=panel)
        except RulesError as error:
            return Damage(f"{error.what}" + (f": {error.found}" if error.found else ""))

    return profile


def profile_file(path: Path, *, as_colors: bool = False, panel: Panel | None = None) -> FileProfile:
    """Decode and profile one file; raises `RulesError` if it is damaged."""
    header = read_header(path)
    pixels = read_image(path) if as_colors else read_mask(path)
    palette = _palette(pixels, read_image(path)) if header.mode == "P" and not as_colors else {}
    values = gray_if_equal(pixels if panel is None else crop_panel(pixels, panel, panel.mask))
    packed = pack_colors(values)
    found, counts = _counted(packed)
    keep = np.argsort(-counts, kind="stable")[:MAX_VALUES]
    return FileProfile(
        header=header,
        dtype=values.dtype.name,
        values={int(found[i]): int(counts[i]) for i in sorted(keep)},
        value_count=len(found),
        is_color=values.ndim == 3,
        flatness=_flatness(packed),
        grid=_grid_of(packed, above=RINGING if header.format == "JPEG" and values.ndim == 2 else 0),
        palette=palette,
    )


def _palette(indices: Pixels, colors: Pixels) -> dict[int, int]:
    """The colour of each palette index that occurs."""
    found, places = np.unique(indices, return_index=True)
    packed = pack_colors(colors.reshape(1, -1, 3))[0, places]
    return {int(index): int(color) for index, color in zip(found, packed, strict=True)}


def palettes_differ(profiles: Iterable[FileProfile]) -> bool:
    """True if an index has different colours in different files: then only colours count."""
    color_of: dict[int, int] = {}
    return any(
        color_of.setdefault(index, color) != color
        for profile in profiles
        for index, color in profile.palette.items()
    )


def likeness_of(pixels: Pixels) -> float:
    """Like `Look.likeness`, for an array."""
    packed = pack_colors(gray_if_equal(pixels))
    return _flatness(packed) - 0.1 * log10(len(_counted(packed)[0]))


def _flatness(packed: Pixels) -> float:
    return float(np.mean(packed[:, 1:] == packed[:, :-1])) if packed.shape[1] > 1 else 1.0


def _grid_of(packed: Pixels, *, above: int) -> bytes:
    rows, columns = (np.arange(GRID) * side // GRID for side in packed.shape)
    places: Pixels = packed[np.ix_(rows, columns)] > above
    return places.astype(np.uint8).tobytes()


def grid_array(grid: bytes) -> Pixels:
    """`Look.grid` as an array: GRID x GRID, uint8."""
    return np.frombuffer(grid, np.uint8).reshape(GRID, GRID)


def overlap_of(a: FileProfile, b: FileProfile) -> float:
    """Share of the smaller nonzero area that is covered by the larger one."""
    areas = [np.frombuffer(profile.grid, np.uint8) for profile in (a, b)]
    smaller = min(int(area.sum()) for area in areas)
    return float((areas[0] & areas[1]).sum()) / smaller if smaller else 0.0


def cover_same_area(profiles: Sequence[FileProfile]) -> bool:
    """True if the zero and the nonzero areas are nearly the same in all masks."""
    areas = np.stack([np.frombuffer(profile.grid, np.uint8) for profile in profiles])
    common = [np.count_nonzero(areas.min(0)), np.count_nonzero(areas.max(0) == 0)]
    anywhere = [np.count_nonzero(areas.max(0)), np.count_nonzero(areas.min(0) == 0)]
    return all(share > MIN_COMMON * of > 0 for share, of in zip(common, anywhere, strict=True))


def _counted(packed: Pixels) -> tuple[Pixels, Pixels]:
    if packed.dtype in (np.uint8, np.uint16):
        counts = np.bincount(packed.ravel())
        found = np.flatnonzero(counts)
        return found, counts[found]
    found, counts = np.unique(packed, return_counts=True)
    return found, counts


def compactness_of(path: Path) -> float:
    """Median over the nonzero values of a mask of the share of its bounding box a value fills.

    Near 1 if each value is a single blob, near 0 if it is scattered over the image.
    """
    packed = pack_colors(gray_if_equal(read_mask(path)))
    order = np.argsort(packed, axis=None, kind="stable")
    rows, columns = np.divmod(order, packed.shape[1])
    ordered = packed.ravel()[order]
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    height = np.maximum.reduceat(rows, starts) - np.minimum.reduceat(rows, starts) + 1
    width = np.maximum.reduceat(columns, starts) - np.minimum.reduceat(columns, starts) + 1
    pixels = np.diff(np.r_[starts, packed.size])
    is_object = ordered[starts] != 0
    return float(np.median((pixels / (height * width))[is_object])) if is_object.any() else 0.0
