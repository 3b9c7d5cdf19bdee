"""Temporary folders that a kill may leave behind: the next one that is made clears them away."""

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
MARK = "in-use"  # locked as long as the process lives that made the folder


@contextmanager
def spool_folder() -> Iterator[Path]:
    """A new folder for this process, removed at the end; those of dead processes go as well."""
    _clear_leftovers()
    with tempfile.TemporaryDirectory(prefix=PREFIX) as name:
        place = Path(name)
        with (place / f"{MARK}.new").open("w") as mark:
            _is_taken(mark)
            (place / f"{MARK}.new").rename(place / MARK)  # seen by others only once it is locked
            yield place


def _clear_leftovers() -> None:
    for place in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        try:
            with (place / MARK).open("r+") as mark:
                if _is_taken(mark):
                    shutil.rmtree(place, ignore_errors=True)
        except OSError:
            continue  # without a mark it is just being made, or it is not ours


def _is_taken(mark: IO[str]) -> bool:
    """True if the lock is ours now; never where the system has no such locks."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(mark, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
