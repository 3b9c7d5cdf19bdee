"""Addresses of files: `https://host/path/file.zip#sha256=...`."""

import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from dataset_rules.ground.errors import RulesError

MAX_NAME_BYTES = 100  # it becomes a part of file names
HEX_DIGITS = {"sha256": 64, "md5": 32}


@dataclass(frozen=True)
class Address:
    """Address of a file, with its expected checksum."""

    url: str  # without fragment
    name: str  # of the file
    checksum: tuple[str, str] | None = None  # algorithm, hexadecimal digits

    @property
    def redacted(self) -> str:
        """The address without secrets, for errors and provenances."""
        return redact(self.url)

    @property
    def has_password(self) -> bool:
        """True if the address contains a user name or password."""
        return "@" in urlsplit(self.url).netloc


def address_of(text: str) -> Address:
    """Parse an address; raises `RulesError` if it cannot be fetched."""
    try:
        parts = urlsplit(text)
        is_valid = parts.scheme == "https" and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_valid = False
    if not is_valid or any(ord(character) <= 32 for character in text):
        raise RulesError(
            "this address cannot be fetched", where=redact(text),
            expected="https://HOST/PATH, optionally with #sha256= or #md5= at its end",
        )  # fmt: skip
    checksum = _checksum(parts.fragment, text) if parts.fragment else None
    name = unquote(parts.path.rstrip("/").rpartition("/")[2]) or str(parts.hostname)
    kept = "".join(sign if sign.isalnum() or sign in "._-" else "_" for sign in name)
    last = kept.encode(errors="replace")[-MAX_NAME_BYTES:].decode(errors="ignore").lstrip(".")
    return Address(parts._replace(fragment="").geturl(), last or "file", checksum)


def redact(text: str) -> str:
    """Remove password, query and fragment, which may contain secrets, from an address."""
    try:
        parts = urlsplit(text)
    except ValueError:
        return "the address"
    host = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=host, query="", fragment="").geturl()[:500]


def _checksum(fragment: str, text: str) -> tuple[str, str]:
    algorithm, _, digits = fragment.partition("=")
    is_hexadecimal = re.fullmatch("[0-9a-fA-F]+", digits) is not None
    if not is_hexadecimal or len(digits) != HEX_DIGITS.get(algorithm):
        raise RulesError(
            "the end of the address is no checksum", where=redact(text),
            expected="#sha256= and 64 hexadecimal digits, or #md5= and 32",
            found=f"#{fragment[:100]}",
        )  # fmt: skip
    return algorithm, digits.lower()
