"""Archives: what is in them, checked before any damage, and unpacked or packed anew.

All names, kinds and sizes are checked before the first byte is written. Archives inside an
archive are files like others and are never opened, so none unfolds twice.
"""

import errno
import io
import shutil
import stat
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.limits import LIMITS, Gate, Limits, Member, refuse_without_room
from dataset_rules.sources.tar import headers_of, opened_tar
from dataset_rules.sources.temporary import spool_folder

EXPECTED = "a folder, zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst"
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})
COMPRESSIONS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
STRANGERS = {b"7z\xbc\xaf": "a 7-Zip archive", b"Rar!": "a RAR archive"}
PACKED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gz", ".zip"})  # packing adds nothing
OUR_TROUBLE = frozenset(  # errors of the machine, which say nothing of the archive
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.EIO}
)
_ENTRY, _ENTRY_BYTES = b"PK\x01\x02", 46  # head of each entry of a zip's directory, without name
_ENTRY_LENGTHS = struct.Struct("<28x3H")  # of the name, the extra fields and the comment behind it
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Found:
    """A file in an archive, and how it is read while the archive is open."""

    path: str
    size_bytes: int
    place: int | str  # where its bytes begin in a tar, its own name in a zip
    open: Callable[[], IO[bytes]]


@contextmanager
def opened_source(source: Path, limits: Limits = LIMITS) -> Iterator[Path]:
    """The folder of a source, for readers that walk: an archive is unpacked while it is used.

    `dataset_rules.sources.files` reads one in place.
    """
    if not source.is_file():
        yield source
        return
    with spool_folder() as place:
        folder = unpack(source, place / "source", limits)
        try:
            yield folder
        except RulesError as error:
            raise told_of(error, str(folder), source) from error


def told_of(error: RulesError, place: str, archive: Path) -> RulesError:
    """The error with the archive's name instead of the place where we hold its files."""
    where = (error.where or "").replace(place, str(archive)) or None
    return RulesError(
        error.what, where=where, expected=error.expected, found=error.found, remedy=error.remedy
    )


