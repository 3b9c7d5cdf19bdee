"""The executor process: runs each job's step in a child process and stores the result.

A killed worker takes its child with it; the next one takes the job up where the child's
checkpoint stands. There is one worker to a home: it holds `worker.lock`. Where fetching from the
network is to be kept apart, a second process takes that queue alone and holds `fetcher.lock`.
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
from app.ground.errors import parts_of
from app.ground.locks import locked
from app.ground.settings import Settings
from app.jobs import queue
from app.jobs.fetching import keep_fetched
from app.jobs.process import (
    DRAIN_S,
    JOB,
    PARENT,
    SHARE,
    WORKER_LOCK,
    die_with_parent,
    end_group,
    end_leftovers,
    lines_of,
)
from app.jobs.steps import FINISHED, REFUSED, STOPPED, StepRequest
from app.store import artifacts, tables
from app.store.db import database_url, migrate, open_engine, transaction
from app.store.tables import Job
from dataset_rules.artifacts.manifest import is_artifact
from dataset_rules.artifacts.provenance import commit
from dataset_rules.ground.errors import UserError

log = logging.getLogger(__name__)

MOST_RECOVERIES = 1000  # of one job; kills are survived, an endless loop of crashes is not
ORDER_S = 1.0  # in which the end of this process is seen, where step and worker are both told
LOOK_EVERY_S = 0.5  # for a cancel, and at least this far apart lie two stored progress events
SETTLE_EVERY_S = 2.0  # a database that took no row is tried again
TRACEBACK_BYTES = 8_000
FREQUENT = {"step", "progress"}  # frequent events, of which some are enough


@dataclass(frozen=True)
class Share:
    """The part of the queues that one process works on."""

    queues: tuple[str, ...]
    executor: str  # pinned: a restarted process is the same one and takes up its own jobs
    lock: str


KEPT_APART = (queue.QUEUES["source"],)
WITHOUT_NETWORK = tuple(sorted({queue.SHORT_QUEUE, *queue.QUEUES.values()} - {*KEPT_APART}))
SHARES = {
    "all": Share((*WITHOUT_NETWORK, *KEPT_APART), "worker", WORKER_LOCK),
    "jobs": Share(WITHOUT_NETWORK, "worker", WORKER_LOCK),
    "fetching": Share(KEPT_APART, "fetcher", "fetcher.lock"),
}


class JobFailedError(Exception):
    """Ends the workflow of a failed job; what a person reads is in the job's row."""


