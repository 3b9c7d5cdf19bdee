"""Text chunks of PNG files, read and written without touching a pixel."""

import zlib

from dataset_rules.errors import ArtifactError


def png_with_text(data: bytes, key: str, text: str) -> bytes:
    """The PNG with a tEXt chunk before its end; the pixels are untouched."""
    body = key.encode("latin-1") + b"\0" + text.encode("latin-1")
    chunk = len(body).to_bytes(4, "big") + b"tEXt" + body
    chunk += zlib.crc32(b"tEXt" + body).to_bytes(4, "big")
    end = data.rindex(b"IEND") - 4
    return data[:end] + chunk + data[end:]


def png_text(data: bytes, key: str) -> str | None:
    """Text of a PNG's tEXt chunk, None without it.

    Raises:
        ArtifactError: if a chunk's checksum is wrong.
    """
    found, at = None, 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        crc = data[at + 8 + length : at + 12 + length]
        if zlib.crc32(kind + body).to_bytes(4, "big") != crc:
            raise ArtifactError(f"the PNG was altered: wrong checksum in chunk {kind!r}")
        if kind == b"tEXt" and body.startswith(key.encode() + b"\0"):
            found = body[len(key) + 1 :].decode("latin-1")
        at += 12 + length
    return found
