"""Whole-slide files through openslide, if installed: only the full-resolution level is read.

The label photograph and scanner metadata (names, dates, device numbers) are not read, so that
no dataset can contain them.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_rules.ground.errors import RulesError

SLIDE_SUFFIXES = frozenset({".svs", ".ndpi"})
SLIDE = "SLIDE"  # `Header.format` of slides
_BAND_PX = 1024  # rows decoded at once
_WHITE = 255  # for areas that were not scanned


def reads_slides() -> bool:
    """True if openslide is installed."""
    return find_spec("openslide") is not None


def is_slide(path: Path) -> bool:
    """True for file names of whole-slide images."""
    return path.suffix.lower() in SLIDE_SUFFIXES


def slide_facts(path: Path) -> tuple[int, int, float | None]:
    """Height and width in pixels at full resolution, and micrometres per pixel."""
    with _opened(path) as slide:
        width, height = slide.dimensions
        stated = slide.properties.get("openslide.mpp-x")
    try:
        size_um = float(stated) if stated else None
    except ValueError:
        size_um = None
    return height, width, size_um if size_um and size_um > 0 else None


def read_slide(path: Path) -> NDArray[np.uint8]:
    """The full-resolution level, HW3 in RGB."""
    with _opened(path) as slide:
        width, height = slide.dimensions
        pixels = np.empty((height, width, 3), np.uint8)
        for top in range(0, height, _BAND_PX):
            rows = min(_BAND_PX, height - top)
            band = np.asarray(slide.read_region((0, top), 0, (width, rows)))
            pixels[top : top + rows] = np.where(band[..., 3:] > 0, band[..., :3], _WHITE)
    return pixels


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not reads_slides():
        raise RulesError(
            "whole-slide files need openslide, which is not installed",
            where=str(path), remedy="pip install 'unetops[slides]'",
        )  # fmt: skip
    import openslide  # optional dependency; importing its library takes 30 ms

    try:
        with openslide.OpenSlide(path) as slide:
            yield slide
    except FileNotFoundError as error:
        raise RulesError("no such file", where=str(path)) from error
    except (openslide.OpenSlideError, OSError) as error:
        raise RulesError(
            "the slide is damaged or not supported by openslide", where=str(path),
            found=str(error)[:200],
        ) from error  # fmt: skip
