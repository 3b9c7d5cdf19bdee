"""Archives: listing, unpacking and repacking, with all members checked first.

All names, types and sizes are checked before the first byte is written. Nested archives are
ordinary files and are never opened.
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
from dataset_rules.sources.limits import (
    LIMITS,
    Limits,
    Member,
    MemberValidator,
    require_free_space,
)
from dataset_rules.sources.tar import iter_headers, open_tar
from dataset_rules.sources.temporary import spool_folder

EXPECTED = "a folder, zip, tar, tar.gz, tar.bz2, tar.xz or tar.zst"
METHODS = frozenset({zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2})
COMPRESSIONS = {b"\x1f\x8b": "gz", b"BZh": "bz2", b"\xfd7zXZ\x00": "xz", b"\x28\xb5\x2f\xfd": "zst"}
UNSUPPORTED = {b"7z\xbc\xaf": "a 7-Zip archive", b"Rar!": "a RAR archive"}
PACKED_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".gz", ".zip"})  # already compressed
MACHINE_ERRORS = frozenset(  # not caused by the archive
    {errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.EMFILE, errno.EIO}
)
_ENTRY, _ENTRY_BYTES = b"PK\x01\x02", 46  # fixed part of an entry in the central directory
_ENTRY_LENGTHS = struct.Struct("<28x3H")  # of the name, extra fields and comment
_BLOCK = 1 << 20


@dataclass(frozen=True)
class PackedFile:
    """A file in an archive, readable while the archive is open."""

    path: str
    size_bytes: int
    position: int | str  # data offset in a tar, member name in a zip
    open: Callable[[], IO[bytes]]


@contextmanager
def unpacked_source(source: Path, limits: Limits = LIMITS) -> Iterator[Path]:
    """A source as a folder; an archive is unpacked temporarily.

    `dataset_rules.sources.files` reads archives in place.
    """
    if not source.is_file():
        yield source
        return
    with spool_folder() as temporary:
        folder = unpack(source, temporary / "source", limits)
        try:
            yield folder
        except RulesError as error:
            raise with_archive_path(error, str(folder), source) from error


def with_archive_path(error: RulesError, folder: str, archive: Path) -> RulesError:
    """The error with the archive's path instead of the folder it was extracted to."""
    where = (error.where or "").replace(folder, str(archive)) or None
    return RulesError(
        error.what, where=where, expected=error.expected, found=error.found, remedy=error.remedy
    )


def unpack(archive: Path, target: Path, limits: Limits = LIMITS) -> Path:
    """Unpack an archive into `target`, a new or empty folder, and return it.

    Raises:
        RulesError: if the archive is damaged, encrypted or over the limits, or contains links,
            devices, paths that leave the folder or clashing names; then nothing is left behind.
    """
    target.mkdir(parents=True, exist_ok=True)
    if any(target.iterdir()):
        raise ValueError(f"{target} is not empty")
    try:
        size_bytes = sum(file.size_bytes for file in files_in(archive, limits))
        require_free_space(target, size_bytes, str(archive))
        for file in files_in(archive, limits):
            with as_rules_error(archive):
                _write(file, target / file.path)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return target


def files_in(archive: Path, limits: Limits = LIMITS) -> Iterator[PackedFile]:
    """Files of an archive in archive order; raises `RulesError` if one is not accepted."""
    validator = MemberValidator(str(archive), limits, archive.stat().st_size)
    with as_rules_error(archive):
        yield from (_in_zip if _is_zip(archive) else _in_tar)(archive, validator)


def is_sequential(archive: Path) -> bool:
    """True for a compressed tar, which can only be read sequentially."""
    return not _is_zip(archive) and bool(_compression_of(archive))


def repack(archive: Path, target: Path, limits: Limits = LIMITS) -> None:
    """Repack an archive as a zip, whose files can be read in any order.

    The zip is about as large as a compressed archive: compressed files are stored, all others use
    fast compression. No uncompressed file is written to disk.
    """
    with zipfile.ZipFile(target, "x", compresslevel=1) as copy:
        for file in files_in(archive, limits):
            with as_rules_error(archive):
                _pack(copy, file)


@contextmanager
def as_rules_error(archive: Path) -> Iterator[None]:
    """Turn any exception of a decoder into a `RulesError`, because parsers raise many types."""
    try:
        yield
    except (RulesError, GeneratorExit):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in MACHINE_ERRORS:
            raise
        raise _damaged(archive, error) from error


