"""Locks between processes, which end with the process that holds them."""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from app.ground.errors import Conflict


@contextmanager
def locked(path: Path, *, wait_s: float, busy: str) -> Iterator[None]:
    """Hold a file or folder for this process alone; the lock ends with the process, however.

    Args:
        path: a folder, or a file that is made where it is absent.
        wait_s: how long to wait for another holder.
        busy: what to say if that one stays.

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
                raise Conflict(busy, where=str(path), remedy="end the other one first") from error
            time.sleep(0.1)
        else:
            return


def is_locked(path: Path) -> bool:
    """True if a living process holds the lock."""
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
