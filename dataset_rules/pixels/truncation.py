"""First and last bytes of an opened image: whether the file ends where its format says."""

from typing import IO

from PIL import Image

_TAIL_BYTES = 64  # some writers pad their files


def is_cut_short(image: Image.Image) -> bool:
    """True where the file ends before its format lets it, as after a broken transfer."""
    if image.format == "PNG":
        return b"IEND" not in bytes_of(image, -_TAIL_BYTES, _TAIL_BYTES)
    if image.format == "JPEG":
        return b"\xff\xd9" not in bytes_of(image, -_TAIL_BYTES, _TAIL_BYTES)
    if image.format == "TIFF":
        tags = getattr(image, "tag_v2", {})
        starts, sizes = (tags.get(273, ()), tags.get(279, ())) if 273 in tags else (
            tags.get(324, ()), tags.get(325, ()))  # fmt: skip
        return max(map(sum, zip(starts, sizes, strict=False)), default=0) > _length_of(image)
    return False  # of BMP the decoder takes the pixels that are there and refuses by their count


def bytes_of(image: Image.Image, start: int, count: int) -> bytes:
    """Bytes of the opened file, from its end where `start` is negative; its position stays."""
    file: IO[bytes] = getattr(image, "fp")  # noqa: B009  Pillow does not declare it
    position = file.tell()
    file.seek(max(0, _length_of(image) + start) if start < 0 else start)
    found = file.read(count)
    file.seek(position)
    return found


def _length_of(image: Image.Image) -> int:
    file: IO[bytes] = getattr(image, "fp")  # noqa: B009  Pillow does not declare it
    position = file.tell()
    length = file.seek(0, 2)
    file.seek(position)
    return length
