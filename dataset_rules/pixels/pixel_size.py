"""Pixel size in micrometres, from the file's metadata."""

import re
from typing import Any

from PIL import Image

MAX_UM = 50.0  # larger values such as 72 dpi are print resolutions
MAX_UM_OF_PNG = 10.0  # document scanners write resolutions into PNG, too

_RESOLUTION, _UNIT, _DESCRIPTION = 282, 296, 270  # TIFF tags
_UNITS_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3,
             "cm": 1e4}  # fmt: skip
_TAG_UNITS_UM = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre

_OME_SIZE = re.compile(r'PhysicalSizeX="([0-9.eE+-]+)"')
_OME_UNIT = re.compile(r'PhysicalSizeXUnit="([^"]+)"')
_IMAGEJ_UNIT = re.compile(r"^unit=(\S+)", re.MULTILINE)
_SCANNER = re.compile(r"\bMPP\s*=\s*([0-9.]+)")


def pixel_size_um_of(image: Image.Image) -> float | None:
    """Micrometres per pixel of an opened image.

    TIFF stores it in OME-XML, in the description of ImageJ or a slide scanner, or in resolution
    tags. PNG stores pixels per metre.
    """
    if image.format == "TIFF":
        size, maximum = _from_tiff(getattr(image, "tag_v2", {})), MAX_UM
    elif image.format == "PNG":
        size, maximum = _from_png(image.info.get("dpi")), MAX_UM_OF_PNG
    else:
        return None
    return size if size is not None and 0 < size < maximum else None


def _from_tiff(tags: Any) -> float | None:
    description = str(tags.get(_DESCRIPTION, ""))
    for read in (_from_ome, _from_scanner):
        size = read(description)
        if size is not None:
            return size
    resolution = _number(tags.get(_RESOLUTION))
    if not resolution:
        return None
    unit = _IMAGEJ_UNIT.search(description)
    unit_um = _UNITS_UM.get(unit[1].lower()) if unit else _TAG_UNITS_UM.get(int(tags.get(_UNIT, 2)))
    return unit_um / resolution if unit_um else None


def _from_ome(description: str) -> float | None:
    size, unit = _OME_SIZE.search(description), _OME_UNIT.search(description)
    unit_um = _UNITS_UM.get(unit[1]) if unit else 1.0  # the OME default
    value = _number(size[1]) if size else None
    return value * unit_um if value and unit_um else None


def _from_scanner(description: str) -> float | None:
    match = _SCANNER.search(description)
    return _number(match[1]) if match else None


def _from_png(dpi: Any) -> float | None:
    resolution = _number(dpi[0]) if isinstance(dpi, tuple) else None
    return _TAG_UNITS_UM[2] / resolution if resolution else None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
