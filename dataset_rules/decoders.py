"""Decoders that are faster than Pillow's and give the same pixels.

They take the common files only. Whatever they refuse is left to Pillow, so that one library
decides what counts as damaged.
"""

from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import simplejpeg
from numpy.typing import NDArray

_CHANNELS = {"L": 1, "LA": 1, "RGB": 3, "RGBA": 3}  # that are returned, by Pillow's mode
_NEEDED = {b"IHDR", b"IDAT", b"IEND"}  # chunks; files with a palette are Pillow's


def decode_common(
    path: Path, kind: str, mode: str, *, half_px: tuple[int, int] | None = None
) -> NDArray[np.uint8] | None:
    """Pixels (HW or HW3, without alpha) of a file of 8 bits, None where Pillow is to decode it.

    Args:
        path: the file.
        kind: PNG or JPEG; of others nothing is decoded.
        mode: as Pillow names it; only what the file stores in this very mode is decoded.
        half_px: half the height and width, rounded up, to get a JPEG at that size.
    """
    if mode not in _CHANNELS or kind not in {"PNG", "JPEG"}:
        return None
    data = path.read_bytes()
    try:
        pixels: NDArray[Any] = _jpeg(data, mode, half_px) if kind == "JPEG" else _png(data)
    except (ValueError, RuntimeError):  # what the two raise on damaged data
        return None
    channels = 1 if pixels.ndim == 2 else pixels.shape[2]
    if pixels.dtype != np.uint8 or channels != len(mode):
        return None
    colors = _CHANNELS[mode]
    if colors == channels:
        return pixels
    return np.ascontiguousarray(pixels[..., :colors] if colors > 1 else pixels[..., 0])


def _jpeg(data: bytes, mode: str, half_px: tuple[int, int] | None) -> NDArray[Any]:
    height, width = half_px or (0, 0)
    pixels = np.asarray(
        simplejpeg.decode_jpeg(
            data, "GRAY" if mode == "L" else "RGB", min_height=height, min_width=width
        )
    )
    return pixels[..., 0] if mode == "L" else pixels


def _png(data: bytes) -> NDArray[Any]:
    """Pixels as they are stored: without its other chunks libpng corrects and warns of nothing."""
    parts, at, kind = [data[:8]], 8, b""
    while kind != b"IEND" and at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        if kind in _NEEDED:
            parts.append(data[at:end])
        at = end
    return np.asarray(imagecodecs.png_decode(b"".join(parts)))
