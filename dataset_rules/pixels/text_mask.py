"""Masks as text: one number per pixel, one line per row, separated by spaces, commas or tabs."""

import os
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_rules.ground.errors import RulesError

TEXT_SUFFIXES = frozenset({".txt", ".csv", ".tsv", ".dat"})
MAX_TEXT_BYTES = 1 << 30
MIN_COLUMNS = 4  # narrower tables are not image masks
SNIFF_BYTES = 1 << 20  # maximum length of each of the first two lines

_ALLOWED = frozenset(b"0123456789 \t\r\n,;.+-eE")
_TO_SPACES = bytes.maketrans(b",;\t", b"   ")


def is_text_mask(path: str | Path) -> bool:
    """True if the suffix is that of a text file."""
    return os.path.splitext(path)[1].lower() in TEXT_SUFFIXES  # noqa: PTH122  mostly strings


def read_grid(path: Path) -> NDArray[Any]:
    """Read a text mask: HW, uint8 or uint16.

    Raises:
        RulesError: if the file is not a grid of whole numbers from 0 to 65535.
    """
    data = _read_bytes(path)
    rows = [line for line in data.translate(_TO_SPACES).splitlines() if line.strip()]
    widths = {len(row.split()) for row in (rows[0], rows[-1])} if rows else set()
    if not rows or len(widths) != 1 or not set(data[:SNIFF_BYTES]) <= _ALLOWED:
        raise _not_a_mask(path, "rows of different lengths or text")
    return _parse(path, b" ".join(rows), (len(rows), widths.pop()))


def _read_bytes(path: Path) -> bytes:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise _not_a_mask(path, f"more than {MAX_TEXT_BYTES >> 20} MiB")
        return path.read_bytes()
    except OSError as error:
        raise RulesError("the file cannot be read", where=str(path), found=str(error)) from error


def _parse(path: Path, text: bytes, size: tuple[int, int]) -> NDArray[Any]:
    try:
        numbers = np.array(text.split(), np.float64)
    except ValueError as error:
        raise _not_a_mask(path, str(error)) from error
    if numbers.size != size[0] * size[1]:
        raise _not_a_mask(path, "rows of different lengths")
    if numbers.min() < 0 or numbers.max() > 65_535 or (numbers % 1).any():
        raise _not_a_mask(path, f"numbers from {numbers.min():g} to {numbers.max():g}")
    depth = np.uint8 if numbers.max() < 256 else np.uint16
    return numbers.astype(depth).reshape(size)


def _not_a_mask(path: Path, found: str) -> RulesError:
    return RulesError(
        "the text file is not a mask", where=str(path), found=found,
        expected="one whole number from 0 to 65535 per pixel, one line per row",
        remedy="correct it or list it in source.exclude",
    )  # fmt: skip


def find_text_masks(files: Iterable[tuple[str, Path]]) -> list[str]:
    """Text files that start like a mask: two lines with the same count of whole numbers."""
    return [name for name, path in files if is_text_mask(name) and _starts_like_a_mask(path)]


def _starts_like_a_mask(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            lines = list(islice(iter(lambda: file.readline(SNIFF_BYTES), b""), 2))
    except OSError:
        return False
    widths = {len(line.translate(_TO_SPACES).split()) for line in lines}
    return (
        len(lines) == 2
        and len(widths) == 1
        and min(widths) >= MIN_COLUMNS
        and all(set(line) <= _ALLOWED for line in lines)
    )
