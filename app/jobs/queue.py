"""Durable jobs: submit, query, cancel. The worker runs them; DBOS keeps their state."""

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from dbos import DBOSClient, EnqueueOptions
from sqlalchemy import Engine, select, text
from sqlalchemy.orm import Session

from app.access.service import Service
from app.ground.errors import Conflict, NotFound, error_fields
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
APPLICATION_VERSION = "1"  # pinned: a new release continues the jobs of the old one
WORKFLOW = "run_job"
# Kind -> queue; other kinds go to the short queue. A slow server delays no other work.
QUEUES = {"run": "training", "source": "fetching"}
SHORT_QUEUE = "steps"
# Kind -> version of the step: only a step whose version changed runs again.
VERSIONS = {
    "doctor": DOCTOR_VERSION,
    "dataset": DATASET_VERSION,
    "run": RUN_VERSION,
    "source": SOURCE_VERSION,
}
MAX_EVENTS = 1000  # per response


class State(StrEnum):
    """State of a job; the last three are final."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """True if the state cannot change any more."""
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
    """A client of the job queue in the service's database."""
    return DBOSClient(system_database_engine=engine, application_name=APPLICATION)


def submit(
    service: Service, kind: str, *,
    inputs: Mapping[str, str], parameters: Mapping[str, Any], rerun: bool = False,
) -> Job:  # fmt: skip
    """The job for this request: one that is queued, running or succeeded, else a new one.

    A succeeded job does not count if its result is gone or altered, or with `rerun`, since its
    input may have changed.
    """
    key, client = request_key(kind, inputs, parameters), service.client
    lost = None if rerun else _job_without_result(service, key)
    with transaction(service.engine) as session:
        session.execute(text("BEGIN IMMEDIATE"))  # of two equal requests the later sees the earlier
        known = next(iter(_with_key(session, key)), None)
        ignored = {State.FAILED, State.CANCELLED}
        if known and (rerun or known.id == lost):
            ignored.add(State.SUCCEEDED)
        if known and job_state(client, known.id) not in ignored:
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


def _job_without_result(service: Service, key: str) -> str | None:
    """The newest job for a request, if its result is gone or altered.

    This reads every byte, so it runs outside the transaction that others wait for.
    """
    with transaction(service.engine) as session:
        known = next(iter(_with_key(session, key)), None)
        if known is None or known.result is None:
            return None
        made = artifacts.result_path(service.settings, session, known)
    return None if made and artifacts.is_intact(made) else known.id


def request_key(
    kind: str, inputs: Mapping[str, str], parameters: Mapping[str, Any], *,
    version: int | None = None,
) -> str:  # fmt: skip
    """SHA-256 of a request and the version of its step, by default the current one.

    Older releases used the version of the whole package instead: their jobs stay unchanged, and
    repeating such a request starts a new job.
    """
    request = {
        "kind": kind,
        "inputs": dict(inputs),
        "parameters": dict(parameters),
        "step_version": VERSIONS[kind] if version is None else version,
    }
    return hashlib.sha256(canonical_json(request)).hexdigest()


def jobs_for_same_request(session: Session, job: Job) -> list[Job]:
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


def job_state(client: DBOSClient, job_id: str) -> State:
    """The state of one job."""
    return job_states(client, [job_id])[job_id]


def job_states(client: DBOSClient, job_ids: Iterable[str]) -> dict[str, State]:
    """Job id -> state."""
    wanted = list(job_ids)
    if not wanted:
        return {}
    found = client.list_workflows(workflow_ids=wanted, load_input=False, load_output=False)
    return {workflow.workflow_id: STATES[workflow.status] for workflow in found}


def job_error(job: Job, state: State) -> dict[str, Any] | None:
    """Why a job failed; if no reason could be recorded, where to look for it."""
    if state is not State.FAILED or job.error is not None:
        return job.error
    error = UserError(
        "the job ended without a recorded reason", where=job.id,
        remedy="its worker was stopped repeatedly or could not write; see its log",
    )  # fmt: skip
    return {**error_fields(error), "text": str(error)}


def list_jobs(session: Session, *, kind: str | None = None, limit: int = 100) -> list[Job]:
    """Jobs, newest first."""
    rows = select(Job).order_by(Job.created_at.desc()).limit(limit)
    return list(session.scalars(rows.where(Job.kind == kind) if kind else rows))


def cancel(engine: Engine, client: DBOSClient, job_id: str) -> None:
    """Cancel a job; the worker stops its process within a second.

    Raises:
        Conflict: if the job has ended already.
    """
    before = job_state(client, job_id)
    if not before.is_final:
        client.cancel_workflow(job_id)
    after = job_state(client, job_id)
    if after is not State.CANCELLED:
        raise Conflict("the job has ended already", where=job_id, found=after)
    if before is not State.CANCELLED:
        with transaction(engine) as session:
            find_job(session, job_id).finished_at = tables.now()
            record_event(session, job_id, "cancelled", {})


def record_event(session: Session, job_id: str, event: str, data: Mapping[str, Any]) -> None:
    """Store an event of a job."""
    session.add(JobEvent(job_id=job_id, event=event, data=dict(data)))


def events_after(session: Session, job_id: str, after: int) -> list[JobEvent]:
    """Events of a job after the given event id, oldest first, at most `MAX_EVENTS`."""
    rows = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.id > after)
    return list(session.scalars(rows.order_by(JobEvent.id).limit(MAX_EVENTS)))
