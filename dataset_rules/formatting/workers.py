"""Worker processes that make samples, and the progress notes for resuming a stopped run.

Each finished pair leaves a note in `.progress/` that records what was written; a resumed run
skips pairs that have one. Notes end in `.part`, so that no seal covers them.
"""

import ctypes
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from multiprocessing import get_all_start_methods, get_context, parent_process
from multiprocessing.connection import wait
from multiprocessing.forkserver import ensure_running
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import cv2
from pydantic import ValidationError

from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.checks.pixel_scan import Outcome
from dataset_rules.formatting.sample import Task, make_sample
from dataset_rules.ground.disk import write_file
from dataset_rules.ground.documents import canonical_json
from dataset_rules.ground.errors import ArtifactError, RulesError
from dataset_rules.rules.rules import Rules
from dataset_rules.sources.files import Files
from dataset_rules.sources.headers import error_summary

PROGRESS = ".progress"
MAX_SOCKET_PATH = 100  # bytes; Linux allows 107, macOS 103
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
MIN_PARALLEL = 8  # pairs; for fewer, starting processes takes longer than the work


@dataclass(frozen=True)
class Failure:
    """A pair that cannot be formatted, and why."""

    paths: tuple[str, ...]
    message: str


@dataclass(frozen=True)
class Worker:
    """Makes samples; can be sent to another process."""

    folder: Files
    out: Path
    rules: Rules

    def __call__(self, task: Task) -> Outcome | Failure:
        """The sample of a pair, made now or by an earlier run."""
        note = self.out / PROGRESS / f"{sha256(task.name.encode()).hexdigest()}.part"
        noted = _noted(note, self.out)
        if noted is not None:
            return noted
        try:
            outcome = make_sample(self.folder, self.out, task, self.rules)
        except RulesError as error:
            return Failure((task.image, *task.masks), _without_folder(error, self.folder))
        # Not flushed: after a power cut a note is valid only if the files have the recorded hashes.
        write_file(note, canonical_json(outcome.model_dump(mode="json")), flush=False)
        return outcome


def _noted(note: Path, out: Path) -> Outcome | None:
    """The outcome in a note, if the files that it lists are intact."""
    try:
        outcome = Outcome.model_validate_json(note.read_bytes())
        is_whole = all(
            file_hash(out / path) == written for path, written in outcome.written.items()
        )
    except (OSError, ValidationError):
        return None
    return outcome if is_whole else None


def _without_folder(error: RulesError, folder: Files) -> str:
    place = (error.where or "").removeprefix(f"{folder}{os.sep}")
    return f"{place}: {error_summary(error)}" + (
        f", expected {error.expected}" if error.expected else ""
    )


def preload(tasks: int, jobs: int) -> None:
    """Preload the libraries for the worker processes while the caller is still busy."""
    if jobs > 1 and tasks >= MIN_PARALLEL and _has_server():
        _context()
        ensure_running()


def run_tasks(worker: Worker, tasks: Sequence[Task], jobs: int) -> Iterator[Outcome | Failure]:
    """Results in the order of the tasks."""
    (worker.out / PROGRESS).mkdir(exist_ok=True)
    if jobs == 1 or len(tasks) < MIN_PARALLEL:
        yield from map(worker, tasks)
        return
    with ProcessPoolExecutor(
        min(jobs, len(tasks)), mp_context=_context(), initializer=_start_process
    ) as pool:
        try:
            with _interrupts_blocked():
                results = pool.map(worker, tasks, chunksize=4)
            yield from results
        except BrokenProcessPool as error:
            raise ArtifactError(
                "a formatter process was killed", where=str(worker.out),
                remedy="it may be out of memory: resume with fewer jobs; finished pairs are kept",
            ) from error  # fmt: skip
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _context() -> Any:
    """Fork processes from a server that has loaded the libraries and has no threads.

    Forked from the caller itself, they would inherit locks held by its threads. If there is no
    such server, or its socket path would be too long, each process loads the libraries anew.
    """
    if not _has_server():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _has_server() -> bool:
    socket = len(os.fsencode(get_temp_dir())) + len("/listener-xxxxxxxx")
    return "forkserver" in get_all_start_methods() and socket <= MAX_SOCKET_PATH


@contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """Processes started inside never receive Ctrl-C: their parent handles it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _start_process() -> None:
    """Use one thread per process, and exit when the parent exits."""
    cv2.setNumThreads(1)
    _keep_freed_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    assert parent is not None  # only a child runs this

    def exit_with_parent() -> None:
        wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=exit_with_parent, daemon=True).start()


def _keep_freed_memory() -> None:
    """Reuse the memory of one pair for the next; allocating it anew takes 5 of 35 ms."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:  # GNU C library
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the maximum
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)
