"""Durable jobs: submit, look at, cancel. The worker runs them; DBOS keeps their state."""

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from dbos import DBOSClient, EnqueueOptions
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from app.access.service import Service
from app.ground.errors import Conflict, NotFound, parts_of
from app.jobs.fetching import VERSION as SOURCE_VERSION
from app.store import artifacts, tables
from app.store.db import transaction
from app.store.tables import Job, JobEvent
from dataset_rules.doctor.examine import VERSION as DOCTOR_VERSION
from dataset_rules.formatting.format import VERSION as DATASET_VERSION
from dataset_rules.ground.documents import canonical_json
from dataset_rules.ground.errors import UserError
from unet.planning.plan import RUN_VERSION

APPLICATION = "unetops"
APPLICATION_VERSION = "1"  # pinned: a new release takes up the jobs that the old one left
WORKFLOW = "run_job"
# Kind -> queue; every other kind goes to the short queue. A slow server holds up no other work.
QUEUES = {"run": "training", "source": "fetching"}
SHORT_QUEUE = "steps"
# Kind -> version of the step: a step that was mended is done again, each other one is not.
VERSIONS = {
    "doctor": DOCTOR_VERSION,
    "dataset": DATASET_VERSION,
    "run": RUN_VERSION,
    "source": SOURCE_VERSION,
}
MOST_EVENTS = 1000  # in one answer


class State(StrEnum):
    """Where a job is; it never leaves one of the last three."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if nothing can change any more."""
        return self not in {State.QUEUED, State.RUNNING}


STATES = {
    "ENQUEUED": State.QUEUED,
    "DELAYED": State.QUEUED,
    "PENDING": State.RUNNING,
    "SUCCESS": State.SUCCEEDED,
    "ERROR": State.FAILED,
    "MAX_RECOVERY_ATTEMPTS_EXCEEDED": State.FAILED,
    "CANCELLED": State.CANCELLED,
}


def open_client(engine: Engine) -> DBOSClient:
    """A client of the job queue on our database."""
    return DBOSClient(system_database_engine=engine, application_name=APPLICATION)


def submit(
    here: Service, kind: str, *,
    inputs: Mapping[str, str], parameters: Mapping[str, Any], rerun: bool = False,
) -> Job:  # fmt: skip
    """The job for this request: the one that waits, runs or has succeeded, else a new one.

    One that has succeeded does not count where what it made is gone or altered, nor with
    `rerun`: what it read may have changed.
    """
    key, client = request_key(kind, inputs, parameters), here.client
    lost = None if rerun else _lost(here, key)
    with transaction(here.engine) as session:
        session.execute(text("BEGIN IMMEDIATE"))  # of two equal requests the later sees the first
        known = next(iter(_with_key(session, key)), None)
        over = {State.FAILED, State.CANCELLED}
        if known and (rerun or known.id == lost):
            over.add(State.SUCCEEDED)
        if known and state_of(client, known.id) not in over:
            return known
        job = Job(
            id=uuid.uuid4().hex, key=key, kind=kind, inputs=dict(inputs),
            parameters=dict(parameters), created_at=tables.now(),
        )  # fmt: skip
        session.add(job)
        session.flush()
        options: EnqueueOptions = {
            "workflow_name": WORKFLOW,
            "queue_name": QUEUES.get(kind, SHORT_QUEUE),
            "workflow_id": job.id,
            "app_version": APPLICATION_VERSION,
        }
        client.enqueue_in_transaction(session, options, job.id)
        return job


def _lost(here: Service, key: str) -> str | None:
    """The newest job for a request, if what it made is not (any more) what it was.

    Every byte is read, so this is asked outside of the transaction that others wait for.
    """
    with transaction(here.engine) as session:
        known = next(iter(_with_key(session, key)), None)
        if known is None or known.result is None:
            return None
        made = artifacts.made_by(here.settings, session, known)
    return None if made and artifacts.is_intact(made) else known.id


def request_key(
    kind: str, inputs: Mapping[str, str], parameters: Mapping[str, Any], *,
    version: int | None = None,
) -> str:  # fmt: skip
    """SHA-256 of what is asked for and of the version of the step that does it, today's by default.

    Releases before this key put the version of the whole package there: their jobs stay as they
    are, and a request of that time is a new one.
    """
    request = {
        "kind": kind,
        "inputs": dict(inputs),
        "parameters": dict(parameters),
        "step_version": VERSIONS[kind] if version is None else version,
    }
    return hashlib.sha256(canonical_json(request)).hexdigest()


def same_request(session: Session, job: Job) -> list[Job]:
    """All jobs for the same request, newest first."""
    return _with_key(session, job.key)


def _with_key(session: Session, key: str) -> list[Job]:
    rows = select(Job).where(Job.key == key)
    return list(session.scalars(rows.order_by(Job.created_at.desc())))


def find_job(session: Session, job_id: str) -> Job:
    """The job with this id; raises `NotFound`."""
    job = session.get(Job, job_id)
    if job is None:
        raise NotFound("no such job", where=job_id, remedy="GET /api/v1/jobs lists them")
    return job


def state_of(client: DBOSClient, job_id: str) -> State:
    """The state of one job."""
    return states_of(client, [job_id])[job_id]


def states_of(client: DBOSClient, job_ids: Iterable[str]) -> dict[str, State]:
    """Job id -> state."""
    wanted = list(job_ids)
    if not wanted:
        return {}
    found = client.list_workflows(workflow_ids=wanted, load_input=False, load_output=False)
    return {workflow.workflow_id: STATES[workflow.status] for workflow in found}


def error_of(job: Job, state: State) -> dict[str, Any] | None:
    """Why a job failed; of one that nobody could write a reason for, where to look for it."""
    if state is not State.FAILED or job.error is not None:
        return job.error
    error = UserError(
        "the job ended without saying why", where=job.id,
        remedy="its worker was ended again and again, or could not write; its log says why",
    )  # fmt: skip
    return {**parts_of(error), "text": str(error)}


def newest(session: Session, *, kind: str | None = None, limit: int = 100) -> list[Job]:
    """Jobs, newest first."""
    rows = select(Job).order_by(Job.created_at.desc()).limit(limit)
    return list(session.scalars(rows.where(Job.kind == kind) if kind else rows))


def cancel(engine: Engine, client: DBOSClient, job_id: str) -> None:
    """Cancel a job; the worker stops its process within a second.

    Raises:
        Conflict: if the job has ended already.
    """
    before = state_of(client, job_id)
    if not before.is_final:
        client.cancel_workflow(job_id)
    after = state_of(client, job_id)
    if after is not State.CANCELLED:
        raise Conflict("the job has ended already", where=job_id, found=after)
    if before is not State.CANCELLED:
        with transaction(engine) as session:
            find_job(session, job_id).finished_at = tables.now()
            tell(session, job_id, "cancelled", {})


def tell(session: Session, job_id: str, event: str, data: Mapping[str, Any]) -> None:
    """Write down what a job says."""
    session.add(JobEvent(job_id=job_id, event=event, data=dict(data)))


def events_after(session: Session, job_id: str, after: int) -> list[JobEvent]:
    """Events of a job behind the given event id, oldest first, at most `MOST_EVENTS`."""
    rows = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after)
    return list(session.scalars(rows.order_by(JobEvent.id).limit(MOST_EVENTS)))
