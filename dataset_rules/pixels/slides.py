"""Whole-slide files through openslide, where it is installed: the pixels of the finest level alone.

The photograph of the slide's label and what the scanner notes (names, dates, device numbers) are
not read, so that no dataset can hold them.
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
SLIDE = "SLIDE"  # the format of a slide's header
_BAND_PX = 1024  # rows that are decoded at once
_WHITE = 255  # where the scanner looked at nothing


def reads_slides() -> bool:
    """True where openslide is installed."""
    return find_spec("openslide") is not None


def is_slide(path: Path) -> bool:
    """True for a file whose name is a whole-slide file's."""
    return path.suffix.lower() in SLIDE_SUFFIXES


def slide_facts(path: Path) -> tuple[int, int, float | None]:
    """Height and width in pixels of the finest level, and the micrometres that a pixel spans."""
    with _opened(path) as slide:
        width, height = slide.dimensions
        stated = slide.properties.get("openslide.mpp-x")
    try:
        size_um = float(stated) if stated else None
    except ValueError:
        size_um = None
    return height, width, size_um if size_um and size_um > 0 else None


def read_slide(path: Path) -> NDArray[np.uint8]:
    """The finest level, HW3 in RGB."""
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
            "whole-slide files are read through openslide, which is not installed",
            where=str(path), remedy="pip install 'unetops[slides]'",
        )  # fmt: skip
    import openslide  # an extra, and its library takes 30 ms

    try:
        with openslide.OpenSlide(path) as slide:
            yield slide
    except FileNotFoundError as error:
        raise RulesError("no such file", where=str(path)) from error
    except (openslide.OpenSlideError, OSError) as error:
        raise RulesError(
            "the slide is damaged or of a kind that openslide does not know", where=str(path),
            found=str(error)[:200],
        ) from error  # fmt: skip
