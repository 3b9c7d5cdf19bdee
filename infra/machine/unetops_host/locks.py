"""Locks of this program: one release at a time, and no power-off during long commands."""

import contextlib
import fcntl
import time
from collections.abc import Iterator
from pathlib import Path

from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.machine import Machine

LOCK_S = 1800.0
LONG = ("boot", "fetch", "recover", "release")  # the machine is not idle while one is running


@contextlib.contextmanager
def release_lock(machine: Machine) -> Iterator[None]:
    """Hold the release lock; it ends with the process."""
    path = machine.state / "release.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + LOCK_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > deadline:
                    raise HostError(f"another release is running ({path})") from error
                time.sleep(0.2)
        yield


@contextlib.contextmanager
def awake(machine: Machine) -> Iterator[None]:
    """Keep `idle` from powering off; the lock is shared and ends with the process."""
    with _awake_file(machine).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_awake(machine: Machine) -> bool:
    """Whether a long command of this program is running."""
    with _awake_file(machine).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def _awake_file(machine: Machine) -> Path:
    machine.state.mkdir(parents=True, exist_ok=True)
    return machine.state / "awake.lock"
