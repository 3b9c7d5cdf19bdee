"""Detecting truncated image files from their last bytes."""

from typing import IO

from PIL import Image

_TAIL_BYTES = 64  # some writers pad their files


def is_cut_short(image: Image.Image) -> bool:
    """True if the file ends too early for its format, as after an interrupted transfer."""
    if image.format == "PNG":
        return b"IEND" not in bytes_of(image, -_TAIL_BYTES, _TAIL_BYTES)
    if image.format == "JPEG":
        return b"\xff\xd9" not in bytes_of(image, -_TAIL_BYTES, _TAIL_BYTES)
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        starts, sizes = (tags.get(273, ()), tags.get(279, ())) if 273 in tags else (
            tags.get(324, ()), tags.get(325, ()))  # fmt: skip
        return max(map(sum, zip(starts, sizes, strict=False)), default=0) > _file_length(image)
    return False  # for BMP the decoder itself checks the number of pixels


def bytes_of(image: Image.Image, start: int, count: int) -> bytes:
    """Bytes of the opened file, from its end if `start` is negative; keeps the file position."""
    file: IO[bytes] = getattr(image, "fp")  # noqa: B009  Pillow does not declare it
    position = file.tell()
    file.seek(max(0, _file_length(image) + start) if start < 0 else start)
    data = file.read(count)
    file.seek(position)
    return data


def _file_length(image: Image.Image) -> int:
    file: IO[bytes] = getattr(image, "fp")  # noqa: B009  Pillow does not declare it
    position = file.tell()
    length = file.seek(0, 2)
    file.seek(position)
    return length