class Executor:
    """Runs jobs on one home: what the workflows share."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.engine: Engine = open_engine(settings)
        self.client: DBOSClient = queue.open_client(self.engine)
        self.stopping = threading.Event()
        self.children: dict[str, subprocess.Popen[bytes]] = {}
        self._turns: dict[str, threading.Lock] = {}  # key of a request -> one job at a time

    def run(self, job_id: str) -> None:
        """Run the job's step to its end and store what it made.

        Raises:
            JobFailedError: if it has failed; why is in the job's row by then.
        """
        self._hold_if_stopping()
        try:
            self._work(job_id)
        except JobFailedError:
            raise
        except Exception as error:  # whatever it was: nobody else can say what became of the job
            self._hold_if_stopping()
            log.exception("job failed: %s", job_id)
            self._fail(job_id, _failure(error), is_kept=True)

    def _work(self, job_id: str) -> None:
        with transaction(self.engine) as session:
            job = queue.find_job(session, job_id)
        if job.result is not None:
            return
        if job.error is not None:  # settled by a worker that ended before the queue heard of it
            raise JobFailedError(job.error["text"])
        with self._turns.setdefault(job.key, threading.Lock()):
            self._make(job)

    def _make(self, job: Job) -> None:
        end_leftovers(job.id)
        self._take_over(job)
        if artifacts.moved_folder(self.settings, job.id) is None:
            self._run_step(job)
        self._keep(job)

    def _take_over(self, job: Job) -> None:
        """Go on with what an earlier job for the same request had done when it failed."""
        with transaction(self.engine) as session:
            earlier = [row for row in queue.same_request(session, job) if row.id != job.id]
        for row in earlier:
            end_leftovers(row.id)
            if row.result is None and artifacts.hand_over(self.settings, row.id, job.id):
                return

    def _run_step(self, job: Job) -> None:
        code = STOPPED
        while code == STOPPED and not self._is_cancelled(job.id):  # told to end, but not we
            self._tell(job.id, "started", {"kind": job.kind, "release": commit()})
            last, code = self._run_child(job)
        if self._is_cancelled(job.id):
            self._clear(job.id)
            raise JobFailedError("cancelled")
        if code != 0 or last.get("event") != FINISHED:
            error = _why(last, code, self._log_of(job.id))
            self._fail(job.id, error, is_kept="traceback" in error)

    def _run_child(self, job: Job) -> tuple[dict[str, Any], int]:
        """The last event of the step's process and its exit status.

        However this ends, no process works for the job any more.
        """
        request = self._request(job)
        child = self._start(job)
        try:
            self._send(child, request)
            last = self._follow(job, child)
            code = child.wait()
            if code != 0:
                self.stopping.wait(ORDER_S)
        finally:
            self._hold_if_stopping()
            end_group(child, patience_s=0)
            self.children.pop(job.id, None)
            end_leftovers(job.id)
        return last, code

    def _hold_if_stopping(self) -> None:
        if self.stopping.is_set():  # the process ends now; the job stays ours and goes on later
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
        with suppress(BrokenPipeError), child.stdin as pipe:  # then its exit code tells more
            pipe.write(request.line() + b"\n")

    def _request(self, job: Job) -> StepRequest:
        with transaction(self.engine) as session:
            inputs = {
                role: str(artifacts.place(self.settings, artifacts.find(session, name)))
                for role, name in job.inputs.items()
            }
        work = artifacts.work_folder(self.settings, job.id)
        return StepRequest(job.kind, str(work), inputs, job.parameters)

    def _follow(self, job: Job, child: subprocess.Popen[bytes]) -> dict[str, Any]:
        """Store what the child tells until it ends; its last event. Ends it when it is to stop."""
        assert child.stdout is not None
        last: dict[str, Any] = {}
        waiting: dict[str, Any] | None = None  # a frequent event, not stored yet
        stored_at = asked_at = 0.0
        for line in lines_of(child, child.stdout):
            now = time.monotonic()
            if line is not None:
                last = json.loads(line)
                if last["event"] in FREQUENT and now - stored_at < LOOK_EVERY_S:
                    waiting = last
                    continue
                if waiting and last["event"] not in FREQUENT:
                    self._store_event(job.id, waiting)
                self._store_event(job.id, last)
                waiting, stored_at = None, now
            if now - asked_at > LOOK_EVERY_S:
                asked_at = now
                if self._is_cancelled(job.id):
                    end_group(child, patience_s=0)
        return last

    def _is_cancelled(self, job_id: str) -> bool:
        return queue.state_of(self.client, job_id) is queue.State.CANCELLED

    def _store_event(self, job_id: str, event: dict[str, Any]) -> None:
        data = {name: value for name, value in event.items() if name != "event"}
        with transaction(self.engine) as session:
            if event["event"] in FREQUENT:
                queue.find_job(session, job_id).progress = _progress(data)
            if event["event"] not in {FINISHED, REFUSED}:
                queue.tell(session, job_id, event["event"], data)

    def _keep(self, job: Job) -> None:
        work = artifacts.work_folder(self.settings, job.id)
        moved = artifacts.moved_folder(self.settings, job.id)
        if moved is None and is_artifact(work):
            artifacts.note_move(self.settings, job.id, artifacts.artifact_id(work))
        with transaction(self.engine) as session:
            row = queue.find_job(session, job.id)
            row.finished_at = tables.now()
            row.result = self._stored(session, job, moved or work)
            queue.tell(session, job.id, "succeeded", row.result)
        artifacts.forget_move(self.settings, job.id)
        if job.kind == "source":
            self._clear(job.id)  # the archive: its files are in the store

    def _stored(self, session: Session, job: Job, folder: Path) -> dict[str, str]:
        """What a finished job has made, in the store."""
        if job.kind == "doctor":
            return {"id": job.id, "kind": "doctor"}
        if job.kind == "source":
            made = keep_fetched(self.settings, session, folder, job.parameters["url"])
        else:
            label = self._label(job)
            made = artifacts.keep_folder(self.settings, session, folder, job_id=job.id, label=label)
        return {"id": made.id, "kind": made.kind}

    def _label(self, job: Job) -> str:
        with transaction(self.engine) as session:
            role = "source" if "source" in job.inputs else "dataset"
            return artifacts.find(session, job.inputs[role]).label

    def _fail(self, job_id: str, error: dict[str, Any], *, is_kept: bool) -> NoReturn:
        """Settle a failed job; after anything but a refusal its work is kept for the next one."""
        trace = error.pop("traceback", None)
        if not is_kept:
            self._clear(job_id)
        while not self._is_settled(job_id, error, trace):  # till then the job counts as running
            self.stopping.wait(SETTLE_EVERY_S)
            self._hold_if_stopping()
        raise JobFailedError(error["text"])

    def _is_settled(self, job_id: str, error: dict[str, Any], trace: str | None) -> bool:
        """Write down why a job failed; False while the database takes nothing, say when full."""
        try:
            with transaction(self.engine) as session:
                row = queue.find_job(session, job_id)
                row.error, row.finished_at = error, tables.now()
                if trace:
                    queue.tell(session, job_id, "traceback", {"text": trace})
                queue.tell(session, job_id, "failed", error)
        except OperationalError as refusal:
            log.error("job cannot be settled yet: %s: %s", job_id, refusal.orig)
            return False
        return True

    def _tell(self, job_id: str, event: str, data: dict[str, Any]) -> None:
        with transaction(self.engine) as session:
            queue.tell(session, job_id, event, data)

    def _clear(self, job_id: str) -> None:
        shutil.rmtree(artifacts.work_folder(self.settings, job_id), ignore_errors=True)

    def _log_of(self, job_id: str) -> Path:
        return self.settings.home / "logs" / f"{job_id}.log"

    def stop(self) -> None:
        """Drain: no new jobs; running steps save and end, and go on with the next worker."""
        self.stopping.set()
        for child in list(self.children.values()):
            end_group(child, DRAIN_S)


def _progress(data: dict[str, Any]) -> dict[str, Any]:
    """What a job shows of how far it is: a share of 1 and the numbers that it told last."""
    done, total = data.get("done", data.get("step")), data.get("total", data.get("steps"))
    share = min(1.0, done / total) if done is not None and total else None
    return {"share": share, **data}


def _why(last: dict[str, Any], code: int, log_file: Path) -> dict[str, Any]:
    """The error of a job whose step refused (its own words) or crashed (the end of its log)."""
    if last.get("event") == REFUSED:
        return {name: value for name, value in last.items() if name != "event" and value}
    tail = log_file.read_bytes()[-TRACEBACK_BYTES:].decode(errors="replace").strip()
    if code < 0:
        name = signal.Signals(-code).name
        remedy = "often too little memory: free some, or ask for less, and submit it again"
        error = UserError("the step was killed", found=name, remedy=remedy)
    else:
        error = UserError(
            "the step crashed", found=tail.splitlines()[-1][:300] if tail else f"exit code {code}",
            remedy="the traceback is in the job's events; this is our mistake, please report it",
        )  # fmt: skip
    return {**parts_of(error), "text": str(error), "traceback": tail}


def _failure(error: Exception) -> dict[str, Any]:
    """The error of a job that failed outside of its step's process."""
    trace = "".join(traceback.format_exception(error))[-TRACEBACK_BYTES:]
    said = error if isinstance(error, UserError) else _said(error)
    return {**parts_of(said), "text": str(said), "traceback": trace}


