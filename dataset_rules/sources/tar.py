"""Strict reading of tar archives: truncation and damage raise errors instead of ending silently.

`tarfile` treats a damaged header in the middle as the end of the archive, reads extended headers
of any size into memory, and on older Pythons loops forever on negative sizes.
"""

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Self, cast

import zstandard

MAX_HEADER_BYTES = 64 << 10  # of an extended header: a path and some attributes
MAX_GLOBAL_FIELDS = 100  # of global pax headers; `git archive` writes one, the commit
MAX_PADDING_BYTES = 1 << 20  # after the end-of-archive marker
MAX_DECODER_BYTES = 256 << 20  # memory of a decompressor; xz -9 needs 65 MiB
EXTENDED = frozenset(
    {
        tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)  # fmt: skip


@contextmanager
def open_tar(path: Path, compression: str) -> Iterator[tarfile.TarFile]:
    """Open a tar; compressed ones can only be read sequentially.

    Args:
        path: the archive.
        compression: "", "gz", "bz2", "xz" or "zst".
    """
    with path.open("rb") as raw:
        if not compression:
            with tarfile.open(fileobj=raw, mode="r:", tarinfo=_StrictHeader) as archive:
                yield archive
            return
        stream = _decompressed(raw, compression)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader) as archive:
            yield archive
        left = MAX_PADDING_BYTES
        while left > 0 and (data := stream.read(left)):  # the checksum is at the very end
            left -= len(data)


def iter_headers(archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Headers in archive order; clears tarfile's list of members so that it does not grow."""
    while (info := archive.next()) is not None:
        if len(archive.pax_headers) > MAX_GLOBAL_FIELDS:
            raise tarfile.ReadError(f"over {MAX_GLOBAL_FIELDS} global headers")
        archive.members = []  # type: ignore[attr-defined]
        yield info


class _StrictHeader(tarfile.TarInfo):
    """A header that must be valid unless it is the end-of-archive marker."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the end-of-archive marker
            raise tarfile.ReadError(f"{error}: it is cut short or damaged") from error
        if header.size < 0 or (header.type in EXTENDED and header.size > MAX_HEADER_BYTES):
            raise tarfile.ReadError(f"a header states {header.size} bytes")
        return header


def _decompressed(raw: IO[bytes], compression: str) -> IO[bytes]:
    if compression == "gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if compression == "bz2":
        return cast("IO[bytes]", bz2.BZ2File(raw))
    if compression == "xz":
        return cast("IO[bytes]", _Xz(raw))
    decoder = zstandard.ZstdDecompressor(max_window_size=MAX_DECODER_BYTES)
    return cast("IO[bytes]", decoder.stream_reader(raw, read_across_frames=True))


class _Xz:
    """Reads xz with a memory limit for the decoder, which `lzma.open` lacks."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decoder = lzma.LZMADecompressor(memlimit=MAX_DECODER_BYTES)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none at the end."""
        while True:
            rest = self._decoder.unused_data.lstrip(b"\0") if self._decoder.eof else b""
            data: Any = b""
            if self._decoder.eof or self._decoder.needs_input:
                data = rest or self._raw.read(1 << 16)
            if self._decoder.eof:
                if not data.strip(b"\0"):
                    return b""
                self._decoder = lzma.LZMADecompressor(memlimit=MAX_DECODER_BYTES)
            elif self._decoder.needs_input and not data:
                raise EOFError("the compressed data is cut short")
            if block := self._decoder.decompress(data, size):
                return block
