"""Archives as sources: unpacked into a folder of their own, and refused before any damage.

All names, kinds and sizes are checked before the first byte is written, and the bytes again
while they are written, since a header may lie.
"""

import re
import shutil
import stat
import tarfile
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from dataset_rules.errors import RulesError

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Limits:
    """What an archive may hold at most."""

    files: int = 1_000_000
    size_bytes: int = 64 << 30
    ratio: int = 200  # unpacked to packed bytes; a bomb has 1,000 and more
    free_bytes: int = 64 << 20  # unpacked bytes up to which no ratio counts


LIMITS = Limits()


@dataclass(frozen=True)
class _Member:
    """An entry of an archive; `refusal` says why its kind is not taken."""

    name: str
    size_bytes: int
    is_folder: bool
    refusal: str | None


@contextmanager
def opened_source(path: Path, limits: Limits = LIMITS) -> Iterator[Path]:
    """The folder of a source; an archive is unpacked into a temporary one while it is used."""
    if not is_archive(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="unetops-source-") as place:
        folder = unpack(path, Path(place) / "source", limits)
        try:
            yield folder
        except RulesError as error:
            raise _told_of(error, path, folder) from error


def _told_of(error: RulesError, archive: Path, folder: Path) -> RulesError:
    """The error with the archive's name instead of the temporary folder's."""
    place = (error.where or "").replace(str(folder), str(archive)) or None
    return RulesError(
        error.what, where=place, expected=error.expected, found=error.found, remedy=error.remedy
    )


def is_archive(path: Path) -> bool:
    """True for a file whose name is an archive's."""
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, target: Path, limits: Limits = LIMITS) -> Path:
    """Unpack an archive into `target`, a new or empty folder, which is returned.

    Raises:
        RulesError: if the archive is damaged or encrypted, or holds links, devices, paths that
            leave the folder, equal names or more than the limits; then nothing is left behind.
    """
    is_zip = archive.name.lower().endswith(".zip") or zipfile.is_zipfile(archive)
    unpacker = _unpack_zip if is_zip else _unpack_tar
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ValueError(f"{target} is not empty")
    try:
        unpacker(archive, target, limits)
    except RulesError:
        shutil.rmtree(target)
        raise
    except Exception as error:  # the decoders raise whatever their formats' parsers raise
        shutil.rmtree(target)
        raise RulesError(
            "this is no archive, or a damaged one", where=str(archive),
            expected="zip, tar, tar.gz, tar.bz2 or tar.xz",
            found=(str(error) or type(error).__name__).splitlines()[0].rstrip(":"),
            remedy="pack the folder again",
        ) from error  # fmt: skip
    return target


def _unpack_zip(archive: Path, target: Path, limits: Limits) -> None:
    with zipfile.ZipFile(archive) as packed:
        infos = packed.infolist()
        _check(archive, (_zip_member(info) for info in infos), limits)
        left = limits.size_bytes
        for info in infos:
            if not info.is_dir():
                with packed.open(info) as file:
                    left = _write(archive, file, target / _clean(info.filename), left)


def _zip_member(info: zipfile.ZipInfo) -> _Member:
    mode = info.external_attr >> 16
    refusal = "an encrypted file" if info.flag_bits & 1 else None
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        refusal = "a link or a device"
    return _Member(info.filename, info.file_size, info.is_dir(), refusal)


def _unpack_tar(archive: Path, target: Path, limits: Limits) -> None:
    with tarfile.open(archive) as packed:  # first pass: headers only
        _check(archive, (_tar_member(info) for info in packed), limits)
    left = limits.size_bytes
    with tarfile.open(archive) as packed:
        for info in packed:
            file = packed.extractfile(info) if info.isreg() else None
            if file is not None:
                left = _write(archive, file, target / _clean(info.name), left)


def _tar_member(info: tarfile.TarInfo) -> _Member:
    refusal = None if info.isreg() or info.isdir() else "a link or a device"
    return _Member(info.name, info.size, info.isdir(), refusal)


def _check(archive: Path, members: Iterable[_Member], limits: Limits) -> None:
    """Refuse by the headers; stops reading as soon as a limit is passed."""
    seen: set[str] = set()
    total = 0
    most = min(limits.size_bytes, max(limits.free_bytes, limits.ratio * archive.stat().st_size))
    for count, member in enumerate(members, start=1):
        total += member.size_bytes
        if count > limits.files:
            raise _refused(archive, "too many files", f"more than {limits.files}")
        if total > most:
            raise _refused(archive, "more bytes than its size explains", f"over {most} bytes")
        if member.refusal:
            raise _refused(archive, member.refusal, member.name)
        if _leaves(member.name):
            raise _refused(archive, "a path that leaves the folder", member.name)
        _refuse_double(archive, member, seen)


def _refuse_double(archive: Path, member: _Member, seen: set[str]) -> None:
    if member.is_folder:
        return
    name = unicodedata.normalize("NFC", _clean(member.name)).casefold()
    if name in seen:
        raise _refused(archive, "two files of one name", member.name)
    seen.add(name)


def _leaves(name: str) -> bool:
    """True for absolute paths, drives, steps upwards and control characters."""
    path = name.replace("\\", "/")
    is_rooted = path.startswith("/") or re.match("[A-Za-z]:", path) is not None
    return is_rooted or ".." in path.split("/") or any(ord(sign) < 32 for sign in path)


def _clean(name: str) -> str:
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in {"", "."})


def _write(archive: Path, file: IO[bytes], path: Path, left: int) -> int:
    """Copy one file; returns how many bytes may still come."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as out:
        while block := file.read(_BLOCK):
            left -= len(block)
            if left < 0:
                raise _refused(archive, "more bytes than its headers state", path.name)
            out.write(block)
    return left


def _refused(archive: Path, what: str, found: str) -> RulesError:
    return RulesError(
        f"the archive is refused: it holds {what}", where=str(archive), found=found,
        remedy="pack plain files and folders only, or name the folder itself",
    )  # fmt: skip
