"""Life and death of our processes: children that never outlive their parent, locks, leftovers."""

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

PARENT = "UNETOPS_PARENT"  # process id that a child of ours was started by
SHARE = "UNETOPS_SHARE"  # of the jobs, that a worker of ours takes: all, jobs or fetching
JOB = "UNETOPS_JOB"  # job that a step's process, and each process that it starts, works for
WORKER_LOCK = "worker.lock"  # in the home; held by the one worker
TICK_S = 0.25  # between two looks at a silent process
PATIENCE_S = 10.0  # between asking a process to end and killing it
DRAIN_S = 25.0  # likewise for the step of a worker that ends: a training saves its checkpoint
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def die_with_parent() -> None:
    """Have the kernel end this process at once when the process that started it ends.

    Where there is no `prctl` (not Linux) a thread looks once a second.
    """
    parent = int(os.environ.get(PARENT, "0"))
    if not parent:
        return
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        threading.Thread(target=_watch_parent, args=(parent,), daemon=True).start()
    if os.getppid() != parent:  # it ended before we asked
        os._exit(1)


def _watch_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def end_leftovers(job_id: str) -> None:
    """Kill every process that still works for a job, say the pool of a killed step.

    Raises:
        Conflict: if one of them cannot be ended: its folder is no other's then.
    """
    until = time.monotonic() + PATIENCE_S
    while left := _workers_for(job_id):
        if time.monotonic() > until:
            raise Conflict(
                "processes of the job cannot be ended", where=job_id,
                found=", ".join(str(process) for process in left),
                remedy="a process that waits for a disk ends once the disk answers; try again then",
            )  # fmt: skip
        for process in left:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        time.sleep(0.01)


def _workers_for(job_id: str) -> list[int]:
    """Processes that bear the job's mark; one that has ended bears nothing any more."""
    mark, found = f"{JOB}={job_id}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
    return [process for process in found if process != os.getpid()]


def lines_of(child: subprocess.Popen[bytes], pipe: IO[bytes]) -> Iterator[bytes | None]:
    """What the child writes, line by line, and None while there is nothing for a moment.

    Ends with the child, also where a process that it left behind still holds the pipe.
    """
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()

    def read() -> None:
        for line in pipe:
            lines.put(line)
        lines.put(None)

    threading.Thread(target=read, daemon=True).start()
    while True:
        try:
            line = lines.get(timeout=TICK_S)
        except queue.Empty:
            if child.poll() is not None:
                return
            yield None
            continue
        if line is None:
            return
        yield line


def end_group(child: subprocess.Popen[bytes], patience_s: float = PATIENCE_S) -> None:
    """Ask the child and all that it started to end, then kill; with patience 0 kill at once."""
    hows = (signal.SIGTERM, signal.SIGKILL) if patience_s else (signal.SIGKILL,)
    for how in hows:
        if child.poll() is not None:
            return
        with suppress(ProcessLookupError):  # it ended in this very moment
            os.killpg(child.pid, how)
        try:
            child.wait(patience_s or PATIENCE_S)
        except subprocess.TimeoutExpired:
            log.warning("step %s did not end by %s", child.pid, how.name)
