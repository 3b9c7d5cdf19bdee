"""The executor process: runs each job's step in a child process and stores the result.

A killed worker takes its child with it; the next one resumes the job from the child's checkpoint.
Each data directory has one worker, which holds `worker.lock`. To sandbox network access, a second
process can take only the fetching queue; it holds `fetcher.lock`.
"""

import json
import logging
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from dbos import DBOS, DBOSClient, DBOSConfig
from sqlalchemy import Engine
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from app.ground import logs
from app.ground.errors import error_fields
from app.ground.locks import locked
from app.ground.settings import Settings
from app.jobs import queue
from app.jobs.fetching import store_fetched
from app.jobs.process import (
    DRAIN_S,
    JOB,
    PARENT,
    SHARE,
    WORKER_LOCK,
    die_with_parent,
    kill_leftovers,
    read_lines,
    stop_process_group,
)
from app.jobs.steps import FINISHED, REFUSED, STOPPED, StepRequest
from app.store import artifacts, tables
from app.store.db import database_url, migrate, open_engine, transaction
from app.store.tables import Job
from dataset_rules.artifacts.manifest import is_artifact
from dataset_rules.artifacts.provenance import commit
from dataset_rules.ground.errors import UserError

log = logging.getLogger(__name__)

MAX_RECOVERIES = 1000  # per job: survives kills, but not an endless crash loop
STOP_GRACE_S = 1.0  # to notice that this process stops, if step and worker got the same signal
POLL_S = 0.5  # for a cancel; also the minimum interval between stored progress events
RETRY_S = 2.0  # between attempts to write to the database
TRACEBACK_BYTES = 8_000
FREQUENT = {"step", "progress"}  # events that are stored only now and then


@dataclass(frozen=True)
class Share:
    """The queues that one process works on."""

    queues: tuple[str, ...]
    executor: str  # pinned, so that a restarted process resumes its own jobs
    lock: str


FETCHING_QUEUES = (queue.QUEUES["source"],)
OFFLINE_QUEUES = tuple(sorted({queue.SHORT_QUEUE, *queue.QUEUES.values()} - {*FETCHING_QUEUES}))
SHARES = {
    "all": Share((*OFFLINE_QUEUES, *FETCHING_QUEUES), "worker", WORKER_LOCK),
    "jobs": Share(OFFLINE_QUEUES, "worker", WORKER_LOCK),
    "fetching": Share(FETCHING_QUEUES, "fetcher", "fetcher.lock"),
}


class JobFailedError(Exception):
    """Ends the workflow of a failed job; the reason for users is in the job's row."""


