"""Tar archives read strictly: what is cut short or damaged is an error, never a silent end.

`tarfile` takes a damaged header in the middle for the end of the archive, reads extended headers
of any size into memory, and on older Pythons follows sizes below zero round in a circle.
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

MOST_HEADER_BYTES = 64 << 10  # of an extended header: a path and some attributes
MOST_GLOBAL_FIELDS = 100  # that hold for all files; `git archive` writes one, the commit
MOST_PADDING_BYTES = 1 << 20  # behind the mark of the end
MOST_DECODER_BYTES = 256 << 20  # of memory that a decoder may ask for; xz -9 takes 65 MiB
EXTENDED = frozenset(
    {
        tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME,
        tarfile.GNUTYPE_LONGLINK,
    }
)  # fmt: skip


@contextmanager
def opened_tar(path: Path, compression: str) -> Iterator[tarfile.TarFile]:
    """The tar inside a file; a compressed one can only be read from its start to its end.

    Args:
        path: the archive.
        compression: "", "gz", "bz2", "xz" or "zst".
    """
    with path.open("rb") as raw:
        if not compression:
            with tarfile.open(fileobj=raw, mode="r:", tarinfo=_StrictHeader) as packed:
                yield packed
            return
        stream = _inflated(raw, compression)
        with tarfile.open(fileobj=stream, mode="r|", tarinfo=_StrictHeader) as packed:
            yield packed
        left = MOST_PADDING_BYTES
        while left > 0 and (data := stream.read(left)):  # the check sum stands at the very end
            left -= len(data)


def headers_of(packed: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Headers in the order of the archive; what tarfile keeps of them does not grow."""
    while (info := packed.next()) is not None:
        if len(packed.pax_headers) > MOST_GLOBAL_FIELDS:
            raise tarfile.ReadError(f"over {MOST_GLOBAL_FIELDS} headers for all its files")
        packed.members = []  # type: ignore[attr-defined]
        yield info


class _StrictHeader(tarfile.TarInfo):
    """A header that must be one, up to the mark of the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str | None, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)  # type: ignore[arg-type]
        except tarfile.HeaderError as error:
            if len(buf) == tarfile.BLOCKSIZE and not any(buf):
                raise  # the mark of the end
            raise tarfile.ReadError(f"{error}: it is cut short or damaged") from error
        if header.size < 0 or (header.type in EXTENDED and header.size > MOST_HEADER_BYTES):
            raise tarfile.ReadError(f"a header states {header.size} bytes")
        return header


def _inflated(raw: IO[bytes], compression: str) -> IO[bytes]:
    if compression == "gz":
        return cast("IO[bytes]", gzip.GzipFile(fileobj=raw))
    if compression == "bz2":
        return cast("IO[bytes]", bz2.BZ2File(raw))
    if compression == "xz":
        return cast("IO[bytes]", _Xz(raw))
    decoder = zstandard.ZstdDecompressor(max_window_size=MOST_DECODER_BYTES)
    return cast("IO[bytes]", decoder.stream_reader(raw, read_across_frames=True))


class _Xz:
    """Reads xz with a bound on the memory of the decoder, which `lzma.open` does not have."""

    def __init__(self, raw: IO[bytes]) -> None:
        self._raw = raw
        self._decoder = lzma.LZMADecompressor(memlimit=MOST_DECODER_BYTES)

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
                self._decoder = lzma.LZMADecompressor(memlimit=MOST_DECODER_BYTES)
            elif self._decoder.needs_input and not data:
                raise EOFError("the compressed data is cut short")
            if block := self._decoder.decompress(data, size):
                return block
