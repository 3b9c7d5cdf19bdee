"""What a source that comes packed or from afar may hold, checked name by name before any damage."""

import re
import shutil
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from dataset_rules.ground.errors import RulesError

Progress = Callable[[int, int], None]  # bytes that are here, bytes in all (0: not stated)

LONGEST_NAME_BYTES = 255  # of one part of a path, as file systems have it
LONGEST_PATH_BYTES = 1000
DEEPEST = 40  # folders inside each other
RESERVE_BYTES = 64 << 20  # of free space that no source takes


@dataclass(frozen=True)
class Limits:
    """What a source may hold at most."""

    files: int = 1_000_000
    directory_bytes: int = 256 << 20  # of a zip's list of files, which is held in memory
    size_bytes: int = 64 << 30
    ratio: int = 200  # unpacked to packed bytes; a bomb has 1,000 and more
    free_bytes: int = 64 << 20  # unpacked bytes up to which no ratio counts


LIMITS = Limits()


@dataclass(frozen=True)
class Member:
    """An entry of a source; `refusal` says why its kind is not taken."""

    name: str
    size_bytes: int
    is_folder: bool = False
    refusal: str | None = None


class Gate:
    """Lets the members of one source in, one after the other, or refuses the source."""

    def __init__(self, where: str, limits: Limits, packed_bytes: int | None = None) -> None:
        """`packed_bytes` is the size of the archive; what lies open has no ratio to keep."""
        self.where = where
        self.limits = limits
        self.total_bytes = 0
        self._count = 0
        self._files: set[str] = set()
        self._folders: set[str] = set()
        self._most = limits.size_bytes
        if packed_bytes is not None:
            explained = max(limits.free_bytes, limits.ratio * packed_bytes)
            self._most = min(limits.size_bytes, explained)

    def admit(self, member: Member) -> str:
        """The path of the member inside the source; raises `RulesError` if it is not taken."""
        self._count += 1
        self.total_bytes += member.size_bytes
        self.refuse_more_than(self._count)
        if member.refusal or member.size_bytes < 0:
            raise self.refused(member.refusal or "a size below zero", member.name)
        if self.total_bytes > self._most:
            raise self.refused("more bytes than its size explains", f"over {self._most} bytes")
        if reason := _unfit(member.name):
            raise self.refused(reason, member.name)
        path = cleaned(member.name)
        if not path and not member.is_folder:
            raise self.refused("a file without a name", member.name)
        self._refuse_clash(path, member.is_folder)
        return path

    def refuse_more_than(self, count: int) -> None:
        """Raise `RulesError` where a list of so many members is too long already."""
        if count > self.limits.files:
            raise self.refused("too many files", f"more than {self.limits.files}")

    def refuse_longer_list(self, size_bytes: int) -> None:
        """Raise `RulesError` where the list of a zip's files would take too much memory."""
        if size_bytes > self.limits.directory_bytes:
            raise self.refused("too long a list of files", f"{size_bytes} bytes")

    def refused(self, what: str, found: str) -> RulesError:
        """The error that says what the source holds."""
        return RulesError(
            f"the source is refused: it holds {what}", where=self.where, found=_shown(found),
            remedy="pack plain files and folders only, or name the folder itself",
        )  # fmt: skip

    def _refuse_clash(self, path: str, is_folder: bool) -> None:
        """Names that one file system keeps apart and another does not are one name."""
        name = unicodedata.normalize("NFC", path).casefold()
        folder = name if is_folder else name.rpartition("/")[0]
        if not is_folder:
            if name in self._files:
                raise self.refused("two files of one name", path)
            if name in self._folders:
                raise self.refused("a file and a folder of one name", path)
            self._files.add(name)
        while folder and folder not in self._folders:
            if folder in self._files:
                raise self.refused("a file and a folder of one name", path)
            self._folders.add(folder)
            folder = folder.rpartition("/")[0]


def _unfit(name: str) -> str | None:
    """Why a name is not taken: it leads out of the folder, or no file system takes it."""
    path = name.replace("\\", "/")
    if path.startswith("/") or re.match("[A-Za-z]:", path) or ".." in path.split("/"):
        return "a path that leaves the folder"
    if any(ord(sign) < 32 or ord(sign) == 127 for sign in path):
        return "a name with control characters"
    if any(0xD800 <= ord(sign) < 0xE000 for sign in path):
        return "a name that is not UTF-8"
    parts = path.split("/")
    is_long = any(len(part.encode()) > LONGEST_NAME_BYTES for part in parts)
    if is_long or len(path.encode()) > LONGEST_PATH_BYTES or len(parts) > DEEPEST:
        return "a name that is too long or too deep"
    return None


def cleaned(name: str) -> str:
    """The name with forward slashes and without empty parts and dots."""
    parts = name.replace("\\", "/").split("/")
    return "/".join(part for part in parts if part not in {"", "."})


def refuse_without_room(place: Path, size_bytes: int, where: str) -> None:
    """Raise `RulesError` where the file system of `place` has less room than is needed."""
    free = shutil.disk_usage(place).free - RESERVE_BYTES
    if size_bytes > free:
        raise RulesError(
            "there is not enough room for the source", where=where,
            expected=f"{size_bytes} free bytes in {place}", found=f"{max(free, 0)}",
            remedy="free some space, or let the folder lie elsewhere",
        )  # fmt: skip


def _shown(text: str) -> str:
    """The text as a terminal and a JSON document can show it."""
    plain = text if len(text) <= 200 else f"{text[:200]}..."
    return plain.encode("utf-8", "backslashreplace").decode().translate(
        {sign: f"\\x{sign:02x}" for sign in [*range(32), 127]}
    )  # fmt: skip