class Executor:
    """Runs the jobs of one data directory; shared by all workflows."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine: Engine = open_engine(settings)
        self.client: DBOSClient = queue.open_client(self.engine)
        self.stopping = threading.Event()
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._locks: dict[str, threading.Lock] = {}  # by request key: one job at a time

    def run(self, job_id: str) -> None:
        """Run the job's step and store its result.

        Raises:
            JobFailedError: if it failed; the reason is in the job's row by then.
        """
        self._hold_if_stopping()
        try:
            self._work(job_id)
        except JobFailedError:
            raise
        except Exception as error:  # any error: nothing else would record the job's failure
            self._hold_if_stopping()
            log.exception("job failed: %s", job_id)
            self._fail(job_id, _worker_error(error), keeps_work=True)

    def _work(self, job_id: str) -> None:
        with transaction(self.engine) as session:
            job = queue.find_job(session, job_id)
        if job.result is not None:
            return
        if job.error is not None:  # settled by a worker that ended before the queue was updated
            raise JobFailedError(job.error["text"])
        with self._locks.setdefault(job.key, threading.Lock()):
            self._make(job)

    def _make(self, job: Job) -> None:
        kill_leftovers(job.id)
        self._take_over(job)
        if artifacts.moved_folder(self.settings, job.id) is None:
            self._run_step(job)
        self._finish(job)

    def _take_over(self, job: Job) -> None:
        """Continue from the unfinished work of an earlier failed job for the same request."""
        with transaction(self.engine) as session:
            earlier = [row for row in queue.jobs_for_same_request(session, job) if row.id != job.id]
        for row in earlier:
            kill_leftovers(row.id)
            if row.result is None and artifacts.hand_over(self.settings, row.id, job.id):
                return

    def _run_step(self, job: Job) -> None:
        code = STOPPED
        while code == STOPPED and not self._is_cancelled(job.id):  # only the step was stopped
            self._record_event(job.id, "started", {"kind": job.kind, "release": commit()})
            last, code = self._run_child(job)
        if self._is_cancelled(job.id):
            self._clear(job.id)
            raise JobFailedError("cancelled")
        if code != 0 or last.get("event") != FINISHED:
            error = _step_error(last, code, self._log_of(job.id))
            self._fail(job.id, error, keeps_work="traceback" in error)

    def _run_child(self, job: Job) -> tuple[dict[str, Any], int]:
        """Run the step's process; return its last event and exit status.

        In any case, no process of the job is left afterwards.
        """
        request = self._request(job)
        child = self._start(job)
        try:
            self._send(child, request)
            last = self._follow(job, child)
            code = child.wait()
            if code != 0:
                self.stopping.wait(STOP_GRACE_S)
        finally:
            self._hold_if_stopping()
            stop_process_group(child, timeout_s=0)
            self.children.pop(job.id, None)
            kill_leftovers(job.id)
        return last, code

    def _hold_if_stopping(self) -> None:
        if self.stopping.is_set():  # this process is about to exit; the job resumes later
            threading.Event().wait()

    def _start(self, job: Job) -> subprocess.Popen[bytes]:
        self._log_of(job.id).parent.mkdir(exist_ok=True)
        with self._log_of(job.id).open("ab") as errors:
            child = subprocess.Popen(
                [sys.executable, "-m", "app.jobs.steps"],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                env={**os.environ, JOB: job.id, PARENT: str(os.getpid())},
                start_new_session=True,
            )  # fmt: skip
        self.children[job.id] = child
        return child

    def _send(self, child: subprocess.Popen[bytes], request: StepRequest) -> None:
        assert child.stdin is not None
        with suppress(BrokenPipeError), child.stdin as pipe:  # then its exit code has the reason
            pipe.write(request.line() + b"\n")

    def _request(self, job: Job) -> StepRequest:
        with transaction(self.engine) as session:
            inputs = {
                role: str(artifacts.artifact_path(self.settings, artifacts.find(session, name)))
                for role, name in job.inputs.items()
            }
        work = artifacts.work_folder(self.settings, job.id)
        return StepRequest(job.kind, str(work), inputs, job.parameters)

    def _follow(self, job: Job, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Store the child's events until it ends, or kill it if cancelled; return the last one."""
        assert child.stdout is not None
        last: dict[str, Any] = {}
        pending: dict[str, Any] | None = None  # a frequent event, not stored yet
        stored_at = checked_at = 0.0
        for line in read_lines(child, child.stdout):
            now = time.monotonic()
            if line is not None:
                last = json.loads(line)
                if last["event"] in FREQUENT and now - stored_at < POLL_S:
                    pending = last
                    continue
                if pending and last["event"] not in FREQUENT:
                    self._store_event(job.id, pending)
                self._store_event(job.id, last)
                pending, stored_at = None, now
            if now - checked_at > POLL_S:
                checked_at = now
                if self._is_cancelled(job.id):
                    stop_process_group(child, timeout_s=0)
        return last

    def _is_cancelled(self, job_id: str) -> bool:
        return queue.job_state(self.client, job_id) is queue.State.CANCELLED

    def _store_event(self, job_id: str, event: dict[str, Any]) -> None:
        data = {name: value for name, value in event.items() if name != "event"}
        with transaction(self.engine) as session:
            if event["event"] in FREQUENT:
                queue.find_job(session, job_id).progress = _progress(data)
            if event["event"] not in {FINISHED, REFUSED}:
                queue.record_event(session, job_id, event["event"], data)

    def _finish(self, job: Job) -> None:
        work = artifacts.work_folder(self.settings, job.id)
        moved = artifacts.moved_folder(self.settings, job.id)
        if moved is None and is_artifact(work):
            artifacts.record_move(self.settings, job.id, artifacts.artifact_id(work))
        with transaction(self.engine) as session:
            row = queue.find_job(session, job.id)
            row.finished_at = tables.now()
            row.result = self._store_result(session, job, moved or work)
            queue.record_event(session, job.id, "succeeded", row.result)
        artifacts.clear_move_record(self.settings, job.id)
        if job.kind == "source":
            self._clear(job.id)  # the archive; its files are in the store

    def _store_result(self, session: Session, job: Job, folder: Path) -> dict[str, str]:
        """Move a finished job's result into the store; return its id and kind."""
        if job.kind == "doctor":
            return {"id": job.id, "kind": "doctor"}
        if job.kind == "source":
            made = store_fetched(self.settings, session, folder, job.parameters["url"])
        else:
            label = self._label(job)
            made = artifacts.store_folder(
                self.settings, session, folder, job_id=job.id, label=label
            )
        return {"id": made.id, "kind": made.kind}

    def _label(self, job: Job) -> str:
        with transaction(self.engine) as session:
            role = "source" if "source" in job.inputs else "dataset"
            return artifacts.find(session, job.inputs[role]).label

    def _fail(self, job_id: str, error: dict[str, Any], *, keeps_work: bool) -> NoReturn:
        """Record a job's failure; except after a refusal, its work is kept for the next job."""
        trace = error.pop("traceback", None)
        if not keeps_work:
            self._clear(job_id)
        while not self._is_settled(job_id, error, trace):  # until then the job counts as running
            self.stopping.wait(RETRY_S)
            self._hold_if_stopping()
        raise JobFailedError(error["text"])

    def _is_settled(self, job_id: str, error: dict[str, Any], trace: str | None) -> bool:
        """Record why a job failed; False while the database cannot be written, e.g. disk full."""
        try:
            with transaction(self.engine) as session:
                row = queue.find_job(session, job_id)
                row.error, row.finished_at = error, tables.now()
                if trace:
                    queue.record_event(session, job_id, "traceback", {"text": trace})
                queue.record_event(session, job_id, "failed", error)
        except OperationalError as failure:
            log.error("job failure cannot be recorded yet: %s: %s", job_id, failure.orig)
            return False
        return True

    def _record_event(self, job_id: str, event: str, data: dict[str, Any]) -> None:
        with transaction(self.engine) as session:
            queue.record_event(session, job_id, event, data)

    def _clear(self, job_id: str) -> None:
        shutil.rmtree(artifacts.work_folder(self.settings, job_id), ignore_errors=True)

    def _log_of(self, job_id: str) -> Path:
        return self.settings.home / "logs" / f"{job_id}.log"

    def stop(self) -> None:
        """Drain: start no jobs; running steps save and exit, and resume with the next worker."""
        self.stopping.set()
        for child in list(self.children.values()):
            stop_process_group(child, DRAIN_S)