def _damaged(archive: Path, error: Exception) -> RulesError:
    with archive.open("rb") as file:
        head = file.read(8)
    message = (str(error) or type(error).__name__).splitlines()[0].rstrip(":")
    format_name = next((n for magic, n in UNSUPPORTED.items() if head.startswith(magic)), None)
    return RulesError(
        "this is no archive, or a damaged one", where=str(archive), expected=EXPECTED,
        found=format_name or message, remedy="pack the folder again",
    )  # fmt: skip


class _ZipReader(io.BufferedReader):
    """Reader of a zip that checks the central directory before `zipfile` loads it into memory.

    `zipfile` reads the directory in one call, with the size stated at the end of the zip. Exactly
    this call is intercepted, so that there is no second parser to disagree with.
    """

    def __init__(self, archive: Path, validator: MemberValidator) -> None:
        super().__init__(io.FileIO(archive))
        self._validator = validator
        self._is_listed = False

    def open(self) -> zipfile.ZipFile:
        """The zip with its central directory loaded."""
        packed = zipfile.ZipFile(self)
        self._is_listed = True
        return packed

    def read(self, size: int | None = -1) -> bytes:
        size = -1 if size is None else size
        if size >= _ENTRY_BYTES and not self._is_listed:
            self._check_directory(size)
        return super().read(size)

    def _check_directory(self, size: int) -> None:
        """Count the entries of the directory that starts at the current position."""
        self._validator.check_directory_size(size)
        start = self.tell()
        place, count = 0, 0
        while place < size and (head := super().read(_ENTRY_BYTES)).startswith(_ENTRY):
            count += 1
            self._validator.check_count(count)
            rest = sum(_ENTRY_LENGTHS.unpack_from(head.ljust(_ENTRY_BYTES)))
            place += _ENTRY_BYTES + rest
            self.seek(rest, io.SEEK_CUR)
        self.seek(start)


def _in_zip(archive: Path, validator: MemberValidator) -> Iterator[PackedFile]:
    with _ZipReader(archive, validator) as raw, raw.open() as packed:
        for info in packed.infolist():
            member = _zip_member(info)
            path = validator.validate(member)
            if not member.is_folder:
                yield PackedFile(path, info.file_size, info.filename, partial(packed.open, info))


def _in_tar(archive: Path, validator: MemberValidator) -> Iterator[PackedFile]:
    with open_tar(archive, _compression_of(archive)) as packed:
        for info in iter_headers(packed):
            path = validator.validate(_tar_member(info))
            if info.isreg():
                yield PackedFile(path, info.size, info.offset_data, partial(_content, packed, info))


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
        refusal = f"a file with an unsupported compression method (number {info.compress_type})"
    is_folder = info.filename.endswith(("/", "\\"))
    return Member(info.filename, info.file_size, is_folder, refusal)


def _tar_member(info: tarfile.TarInfo) -> Member:
    refusal = None if info.isreg() or info.isdir() else "a link or a device"
    if info.issparse():
        refusal = "a sparse file"  # it may state any size
    return Member(info.name, info.size, info.isdir(), refusal)


def _is_zip(archive: Path) -> bool:
    """True for a zip, by content; False for a tar that ends with a zip."""
    with archive.open("rb") as file:
        head = file.read(512)
    is_tar = head[257:262] == b"ustar" or any(head.startswith(magic) for magic in COMPRESSIONS)
    return head.startswith(b"PK") or (not is_tar and zipfile.is_zipfile(archive))


def _compression_of(archive: Path) -> str:
    with archive.open("rb") as file:
        head = file.read(8)
    return next((name for magic, name in COMPRESSIONS.items() if head.startswith(magic)), "")


def _write(file: PackedFile, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with file.open() as content, path.open("xb") as out:
        shutil.copyfileobj(content, out, _BLOCK)


def _pack(copy: zipfile.ZipFile, file: PackedFile) -> None:
    entry = zipfile.ZipInfo(file.path)
    is_packed = Path(file.path).suffix.lower() in PACKED_SUFFIXES
    entry.compress_type = zipfile.ZIP_STORED if is_packed else zipfile.ZIP_DEFLATED
    with file.open() as content, copy.open(entry, "w", force_zip64=True) as out:
        shutil.copyfileobj(content, out, _BLOCK)
