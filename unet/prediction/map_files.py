"""Masks and maps written row by row; each file is renamed into place when it is complete."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from isal import isal_zlib
from numpy.typing import DTypeLike, NDArray

from dataset_rules.pixels.images import PixelDigest
from dataset_rules.pixels.png import PngWriter

Rows = NDArray[Any]

MAX_UINT16 = 65_535  # objects; an instance map with more is a TIFF
TILE_PX = 512  # of TIFFs
SPOOL_BYTES = 1 << 20  # decompressed at once
ROWS = 256  # copied at once


class GrayFile:
    """A grey PNG of 8 or 16 bits; `close` moves it into place and returns its content hash."""

    def __init__(
        self, path: Path, size_px: tuple[int, int], *, kind: DTypeLike, is_flat: bool = True
    ) -> None:
        self.path = path
        self._part = _part_file(path)
        self._file = self._part.open("wb")
        self._digest = PixelDigest(size_px, kind)
        self._writer = PngWriter(self._file, size_px, kind=kind, is_flat=is_flat)

    def write(self, rows: Rows) -> None:
        """Write the next rows (HW)."""
        self._writer.write(rows)
        self._digest.update(rows)

    def close(self) -> str:
        """Finish the file; returns the SHA-256 of its content."""
        self._writer.close()
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._part.replace(self.path)
        return self._digest.hexdigest()

    def discard(self) -> None:
        """Delete the file if it is unfinished."""
        _close_quietly(self._file)
        self._part.unlink(missing_ok=True)


class Spool:
    """Rows stored compressed on disk until all are known, then read back in order."""

    def __init__(self, path: Path, shape: tuple[int, ...], *, kind: DTypeLike) -> None:
        self.shape, self.kind = shape, np.dtype(kind)
        self._path = _part_file(path)
        self._file = self._path.open("w+b")
        self._compressor = isal_zlib.compressobj(1)

    def write(self, rows: Rows) -> None:
        """Append the next rows."""
        self._file.write(self._compressor.compress(np.ascontiguousarray(rows, self.kind).data))

    def blocks(self, rows: int) -> Iterator[Rows]:
        """All rows, `rows` at a time; the last block may be smaller."""
        self._file.write(self._compressor.flush())
        self._file.seek(0)
        decompressor, row_bytes = (
            isal_zlib.decompressobj(),
            int(np.prod(self.shape[1:])) * self.kind.itemsize,
        )
        kept = b""
        for top in range(0, self.shape[0], rows):
            size = min(rows, self.shape[0] - top) * row_bytes
            parts, available = [kept], len(kept)
            while available < size:
                packed = decompressor.unconsumed_tail or self._file.read(SPOOL_BYTES)
                parts.append(decompressor.decompress(packed, max(SPOOL_BYTES, size - available)))
                available += len(parts[-1])
            joined = b"".join(parts)
            kept = joined[size:]
            yield np.frombuffer(joined[:size], self.kind).reshape(-1, *self.shape[1:])

    def remove(self) -> None:
        """Delete the file."""
        _close_quietly(self._file)
        self._path.unlink(missing_ok=True)


def write_instances(spool: Spool, path: Path, objects: int) -> tuple[Path, str]:
    """Write an instance map: 16-bit PNG, or 32-bit TIFF above 65,535 objects.

    Returns:
        the file and its content hash.
    """
    if objects > MAX_UINT16:
        return path.with_suffix(".tif"), write_tiff(spool, path.with_suffix(".tif"))
    file = GrayFile(path.with_suffix(".png"), spool.shape[:2], kind=np.uint16)  # type: ignore[arg-type]
    try:
        for rows in spool.blocks(ROWS):
            file.write(rows.astype(np.uint16))
        return file.path, file.close()
    except BaseException:
        file.discard()
        raise


def write_tiff(spool: Spool, path: Path) -> str:
    """Write the rows as a tiled TIFF; returns its content hash."""
    part, digest = _part_file(path), PixelDigest(spool.shape, spool.kind)
    height, width = spool.shape[:2]

    def tiles() -> Iterator[Rows]:
        for rows in spool.blocks(TILE_PX):
            digest.update(rows)
            for left in range(0, width, TILE_PX):
                yield _padded(rows[:, left : left + TILE_PX])

    try:
        tifffile.imwrite(
            part, tiles(), shape=spool.shape, dtype=spool.kind, tile=(TILE_PX, TILE_PX),
            photometric="minisblack", compression="zlib", bigtiff=height * width > 1 << 28,
            planarconfig="contig" if len(spool.shape) > 2 else None,
        )  # fmt: skip
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    return digest.hexdigest()


def _padded(tile: Rows) -> Rows:
    down, right = TILE_PX - tile.shape[0], TILE_PX - tile.shape[1]
    return np.pad(tile, [(0, down), (0, right), (0, 0)][: tile.ndim])


def _part_file(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")


def _close_quietly(file: Any) -> None:
    """Close a file; its buffer may no longer fit on the disk, and is not needed."""
    try:
        file.close()
    except OSError:
        return
