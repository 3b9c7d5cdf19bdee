"""Pixel size in micrometres, from the file's metadata."""

import re
from collections.abc import Sequence
from typing import Any

from PIL import Image

Sides = list[float | None]  # width and height of a pixel in micrometres, or one value for both

MAX_UM = 50.0  # larger values such as 72 dpi are print resolutions
MAX_UM_OF_PNG = 10.0  # document scanners write resolutions into PNG, too
MAX_ANISOTROPY = 0.01  # relative difference of the sides up to which a pixel counts as square

_RESOLUTIONS, _UNIT, _DESCRIPTION = (282, 283), 296, 270  # TIFF tags
_UNITS_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3,
             "cm": 1e4}  # fmt: skip
_TAG_UNITS_UM = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre

_OME_SIZE = re.compile(r'PhysicalSize([XY])="([0-9.eE+-]+)"')
_OME_UNIT = re.compile(r'PhysicalSize([XY])Unit="([^"]+)"')
_IMAGEJ_UNIT = re.compile(r"^unit=(\S+)", re.MULTILINE)
_SCANNER = re.compile(r"\bMPP\s*=\s*([0-9.]+)")


def pixel_size_um_of(image: Image.Image) -> float | None:
    """Micrometres per pixel of an opened image; None if it is not stated or pixels are not square.

    TIFF stores it in OME-XML, in the description of ImageJ or a slide scanner, or in resolution
    tags. PNG stores pixels per metre.
    """
    if image.format == "TIFF":
        sides, maximum = _from_tiff(getattr(image, "tag_v2", {})), MAX_UM
    elif image.format == "PNG":
        sides, maximum = _from_png(image.info.get("dpi")), MAX_UM_OF_PNG
    else:
        return None
    known = [side for side in sides if side is not None and 0 < side < maximum]
    is_square = 0 < len(known) == len(sides) and max(known) - min(known) <= MAX_ANISOTROPY * max(
        known
    )
    return known[0] if is_square else None


def _from_tiff(tags: Any) -> Sides:
    description = str(tags.get(_DESCRIPTION, ""))
    for read in (_from_ome, _from_scanner):
        sides = read(description)
        if sides:
            return sides
    unit = _IMAGEJ_UNIT.search(description)
    unit_um = _UNITS_UM.get(unit[1].lower()) if unit else _TAG_UNITS_UM.get(int(tags.get(_UNIT, 2)))
    # Some writers state the resolution of one side only: the other side is the same.
    return _per([tags[tag] for tag in _RESOLUTIONS if tag in tags], unit_um)


def _from_ome(description: str) -> Sides:
    units = dict(_OME_UNIT.findall(description))
    sizes = {side: _number(value) for side, value in _OME_SIZE.findall(description)}
    return [
        value * _UNITS_UM.get(units.get(side, "um"), 0.0) if value is not None else None
        for side, value in sizes.items()
    ]


def _from_scanner(description: str) -> Sides:
    found = _SCANNER.search(description)
    return [_number(found[1])] if found else []


def _from_png(dpi: Any) -> Sides:
    return _per(dpi if isinstance(dpi, tuple) else [], _TAG_UNITS_UM[2])


def _per(resolutions: Sequence[Any], unit_um: float | None) -> Sides:
    """Sides of a pixel from resolutions in pixels per unit of length."""
    numbers = [_number(value) for value in resolutions]
    return [unit_um / number if unit_um and number else None for number in numbers]


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
