"""Reading and encoding image files; no other module opens them."""

import hashlib
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
from numpy.typing import DTypeLike, NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.decoders import decode_fast
from dataset_rules.pixels.pixel_size import pixel_size_um_of
from dataset_rules.pixels.png import encode_png
from dataset_rules.pixels.slides import SLIDE, is_slide, read_slide, slide_facts
from dataset_rules.pixels.text_mask import is_text_mask, read_grid
from dataset_rules.pixels.truncation import bytes_of, is_cut_short

Pixels = NDArray[Any]  # HW or HWC, uint8 or uint16; colours in RGB order

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff"})
MAX_PIXELS = 1 << 30  # 32768 x 32768: larger files are rejected by their header, undecoded
MAX_RATIO = 2_000  # decoded bytes per stored byte: deflate reaches 1,032, LZW 1,365
UNCHECKED_BYTES = 64 << 20  # decoded size up to which the ratio is not checked

_ORIENTATION = 0x0112  # EXIF tag
_ON_ITS_SIDE = 5  # orientations from 5 on swap height and width

# Our own errors report damaged files; silence OpenCV's messages.
cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)

# MAX_PIXELS replaces Pillow's limit; it is checked on the header before decoding.
Image.MAX_IMAGE_PIXELS = None


@dataclass(frozen=True)
class Header:
    """Image metadata that is available without decoding pixels."""

    format: str  # Pillow's name: PNG, JPEG, BMP, TIFF
    mode: str  # Pillow's mode: 1, L, LA, P, RGB, RGBA, I;16, ...
    height_px: int
    width_px: int
    bits: int  # per channel
    pages: int
    pixel_size_um: float | None
    orientation: int = 1  # EXIF orientation; 1 is upright
    has_alpha: bool = False
    is_cut_short: bool = False  # the last bytes look truncated; not proof of damage

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width."""
        return self.height_px, self.width_px


def read_header(path: Path, *, max_pixels: int = MAX_PIXELS) -> Header:
    """Read the header; raises `RulesError` for files that are no image or have too many pixels."""
    if is_text_mask(path):
        return _header_of_text(read_grid(path))
    if is_slide(path):
        return _header_of_slide(path, max_pixels)
    with _opened(path) as image:
        try:
            header = _header(path, image)
        except Exception as error:  # Pillow parses tags and frames lazily
            raise _damaged(path, error) from error
    _check_pixel_count(path, header, max_pixels)
    _check_compression_ratio(path, header)
    return header


def _header_of_slide(path: Path, max_pixels: int) -> Header:
    height, width, size_um = slide_facts(path)
    header = Header(SLIDE, "RGB", height, width, 8, pages=1, pixel_size_um=size_um)
    _check_pixel_count(path, header, max_pixels)
    return header


def _check_pixel_count(path: Path, header: Header, max_pixels: int) -> None:
    if header.height_px * header.width_px > max_pixels:
        raise RulesError(
            "the image is too large", where=str(path), expected=f"at most {max_pixels} pixels",
            found=f"{header.width_px} x {header.height_px}",
        )  # fmt: skip


def _check_compression_ratio(path: Path, header: Header) -> None:
    """Reject small files that would make a decoder allocate gigabytes."""
    channels = {"RGB": 3, "RGBA": 4, "CMYK": 4, "LA": 2}.get(header.mode, 1)
    decoded = header.height_px * header.width_px * channels * header.bits // 8
    stored = path.stat().st_size
    if decoded > UNCHECKED_BYTES + MAX_RATIO * stored:
        raise RulesError(
            "the header states more pixels than the file can hold", where=str(path),
            expected=f"at most {MAX_RATIO} decoded bytes per stored byte",
            found=f"{header.width_px} x {header.height_px} in {stored} bytes",
        )  # fmt: skip


def _header_of_text(values: Pixels) -> Header:
    height, width = values.shape
    return Header("TEXT", "L", height, width, 8 * values.itemsize, pages=1, pixel_size_um=None)


def _header(path: Path, image: Image.Image) -> Header:
    orientation = _orientation(image)
    is_swapped = image.format != "TIFF" and orientation >= _ON_ITS_SIDE  # Pillow swaps for TIFF
    height, width = (image.width, image.height) if is_swapped else (image.height, image.width)
    return Header(
        format=str(image.format),
        mode=image.mode,
        height_px=height,
        width_px=width,
        bits=_bits(image),
        pages=int(getattr(image, "n_frames", 1)),
        pixel_size_um=pixel_size_um_of(image),
        orientation=orientation,
        has_alpha=image.mode in {"RGBA", "LA", "PA"} or "transparency" in image.info,
        is_cut_short=is_cut_short(image),
    )


def _orientation(image: Image.Image) -> int:
    """EXIF orientation, 1 (upright) if absent or invalid."""
    if image.format == "PNG" and "exif" not in image.info:
        return 1  # otherwise Pillow would decode the pixels to search for EXIF after them
    stated = image.getexif().get(_ORIENTATION, 1)
    return int(stated) if stated in range(1, 9) else 1


def read_image(
    path: Path, *, shrinks_to_px: tuple[int, int] | None = None, header: Header | None = None
) -> Pixels:
    """Pixels of an image: HW (grey) or HW3 (RGB), uint8 or uint16, upright, without alpha.

    Args:
        path: the file.
        shrinks_to_px: height and width to which the caller will downscale. A JPEG at least three
            times as large is decoded at half size, a quarter faster.
        header: of the file, if already read.
    """
    header = _check_single_page(path, header or read_header(path))
    height, width = shrinks_to_px or (MAX_PIXELS, MAX_PIXELS)
    is_halved = header.height_px >= 3 * height and header.width_px >= 3 * width
    return _read(path, header, is_halved=is_halved and header.orientation == 1)


def _read(path: Path, header: Header, *, is_halved: bool = False) -> Pixels:
    if header.format == SLIDE:
        return read_slide(path)
    if header.bits > 8 or header.mode.startswith("I;16") or header.mode in {"I", "F"}:
        return _check_layout(path, _upright(_decode_deep(path, header), header.orientation))
    if header.bits == 8 and not header.is_cut_short:
        half_px = (-(-header.height_px // 2), -(-header.width_px // 2)) if is_halved else None
        decoded = decode_fast(path, header.format, header.mode, half_px=half_px)
        if decoded is not None:
            return _upright(decoded, header.orientation)
    with _opened(path) as image:
        upright = _loaded(path, image)
        if upright.mode in {"1", "L"}:
            return np.asarray(upright.convert("L"))
        if upright.mode == "LA":
            return np.asarray(upright.getchannel("L"))
        return np.asarray(upright.convert("RGB"))


def read_mask(path: Path) -> Pixels:
    """Mask values as stored: HW (grey values or palette indices) or HW3 (RGB)."""
    if is_text_mask(path):
        return read_grid(path)
    header = _check_single_page(path, read_header(path))
    if header.mode != "P":
        return _read(path, header)
    with _opened(path) as image:
        _load(path, image)
        return np.asarray(image)  # only Pillow keeps palette indices


def is_opaque(path: Path) -> bool:
    """True unless the image has transparent or semi-transparent pixels."""
    with _opened(path) as image:
        _load(path, image)
        alpha = image.convert("RGBA").getchannel("A").getextrema()
    return alpha[0] == 255


def encode(pixels: Pixels, suffix: str, *, quality: int = 95) -> bytes:
    """Encode an image in the format given by `suffix` (".png", ".jpg", ...)."""
    if suffix == ".png":
        return encode_png(pixels)
    stored = cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR) if pixels.ndim == 3 else pixels
    options = [cv2.IMWRITE_JPEG_QUALITY, quality] if suffix in {".jpg", ".jpeg"} else []
    done, data = cv2.imencode(suffix, np.ascontiguousarray(stored), options)
    if not done:
        raise ValueError(f"cannot encode {pixels.dtype} {pixels.shape} as {suffix}")
    encoded: bytes = data.tobytes()
    return encoded


def pixel_hash(pixels: Pixels) -> str:
    """SHA-256 of decoded pixels with shape and dtype, hexadecimal; independent of the encoder."""
    digest = PixelDigest(pixels.shape, pixels.dtype)
    digest.update(pixels)
    return digest.hexdigest()


class PixelDigest:
    """Hash of pixels that arrive in blocks of rows; shape and dtype are those of the whole."""

    def __init__(self, shape: tuple[int, ...], kind: DTypeLike) -> None:
        head = f"{'x'.join(map(str, shape))} {np.dtype(kind).name} "
        self._digest = hashlib.sha256(head.encode())

    def update(self, rows: Pixels) -> None:
        """Add the next rows."""
        little_endian = rows.astype(rows.dtype.newbyteorder("<"), copy=False)
        self._digest.update(np.ascontiguousarray(little_endian).data)

    def hexdigest(self) -> str:
        """SHA-256, hexadecimal."""
        return self._digest.hexdigest()


def _opened(path: Path) -> Image.Image:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns about unusual metadata we do not use
            return Image.open(path)
    except FileNotFoundError as error:
        raise RulesError("no such file", where=str(path)) from error
    except (UnidentifiedImageError, OSError, ValueError, SyntaxError, EOFError) as error:
        raise RulesError(
            "the file is not an image", where=str(path), expected="PNG, JPEG, BMP or TIFF",
            found=_first_bytes(path),
        ) from error  # fmt: skip


def _load(path: Path, image: Image.Image) -> None:
    try:
        image.load()
    except Exception as error:  # Pillow's decoders raise many exception types
        raise _damaged(path, error) from error


def _loaded(path: Path, image: Image.Image) -> Image.Image:
    _load(path, image)
    try:
        return ImageOps.exif_transpose(image)
    except Exception as error:  # the orientation is in metadata that may be damaged
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RulesError:
    return RulesError("the image is damaged or cut short", where=str(path), found=str(error))


def _decode_deep(path: Path, header: Header) -> Pixels:
    """Pixels that Pillow would reduce to 8 bits."""
    if header.format == "TIFF":
        return _decode_deep_tiff(path)
    with _opened(path) as image:
        _load(path, image)  # Pillow detects damage that OpenCV ignores
    return _decode_by_opencv(path)


def _upright(pixels: Pixels, orientation: int) -> Pixels:
    """Apply the EXIF orientation (flip and rotate), as Pillow does for 8 bits."""
    quarter_turns = {3: 2, 4: 2, 5: 3, 6: 3, 7: 1, 8: 1}.get(orientation, 0)
    flipped = pixels[:, ::-1] if orientation in {2, 4, 5, 7} else pixels
    if orientation in {5, 7}:  # flipped after the rotation
        return np.rot90(pixels, quarter_turns)[:, ::-1]
    return np.rot90(flipped, quarter_turns)


def _decode_deep_tiff(path: Path) -> Pixels:
    try:
        pixels = np.asarray(tifffile.imread(path))
    except Exception as error:  # tifffile passes on exceptions of its many codecs
        if "imagecodecs" in str(error):  # a compression that OpenCV's TIFF library supports
            return _decode_by_opencv(path)
        raise RulesError("the TIFF cannot be decoded", where=str(path), found=str(error)) from error
    if pixels.ndim == 3 and pixels.shape[0] in {3, 4} and pixels.shape[2] not in {3, 4}:
        pixels = np.moveaxis(pixels, 0, 2)  # planar storage
    return pixels[..., :3] if pixels.ndim == 3 and pixels.shape[2] == 4 else pixels


def _decode_by_opencv(path: Path) -> Pixels:
    decoded = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_UNCHANGED)
    if decoded is None:
        raise RulesError("the image is damaged or cut short", where=str(path))
    pixels = np.asarray(decoded)
    if pixels.ndim == 3:
        pixels = np.asarray(cv2.cvtColor(pixels[..., :3], cv2.COLOR_BGR2RGB))
    return pixels


def _check_layout(path: Path, pixels: Pixels) -> Pixels:
    if pixels.dtype == np.bool_:
        pixels = pixels.astype(np.uint8) * 255
    if pixels.dtype not in (np.uint8, np.uint16) or not (
        pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[2] == 3)
    ):
        raise RulesError(
            "the image has an unsupported layout", where=str(path),
            expected="8 or 16 bits, grey or RGB", found=f"{pixels.dtype} {pixels.shape}",
        )  # fmt: skip
    return pixels


def _check_single_page(path: Path, header: Header) -> Header:
    if header.pages > 1:
        raise RulesError(
            "the file is a stack of pages", where=str(path), expected="one page",
            found=f"{header.pages} pages", remedy="split it into single images",
        )  # fmt: skip
    return header


def _bits(image: Image.Image) -> int:
    """Stored bits per channel; Pillow's mode hides 16-bit colour."""
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (1,))
        return max(bits) if isinstance(bits, tuple) else int(bits)
    if image.format == "PNG":
        return bytes_of(image, 24, 1)[0]  # from the IHDR chunk, which always comes first
    return 8


def _first_bytes(path: Path) -> str:
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        return str(error.strerror)
    return f"bytes {head!r}" if head else "an empty file"
