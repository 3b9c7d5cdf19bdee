"""Atomic, durable file writes."""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from dataset_rules.ground.documents import json_bytes

WRITING_BYTES = len("..part")  # by which a file name is longer while the file is being written
PARALLEL_FLUSHES = 16  # 400 files take 0.2 s instead of 1.5 s one by one


def write_file(path: Path, data: bytes, *, flush: bool = True) -> None:
    """Write to a temporary file, flush, rename: readers see the old or the new file, never half.

    Args:
        path: file to write.
        data: its content.
        flush: wait until the bytes are on disk; otherwise a power cut may still lose them.
    """
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(data)
        if flush:
            file.flush()
            os.fsync(file.fileno())
    temporary.replace(path)


@contextmanager
def flush_in_background(paths: Sequence[Path]) -> Iterator[None]:
    """Flush files to disk in the background; they are on disk when the block ends."""
    with ThreadPoolExecutor(1) as background:
        flushing = background.submit(_flush, paths)
        yield
        flushing.result()


def _flush(paths: Sequence[Path]) -> None:
    """Flush in parallel, because disks merge concurrent requests."""

    def flush(path: Path) -> None:
        with path.open("rb") as file:
            os.fsync(file.fileno())

    with ThreadPoolExecutor(PARALLEL_FLUSHES) as pool:
        for _ in pool.map(flush, paths):
            pass


def write_json(path: Path, value: Any) -> None:
    """Write a human-readable JSON document atomically."""
    write_file(path, json_bytes(value))
