"""Runs: start a training, list and read runs."""

from fastapi import APIRouter, Response
from sqlalchemy.orm import Session

from app.access.route_roles import GuardedRoute, requires_role
from app.access.service import Service, ServiceDep
from app.access.tokens import Role
from app.ground.errors import NotFound, Unprocessable
from app.jobs import queue
from app.store import artifacts
from app.store.db import transaction
from app.store.tables import Artifact, Job
from app.web.schemas import Made, RunRequest, RunView
from app.web.views import artifact_links, job_links, job_response

router = APIRouter(prefix="/runs", tags=["runs"], route_class=GuardedRoute)


@router.post("", status_code=202)
@requires_role(Role.ADMIN)
def create_run(service: ServiceDep, request: RunRequest, response: Response) -> Made:
    """Train within the time limit; repeating a request returns the same job."""
    with transaction(service.engine) as session:
        inputs = {"dataset": artifacts.find(session, request.dataset, kind="dataset").id}
    parameters = {"time_limit_s": request.time_limit_s, "seed": request.seed}
    job = queue.submit(service, "run", inputs=inputs, parameters=parameters)
    return job_response(job, queue.job_state(service.client, job.id), response)


@router.get("")
def list_runs(service: ServiceDep) -> list[RunView]:
    """All runs, newest first, including queued, running and failed ones."""
    with transaction(service.engine) as session:
        rows = queue.list_jobs(session, kind="run", limit=500)
        trained_elsewhere = [
            row for row in artifacts.list_artifacts(session, "run") if row.job_id is None
        ]
        views = [_finished_view(session, row) for row in trained_elsewhere]
    states = queue.job_states(service.client, (job.id for job in rows))
    views += [_view(service, job, states[job.id]) for job in rows]
    return sorted(views, key=lambda view: view.created_at, reverse=True)


@router.get("/{run_id}")
def read_run(service: ServiceDep, run_id: str) -> RunView:
    """One run, by its id or that of its job; the job's events contain the learning curves."""
    with transaction(service.engine) as session:
        artifact = session.get(Artifact, run_id)
        job = session.get(Job, (artifact and artifact.job_id) or run_id)
        if artifact is not None and artifact.kind == "run" and job is None:
            return _finished_view(session, artifact)
    if job is None:
        raise NotFound("no such run", where=run_id, remedy="GET /api/v1/runs lists them")
    if job.kind != "run":
        raise Unprocessable("wrong kind of job", where=run_id, expected="run", found=job.kind)
    return _view(service, job, queue.job_state(service.client, job.id))


def _view(service: Service, job: Job, state: queue.State) -> RunView:
    """The response body of a run, from its job."""
    run = model = None
    if state is queue.State.SUCCEEDED and job.result:
        run = job.result["id"]
        with transaction(service.engine) as session:
            model = artifacts.find_model(session, run).id
    return RunView(
        id=job.id, status=state, job=job.id, run=run, model=model, progress=job.progress,
        error=queue.job_error(job, state), parameters=job.parameters, created_at=job.created_at,
        links=job_links(job),
    )  # fmt: skip


def _finished_view(session: Session, row: Artifact) -> RunView:
    """The response body of a run that was trained on the command line and imported."""
    return RunView(
        id=row.id, status=queue.State.SUCCEEDED, run=row.id, created_at=row.created_at,
        model=artifacts.find_model(session, row.id).id, links=artifact_links(row),
    )  # fmt: skip