def unpack(archive: Path, target: Path, limits: Limits = LIMITS) -> Path:
    """Unpack an archive into `target`, a new or empty folder, which is returned.

    Raises:
        RulesError: if the archive is damaged or encrypted, or holds links, devices, paths that
            leave the folder, equal names or more than the limits; then nothing is left behind.
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ValueError(f"{target} is not empty")
    try:
        size_bytes = sum(found.size_bytes for found in files_in(archive, limits))
        refuse_without_room(target, size_bytes, str(archive))
        for found in files_in(archive, limits):
            with refusing(archive):
                _write(found, target / found.path)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def files_in(archive: Path, limits: Limits = LIMITS) -> Iterator[Found]:
    """Every file of an archive in its own order; raises `RulesError` where one is not taken."""
    gate = Gate(str(archive), limits, archive.stat().st_size)
    with refusing(archive):
        yield from (_in_zip if _is_zip(archive) else _in_tar)(archive, gate)


def is_in_order(archive: Path) -> bool:
    """True for a compressed tar, which can only be read from its start to its end."""
    return not _is_zip(archive) and bool(_compression_of(archive))


def repack(archive: Path, target: Path, limits: Limits = LIMITS) -> None:
    """Pack an archive anew as a zip, whose files can be read in any order.

    The copy is about as large as a compressed archive: what is packed already is kept as it is,
    the rest is packed lightly. Nothing of it is ever unpacked on the disk.
    """
    with zipfile.ZipFile(target, "x", compresslevel=1) as copy:
        for found in files_in(archive, limits):
            with refusing(archive):
                _pack(copy, found)


@contextmanager
def refusing(archive: Path) -> Iterator[None]:
    """Make one error of ours of whatever a decoder raises: parsers of formats raise anything."""
    try:
        yield
    except (RulesError, GeneratorExit):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in OUR_TROUBLE:
            raise
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> RulesError:
    with archive.open("rb") as file:
        head = file.read(8)
    said = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
    stranger = next((name for magic, name in STRANGERS.items() if head.startswith(magic)), None)
    return RulesError(
        "this is no archive, or a damaged one", where=str(archive), expected=EXPECTED,
        found=stranger or said, remedy="pack the folder again",
    )  # fmt: skip


class _Zip(io.BufferedReader):
    """A zip whose directory is looked through before it is read, and refused if it is too long.

    `zipfile` reads it in one piece, of the size that the end of the zip states. This very read is
    judged, so that there is no second opinion on where the directory is.
    """

    def __init__(self, archive: Path, gate: Gate) -> None:
        super().__init__(io.FileIO(archive))
        self._gate = gate
        self._is_listed = False

    def opened(self) -> zipfile.ZipFile:
        """The zip with the list of its files."""
        packed = zipfile.ZipFile(self)
        self._is_listed = True
        return packed

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        if size >= _ENTRY_BYTES and not self._is_listed:
            self._look_through(size)
        return super().read(size)

    def _look_through(self, size: int) -> None:
        """Count the entries of the directory that begins here; whatever ends it is not judged."""
        self._gate.refuse_longer_list(size)
        start = self.tell()
        place, count = 0, 0
        while place < size and (head := super().read(_ENTRY_BYTES)).startswith(_ENTRY):
            count += 1
            self._gate.refuse_more_than(count)
            rest = sum(_ENTRY_LENGTHS.unpack_from(head.ljust(_ENTRY_BYTES)))
            place += _ENTRY_BYTES + rest
            self.seek(rest, io.SEEK_CUR)
        self.seek(start)


def _in_zip(archive: Path, gate: Gate) -> Iterator[Found]:
    with _Zip(archive, gate) as raw, raw.opened() as packed:
        for info in packed.infolist():
            member = _zip_member(info)
            path = gate.admit(member)
            if not member.is_folder:
                yield Found(path, info.file_size, info.filename, partial(packed.open, info))


def _in_tar(archive: Path, gate: Gate) -> Iterator[Found]:
    with opened_tar(archive, _compression_of(archive)) as packed:
        for info in headers_of(packed):
            path = gate.admit(_tar_member(info))
            if info.isreg():
                yield Found(path, info.size, info.offset_data, partial(_content, packed, info))


def _content(packed: tarfile.TarFile, info: tarfile.TarInfo) -> IO[bytes]:
    file = packed.extractfile(info)
    assert file is not None  # it is a regular file
    return file


def _zip_member(info: zipfile.ZipInfo) -> Member:
    refusal = None
    if stat.S_IFMT(info.external_attr >> 16) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        refusal = "a link or a device"
    elif info.flag_bits & 1:
        refusal = "an encrypted file"
    elif info.compress_type not in METHODS:
        refusal = f"a file packed by a method that is not read (number {info.compress_type})"
    is_folder = info.filename.endswith(("/", "\\"))
    return Member(info.filename, info.file_size, is_folder, refusal)


def _tar_member(info: tarfile.TarInfo) -> Member:
    refusal = None if info.isreg() or info.isdir() else "a link or a device"
    if info.issparse():
        refusal = "a sparse file"  # it may state any size
    return Member(info.name, info.size, info.isdir(), refusal)


def _is_zip(archive: Path) -> bool:
    """By the content; a tar that ends in a zip is none."""
    with archive.open("rb") as file:
        head = file.read(512)
    is_tar = head[257:262] == b"ustar" or any(head.startswith(magic) for magic in COMPRESSIONS)
    return head.startswith(b"PK") or (not is_tar and zipfile.is_zipfile(archive))


def _compression_of(archive: Path) -> str:
    with archive.open("rb") as file:
        head = file.read(8)
    return next((name for magic, name in COMPRESSIONS.items() if head.startswith(magic)), "")


def _write(found: Found, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with found.open() as file, path.open("xb") as out:
        shutil.copyfileobj(file, out, _BLOCK)


def _pack(copy: zipfile.ZipFile, found: Found) -> None:
    entry = zipfile.ZipInfo(found.path)
    is_packed = Path(found.path).suffix.lower() in PACKED_SUFFIXES
    entry.compress_type = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
    with found.open() as file, copy.open(entry, "w", force_zip64=True) as out:
        shutil.copyfileobj(file, out, _BLOCK)