def _progress(data: dict[str, Any]) -> dict[str, Any]:
    """The progress that a job shows: a share from 0 to 1 and its latest numbers."""
    done, total = data.get("done", data.get("step")), data.get("total", data.get("steps"))
    share = min(1.0, done / total) if done is not None and total else None
    return {"share": share, **data}


def _step_error(last: dict[str, Any], code: int, log_file: Path) -> dict[str, Any]:
    """The error of a step that refused its input (its message) or crashed (the end of its log)."""
    if last.get("event") == REFUSED:
        return {name: value for name, value in last.items() if name != "event" and value}
    tail = log_file.read_bytes()[-TRACEBACK_BYTES:].decode(errors="replace").strip()
    if code < 0:
        name = signal.Signals(-code).name
        remedy = "often out of memory: free some or reduce the request, and submit it again"
        error = UserError("the step was killed", found=name, remedy=remedy)
    else:
        error = UserError(
            "the step crashed", found=tail.splitlines()[-1][:300] if tail else f"exit code {code}",
            remedy="this is a bug, please report it; the traceback is in the job's events",
        )  # fmt: skip
    return {**error_fields(error), "text": str(error), "traceback": tail}


def _worker_error(error: Exception) -> dict[str, Any]:
    """The error of a job that failed outside its step's process."""
    trace = "".join(traceback.format_exception(error))[-TRACEBACK_BYTES:]
    shown = error if isinstance(error, UserError) else _as_user_error(error)
    return {**error_fields(shown), "text": str(shown), "traceback": trace}


def _as_user_error(error: Exception) -> UserError:
    return UserError(
        "the worker failed on this job", found=f"{type(error).__name__}: {error}"[:300],
        remedy="fix the cause, e.g. disk space or permissions, and submit the request again; it "
        "resumes",
    )  # fmt: skip


def launch(settings: Settings, share: Share) -> Executor:
    """Start taking jobs from the share's queues in the background."""
    executor = Executor(settings)
    config: DBOSConfig = {
        "name": queue.APPLICATION,
        "system_database_url": database_url(settings),
        "application_version": queue.APPLICATION_VERSION,
        "executor_id": share.executor,
        "log_level": "WARNING",
        "run_migrations": False,
        "notification_listener_polling_interval_sec": 5.0,
    }
    DBOS(config=config)

    @DBOS.step(name="run_step")
    def run_step(job_id: str) -> None:
        executor.run(job_id)

    @DBOS.workflow(name=queue.WORKFLOW, max_recovery_attempts=MAX_RECOVERIES)
    def run_job(job_id: str) -> None:
        run_step(job_id)

    DBOS.listen_queues(share.queues)
    DBOS.launch()
    for name in share.queues:
        DBOS.register_queue(name, worker_concurrency=1, polling_interval_sec=0.5)
    return executor


def main() -> None:
    """Run until SIGTERM or SIGINT; running jobs then resume later."""
    die_with_parent()
    logs.configure("worker")
    settings = Settings.from_environment()
    share = SHARES[os.environ.get(SHARE, "all")]
    migrate(settings)
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    busy = "another worker uses this data directory"
    lock = settings.home / share.lock
    with locked(lock, wait_s=30, busy=busy):
        lock.write_text(commit() or "")  # for /readyz, while the lock is held
        executor = launch(settings, share)
        log.info("ready")
        end.wait()
        executor.stop()
        logging.shutdown()
        os._exit(0)  # bypasses DBOS: the stopped steps must not count as failed


if __name__ == "__main__":
    main()
