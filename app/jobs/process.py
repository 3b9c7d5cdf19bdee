"""Process control: children that never outlive their parent, process groups, leftovers."""

import ctypes
import logging
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO

from app.ground.errors import Conflict

log = logging.getLogger(__name__)

PARENT = "UNETOPS_PARENT"  # id of the process that started a child
SHARE = "UNETOPS_SHARE"  # which jobs a worker takes: all, jobs or fetching
JOB = "UNETOPS_JOB"  # job of a step's process and of each process that it starts
WORKER_LOCK = "worker.lock"  # in the data directory; held by the worker
POLL_S = 0.25  # interval for checking a silent process
KILL_AFTER_S = 10.0  # between SIGTERM and SIGKILL
DRAIN_S = 25.0  # likewise for a step of a stopping worker: a training saves its checkpoint
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent() -> None:
    """Have the kernel kill this process as soon as its parent ends.

    Without `prctl` (not Linux) a thread checks once per second.
    """
    parent = int(os.environ.get(PARENT, "0"))
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before prctl was called
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def kill_leftovers(job_id: str) -> None:
    """Kill all remaining processes of a job, e.g. the process pool of a killed step.

    Raises:
        Conflict: if one cannot be killed, so that the job's folder is not free.
    """
    until = time.monotonic() + KILL_AFTER_S
    while left := _processes_of(job_id):
        if time.monotonic() > until:
            raise Conflict(
                "processes of the job cannot be killed", where=job_id,
                found=", ".join(str(process) for process in left),
                remedy="a process waiting for a disk ends once the disk responds; then try again",
            )  # fmt: skip
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _processes_of(job_id: str) -> list[int]:
    """Running processes with the job's id in their environment."""
    mark, found = f"{JOB}={job_id}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return [process for process in found if process != os.getpid()]


def read_lines(child: subprocess.Popen[bytes], pipe: IO[bytes]) -> Iterator[bytes | None]:
    """Lines that the child writes, and None whenever it is silent for `POLL_S`.

    Ends with the child, even if a process that it left behind keeps the pipe open.
    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        for line in pipe:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=POLL_S)
        except queue.Empty:
            if child.poll() is not None:
                return
            yield None
            continue
        if line is None:
            return
        yield line


def stop_process_group(child: subprocess.Popen[bytes], timeout_s: float = KILL_AFTER_S) -> None:
    """Send SIGTERM to the child's process group, SIGKILL after the timeout; at once if it is 0."""
    numbers = (signal.SIGTERM, signal.SIGKILL) if timeout_s else (signal.SIGKILL,)
    for number in numbers:
        if child.poll() is not None:
            return
        with suppress(ProcessLookupError):  # it has just ended
            os.killpg(child.pid, number)
        try:
            child.wait(timeout_s or KILL_AFTER_S)
        except subprocess.TimeoutExpired:
            log.warning("step %s did not exit on %s", child.pid, number.name)
