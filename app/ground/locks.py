"""Locks between processes; released when the holding process ends."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.ground.errors import Conflict


@contextmanager
def locked(path: Path, *, wait_s: float, busy: str) -> Iterator[None]:
    """Lock a file or folder for this process; released at the latest when the process ends.

    Args:
        path: a folder, or a file, which is created if absent.
        wait_s: how long to wait for another holder.
        busy: error message if the other holder stays.

    Raises:
        Conflict: if another process still holds it after `wait_s`.
    """
    flags = os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT
    handle = os.open(path, flags | os.O_CLOEXEC, 0o600)
    try:
        _lock(handle, path, until=time.monotonic() + wait_s, busy=busy)
        yield
    finally:
        os.close(handle)


def _lock(handle: int, path: Path, *, until: float, busy: str) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if time.monotonic() > until:
                raise Conflict(
                    busy, where=str(path), remedy="stop the other process first"
                ) from error
            time.sleep(0.1)
        else:
            return


def is_locked(path: Path) -> bool:
    """True if a running process holds the lock."""
    if not path.exists():
        return False
    handle = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(handle)
    return False