def _said(error: Exception) -> UserError:
    return UserError(
        "the worker failed at this job", found=f"{type(error).__name__}: {error}"[:300],
        remedy="mend what it names, say free space or rights, and submit it again: it goes on "
        "from there",
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

    @DBOS.workflow(name=queue.WORKFLOW, max_recovery_attempts=MOST_RECOVERIES)
    def run_job(job_id: str) -> None:
        run_step(job_id)

    DBOS.listen_queues(share.queues)
    DBOS.launch()
    for name in share.queues:
        DBOS.register_queue(name, worker_concurrency=1, polling_interval_sec=0.5)
    return executor


def main() -> None:
    """Run until SIGTERM or SIGINT; jobs that are running then stay and go on later."""
    die_with_parent()
    logs.configure("worker")
    settings = Settings.from_environment()
    share = SHARES[os.environ.get(SHARE, "all")]
    migrate(settings)
    end = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: end.set())
    busy = "another worker runs on this home"
    lock = settings.home / share.lock
    with locked(lock, wait_s=30, busy=busy):
        lock.write_text(commit() or "")  # for /readyz, as long as the lock is held
        executor = launch(settings, share)
        log.info("ready")
        end.wait()
        executor.stop()
        logging.shutdown()
        os._exit(0)  # not through DBOS: the steps that we ended must not count as failed


if __name__ == "__main__":
    main()
