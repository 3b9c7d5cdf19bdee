"""How many micrometres a pixel spans, where the file says so."""

import re
from typing import Any

from PIL import Image

MAX_UM = 50.0  # 72 dpi and its like speak of paper, not of tissue
MAX_UM_OF_PNG = 10.0  # scanners for paper write resolutions into PNG, too

_RESOLUTION, _UNIT, _DESCRIPTION = 282, 296, 270  # TIFF's tags
_UNITS_UM = {"um": 1.0, "µm": 1.0, "μm": 1.0, "micron": 1.0, "microns": 1.0, "nm": 1e-3, "mm": 1e3,
             "cm": 1e4}  # fmt: skip
_TAG_UNITS_UM = {2: 25_400.0, 3: 10_000.0}  # inch, centimetre

_OME_SIZE = re.compile(r'PhysicalSizeX="([0-9.eE+-]+)"')
_OME_UNIT = re.compile(r'PhysicalSizeXUnit="([^"]+)"')
_IMAGEJ_UNIT = re.compile(r"^unit=(\S+)", re.MULTILINE)
_SCANNER = re.compile(r"\bMPP\s*=\s*([0-9.]+)")


def pixel_size_um_of(image: Image.Image) -> float | None:
    """Micrometres per pixel of an opened image.

    A TIFF says it in OME's XML, in ImageJ's or a slide scanner's description, or in its tags; a
    PNG as pixels a metre.
    """
    if image.format == "TIFF":
        size, most = _of_tiff(getattr(image, "tag_v2", {})), MAX_UM
    elif image.format == "PNG":
        size, most = _of_png(image.info.get("dpi")), MAX_UM_OF_PNG
    else:
        return None
    return size if size is not None and 0 < size < most else None


def _of_tiff(tags: Any) -> float | None:
    description = str(tags.get(_DESCRIPTION, ""))
    for read in (_of_ome, _of_scanner):
        size = read(description)
        if size is not None:
            return size
    resolution = _number(tags.get(_RESOLUTION))
    if not resolution:
        return None
    unit = _IMAGEJ_UNIT.search(description)
    unit_um = _UNITS_UM.get(unit[1].lower()) if unit else _TAG_UNITS_UM.get(int(tags.get(_UNIT, 2)))
    return unit_um / resolution if unit_um else None


def _of_ome(description: str) -> float | None:
    size, unit = _OME_SIZE.search(description), _OME_UNIT.search(description)
    unit_um = _UNITS_UM.get(unit[1]) if unit else 1.0  # OME's own default
    value = _number(size[1]) if size else None
    return value * unit_um if value and unit_um else None


def _of_scanner(description: str) -> float | None:
    found = _SCANNER.search(description)
    return _number(found[1]) if found else None


def _of_png(dpi: Any) -> float | None:
    resolution = _number(dpi[0]) if isinstance(dpi, tuple) else None
    return _TAG_UNITS_UM[2] / resolution if resolution else None


def _number(value: Any) -> float | None:
    try:
        return float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
