"""Temporary folders; those left behind by killed processes are removed by the next run."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

if sys.platform != "win32":
    import fcntl

PREFIX = "unetops-source-"
LOCK = "in-use"  # locked while the process that created the folder is running


@contextmanager
def spool_folder() -> Iterator[Path]:
    """Create a folder for this process, removed at the end; removes those of dead processes."""
    _remove_leftovers()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        folder = Path(name)
        with (folder / f"{LOCK}.new").open("w") as lock:
            _acquire(lock)
            (folder / f"{LOCK}.new").rename(folder / LOCK)  # visible to others only once locked
            yield folder


def _remove_leftovers() -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            with (folder / LOCK).open("r+") as lock:
                if _acquire(lock):
                    shutil.rmtree(folder, ignore_errors=True)
        except OSError:
            continue  # no lock file: the folder is just being created or is not ours


def _acquire(lock: IO[str]) -> bool:
    """Try to lock; True on success, always False on systems without such locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
