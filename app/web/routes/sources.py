"""Sources: upload, download, list, examine."""

from typing import Any

from fastapi import APIRouter, Response

from app.access.route_roles import GuardedRoute, requires_role
from app.access.service import Service, ServiceDep
from app.access.tokens import Role
from app.ground.errors import Unprocessable
from app.jobs import queue
from app.jobs.examinations import find_examination
from app.store import artifacts
from app.store.archives import store_archive
from app.store.db import transaction
from app.store.tables import Job
from app.web.schemas import ArtifactView, DoctorRequest, Made, SourceRequest
from app.web.uploads import SourceBody, source_bodies
from app.web.views import artifact_response, artifact_view, job_response
from dataset_rules.sources.address import address_of

router = APIRouter(prefix="/sources", tags=["sources"], route_class=GuardedRoute)


@router.post("", status_code=201, openapi_extra=source_bodies())
@requires_role(Role.ANNOTATOR, takes_file=True)
def create_source(service: ServiceDep, body: SourceBody, response: Response) -> Made:
    """Upload a folder as zip or tar, or pass an https URL, which a job downloads (202).

    Equal content is stored once.
    """
    if isinstance(body, SourceRequest):
        response.status_code = 202
        return job_response(*submit_fetch(service, body.url), response)
    return Made(
        **artifact_response(store_archive(service.settings, service.engine, body), response)
    )


@router.get("")
def list_sources(service: ServiceDep) -> list[ArtifactView]:
    """All sources, newest first."""
    with transaction(service.engine) as session:
        return [artifact_view(row) for row in artifacts.list_artifacts(session, "source")]


@router.get("/{source_id}")
def read_source(service: ServiceDep, source_id: str) -> ArtifactView:
    """One source."""
    with transaction(service.engine) as session:
        return artifact_view(artifacts.find(session, source_id, kind="source"))


@router.post("/{source_id}/doctor", status_code=202)
@requires_role(Role.ANNOTATOR)
def examine_source(
    service: ServiceDep, source_id: str, response: Response, request: DoctorRequest | None = None
) -> Made:
    """Examine a source with the doctor; `links.result` is the report."""
    rules = request.rules if request else None
    return job_response(*submit_doctor(service, source_id, rules), response)


@router.get("/{source_id}/doctor")
def read_report(service: ServiceDep, source_id: str, job: str | None = None) -> dict[str, Any]:
    """The doctor's report on this source, as printed by `unetops doctor --json`.

    By the given job, by default the newest.
    """
    return find_examination(service, source_id, job).document


def submit_fetch(service: Service, url: str) -> tuple[Job, queue.State]:
    """A new job that downloads an archive, even if the URL is known: its content may change."""
    address = address_of(url)
    if address.has_password:
        raise Unprocessable(
            "the password in the URL would be stored with the job", where=address.redacted,
            remedy="upload the file, or use a URL without a password",
        )  # fmt: skip
    job = queue.submit(service, "source", inputs={}, parameters={"url": url}, rerun=True)
    return job, queue.job_state(service.client, job.id)


def submit_doctor(service: Service, source_id: str, rules: str | None) -> tuple[Job, queue.State]:
    """The job that examines the source."""
    with transaction(service.engine) as session:
        inputs = {"source": artifacts.find(session, source_id, kind="source").id}
        if rules:
            inputs["rules"] = artifacts.find(session, rules, kind="rules").id
    job = queue.submit(service, "doctor", inputs=inputs, parameters={})
    return job, queue.job_state(service.client, job.id)
