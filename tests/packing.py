"""Archives for tests, from names and bytes, in all supported formats."""

import bz2
import gzip
import io
import lzma
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import zstandard

KINDS = ["zip", "tar", "tar.gz", "tar.bz2", "tar.xz", "tar.zst"]
SQUEEZE: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": gzip.compress,
    "tar.bz2": bz2.compress,
    "tar.xz": lambda data: lzma.compress(data, preset=1),
    "tar.zst": zstandard.ZstdCompressor().compress,
}


def zip_bytes(*members) -> bytes:
    """A zip of (name or ZipInfo, bytes)."""
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return data.getvalue()


def tar_bytes(*members) -> bytes:
    """An uncompressed tar of TarInfo or (name, bytes)."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            info = tarfile.TarInfo(member[0])
            info.size = len(member[1])
            archive.addfile(info, io.BytesIO(member[1]))
    return data.getvalue()


def packed_bytes(kind: str, *members) -> bytes:
    """An archive in the given format."""
    return zip_bytes(*members) if kind == "zip" else SQUEEZE[kind](tar_bytes(*members))


def archive_of(path: Path, *members) -> Path:
    """Write an archive in the format given by the suffix."""
    kind = path.name.partition(".")[2]
    path.write_bytes(packed_bytes(kind, *members))
    return path


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    """A tar entry for a link, pipe or device."""
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info
