"""Addresses of files: `https://host/path/file.zip#sha256=...`."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from dataset_rules.ground.errors import RulesError

LONGEST_NAME_BYTES = 100  # it becomes a part of file names
HEX_DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Address:
    """Where a file is, and what it must be."""

    url: str  # without fragment
    name: str  # of the file
    checksum: tuple[str, str] | None = None  # algorithm, hexadecimal digits

    @property
    def shown(self) -> str:
        """The address as errors and provenances show it."""
        return shown(self.url)

    @property
    def has_password(self) -> bool:
        """True if a user's name stands before the host."""
        return "@" in urlsplit(self.url).netloc


def address_of(text: str) -> Address:
    """The parts of an address; raises `RulesError` where it is none that can be fetched."""
    try:
        parts = urlsplit(text)
        is_whole = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_whole = False
    if not is_whole or any(ord(sign) <= 32 for sign in text):
        raise RulesError(
            "this is no address that can be fetched", where=shown(text),
            expected="https://HOST/PATH, with #sha256= or #md5= at its end where it is known",
        )  # fmt: skip
    checksum = _checksum(parts.fragment, text) if parts.fragment else None
    name = unquote(parts.path.rstrip("/").rpartition("/")[2]) or str(parts.hostname)
    kept = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)
    last = kept.encode(errors="replace")[-LONGEST_NAME_BYTES:].decode(errors="ignore").lstrip(".")
    return Address(parts._replace(fragment="").geturl(), last or "file", checksum)


def shown(text: str) -> str:
    """An address without password, query and fragment, which may hold secrets."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "the address"
    place = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=place, query="", fragment="").geturl()[:500]


def _checksum(fragment: str, text: str) -> tuple[str, str]:
    algorithm, _, digits = fragment.partition("=")
    is_hexadecimal = re.fullmatch("[0-9a-fA-F]+", digits) is not None
    if not is_hexadecimal or len(digits) != HEX_DIGITS.get(algorithm):
        raise RulesError(
            "the end of the address is no checksum", where=shown(text),
            expected="#sha256= and 64 hexadecimal digits, or #md5= and 32",
            found=f"#{fragment[:100]}",
        )  # fmt: skip
    return algorithm, digits.lower()
