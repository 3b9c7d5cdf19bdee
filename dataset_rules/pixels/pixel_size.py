"""How many micrometres a pixel spans, where the file says so."""

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

Sides = list[float | None]  # width and height of a pixel in micrometres, or one for both

MAX_UM = 50.0  # 72 dpi and its like speak of paper, not of tissue
MAX_UM_OF_PNG = 10.0  # scanners for paper write resolutions into PNG, too
MOST_APART = 0.01  # of the longer side; a pixel that is less square has no one size

_RESOLUTIONS, _UNIT, _DESCRIPTION = (282, 283), 296, 270  # TIFF's tags
_UNITS_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3,
             "cm": 1e4}  # fmt: skip
_TAG_UNITS_UM = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre

_OME_SIZE = re.compile(r'PhysicalSize([XY])="([0-9.eE+-]+)"')
_OME_UNIT = re.compile(r'PhysicalSize([XY])Unit="([^"]+)"')
_IMAGEJ_UNIT = re.compile(r"^unit=(\S+)", re.MULTILINE)
_SCANNER = re.compile(r"\bMPP\s*=\s*([0-9.]+)")


def pixel_size_um_of(image: Image.Image) -> float | None:
    """Micrometres per pixel of an opened image; None where it tells none, or pixels are not square.

    A TIFF says it in OME's XML, in ImageJ's or a slide scanner's description, or in its tags; a
    PNG as pixels a metre.
    """
    if image.format == "TIFF":
        sides, most = _of_tiff(getattr(image, "tag_v2", {})), MAX_UM
    elif image.format == "PNG":
        sides, most = _of_png(image.info.get("dpi")), MAX_UM_OF_PNG
    else:
        return None
    known = [side for side in sides if side is not None and 0 < side < most]
    is_square = 0 < len(known) == len(sides) and max(known) - min(known) <= MOST_APART * max(known)
    return known[0] if is_square else None


def _of_tiff(tags: Any) -> Sides:
    description = str(tags.get(_DESCRIPTION, ""))
    for read in (_of_ome, _of_scanner):
        sides = read(description)
        if sides:
            return sides
    unit = _IMAGEJ_UNIT.search(description)
    unit_um = _UNITS_UM.get(unit[1].lower()) if unit else _TAG_UNITS_UM.get(int(tags.get(_UNIT, 2)))
    # Some writers give the resolution of one side alone: the other is the same.
    return _per([tags[tag] for tag in _RESOLUTIONS if tag in tags], unit_um)


def _of_ome(description: str) -> Sides:
    units = dict(_OME_UNIT.findall(description))
    sizes = {side: _number(value) for side, value in _OME_SIZE.findall(description)}
    return [
        value * _UNITS_UM.get(units.get(side, "um"), 0.0) if value is not None else None
        for side, value in sizes.items()
    ]


def _of_scanner(description: str) -> Sides:
    found = _SCANNER.search(description)
    return [_number(found[1])] if found else []


def _of_png(dpi: Any) -> Sides:
    return _per(dpi if isinstance(dpi, tuple) else [], _TAG_UNITS_UM[2])


def _per(resolutions: Sequence[Any], unit_um: float | None) -> Sides:
    """Sides of a pixel by pixels in a unit of length."""
    numbers = [_number(value) for value in resolutions]
    return [unit_um / number if unit_um and number else None for number in numbers]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
