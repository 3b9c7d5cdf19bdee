"""Limits for archives and remote sources, checked for each member before anything is written."""

import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dataset_rules.ground.errors import RulesError

Progress = Callable[[int, int], None]  # bytes received, total bytes (0: unknown)

MAX_NAME_BYTES = 255  # of one path component, the usual file system limit
MAX_PATH_BYTES = 1000
MAX_DEPTH = 40  # nested folders
RESERVE_BYTES = 64 << 20  # of disk space to keep free


@dataclass(frozen=True)
class Limits:
    """Maximum size of a source."""

    files: int = 1_000_000
    directory_bytes: int = 256 << 20  # of a zip's central directory, which is kept in memory
    size_bytes: int = 64 << 30
    ratio: int = 200  # unpacked to packed bytes; zip bombs have 1,000 and more
    free_bytes: int = 64 << 20  # unpacked size up to which the ratio is not checked


LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """An entry of a source; `refusal` is the reason if its type is not accepted."""

    name: str
    size_bytes: int
    is_folder: bool = False
    refusal: str | None = None


class MemberValidator:
    """Checks the members of a source one by one and rejects the source if one is invalid."""

    def __init__(self, where: str, limits: Limits, packed_bytes: int | None = None) -> None:
        """`packed_bytes` is the size of the archive; None for sources without compression."""
        self.where = where
        self.limits = limits
        self.total_bytes = 0
        self._count = 0
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._max_bytes = limits.size_bytes
        if packed_bytes is not None:
            plausible = max(limits.free_bytes, limits.ratio * packed_bytes)
            self._max_bytes = min(limits.size_bytes, plausible)

    def validate(self, member: Member) -> str:
        """Path of the member inside the source; raises `RulesError` if it is not accepted."""
        self._count += 1
        self.total_bytes += member.size_bytes
        self.check_count(self._count)
        if member.refusal or member.size_bytes < 0:
            raise self._error(member.refusal or "a negative size", member.name)
        if self.total_bytes > self._max_bytes:
            raise self._error("more bytes than allowed", f"over {self._max_bytes} bytes")
        if reason := _name_problem(member.name):
            raise self._error(reason, member.name)
        path = normalized(member.name)
        if not path and not member.is_folder:
            raise self._error("a file without a name", member.name)
        self._check_clash(path, member.is_folder)
        return path

    def check_count(self, count: int) -> None:
        """Raise `RulesError` if the source has too many members."""
        if count > self.limits.files:
            raise self._error("too many files", f"more than {self.limits.files}")

    def check_directory_size(self, size_bytes: int) -> None:
        """Raise `RulesError` if a zip's central directory would take too much memory."""
        if size_bytes > self.limits.directory_bytes:
            raise self._error("too long a list of files", f"{size_bytes} bytes")

    def _error(self, what: str, found: str) -> RulesError:
        return RulesError(
            f"the source is refused: it contains {what}", where=self.where, found=_printable(found),
            remedy="pack plain files and folders only, or give the folder itself",
        )  # fmt: skip

    def _check_clash(self, path: str, is_folder: bool) -> None:
        """Reject names that are equal on case- or Unicode-insensitive file systems."""
        name = unicodedata.normalize("NFC", path).casefold()
        folder = name if is_folder else name.rpartition("/")[0]
        if not is_folder:
            if name in self._files:
                raise self._error("two files of the same name", path)
            if name in self._folders:
                raise self._error("a file and a folder of the same name", path)
            self._files.add(name)
        while folder and folder not in self._folders:
            if folder in self._files:
                raise self._error("a file and a folder of the same name", path)
            self._folders.add(folder)
            folder = folder.rpartition("/")[0]


def _name_problem(name: str) -> str | None:
    """Reason to reject a name: it leaves the folder, or is not portable across file systems."""
    path = name.replace("\\", "/")
    if path.startswith("/") or re.match("[A-Za-z]:", path) or ".." in path.split("/"):
        return "a path that leaves the folder"
    if any(ord(character) < 32 or ord(character) == 127 for character in path):
        return "a name with control characters"
    if any(0xD800 <= ord(character) < 0xE000 for character in path):
        return "a name that is not UTF-8"
    parts = path.split("/")
    is_long = any(len(part.encode()) > MAX_NAME_BYTES for part in parts)
    if is_long or len(path.encode()) > MAX_PATH_BYTES or len(parts) > MAX_DEPTH:
        return "a name that is too long or too deep"
    return None


def normalized(name: str) -> str:
    """The name with forward slashes, without empty components and dots."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in {"", "."})


def require_free_space(folder: Path, size_bytes: int, where: str) -> None:
    """Raise `RulesError` if the file system of `folder` has too little free space."""
    free = shutil.disk_usage(folder).free - RESERVE_BYTES
    if size_bytes > free:
        raise RulesError(
            "not enough disk space for the source", where=where,
            expected=f"{size_bytes} free bytes in {folder}", found=f"{max(free, 0)}",
            remedy="free some space or use a folder on another disk",
        )  # fmt: skip


def _printable(text: str) -> str:
    """The text, shortened and escaped for terminals and JSON."""
    plain = text if len(text) <= 200 else f"{text[:200]}..."
    return plain.encode("utf-8", "backslashreplace").decode().translate(
        {character: f"\\x{character:02x}" for character in [*range(32), 127]}
    )  # fmt: skip
