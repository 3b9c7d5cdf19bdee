"""Database rows -> response bodies with links."""

from typing import Any

from fastapi import Response

from app.jobs.queue import State, job_error
from app.store.tables import Artifact, Job, JobEvent
from app.web.schemas import ArtifactView, EventView, JobView, Made

API = "/api/v1"
PLURALS = {
    "rules": "rules",
    "source": "sources",
    "dataset": "datasets",
    "run": "runs",
    "model": "models",
    "prediction": "predictions",
    "measurements": "measurements",
}


def artifact_links(row: Artifact) -> dict[str, str]:
    """URLs of an artifact and its parts."""
    url = f"{API}/{PLURALS[row.kind]}/{row.id}"
    links = {"self": url, "lineage": f"{API}/lineage/{row.id}"}
    if row.kind == "dataset":
        links |= {"samples": f"{url}/samples", "export": f"{url}/export"}
    if "mask" in row.facts:
        links |= {name: f"{url}/{name}" for name in ("mask", "instances", "image", "overlay")}
    if row.kind == "source":
        links |= {"doctor": f"{url}/doctor"}
    if row.kind == "measurements":
        links |= {name: f"{url}/{name}" for name in ("report", "table", "document")}
    if row.job_id:
        links["job"] = f"{API}/jobs/{row.job_id}"
    return links


def artifact_fields(row: Artifact) -> dict[str, Any]:
    """The fields of `ArtifactView`."""
    return {
        "id": row.id, "kind": row.kind, "record": row.record, "label": row.label,
        "facts": row.facts, "job": row.job_id, "created_at": row.created_at,
        "links": artifact_links(row),
    }  # fmt: skip


def artifact_view(row: Artifact) -> ArtifactView:
    """The response body of an artifact."""
    return ArtifactView(**artifact_fields(row))


def artifact_response(row: Artifact, response: Response) -> dict[str, Any]:
    """The fields of `Made` for a finished artifact; sets `Location`."""
    links = artifact_links(row)
    response.headers["Location"] = links["self"]
    return {
        "id": row.id, "kind": row.kind, "status": State.SUCCEEDED, "job": row.job_id,
        "links": links,
    }  # fmt: skip


def job_response(job: Job, state: State, response: Response) -> Made:
    """The response to a request with a new or existing job; sets `Location`."""
    links = job_links(job)
    response.headers["Location"] = links["self"]
    return Made(id=job.id, kind=job.kind, status=state, job=job.id, links=links)


def job_links(job: Job) -> dict[str, str]:
    """URLs of a job, its events and its result."""
    url = f"{API}/jobs/{job.id}"
    links = {"self": url, "events": f"{url}/events", "cancel": f"{url}/cancel"}
    if job.kind in PLURALS:
        links["result"] = f"{API}/{PLURALS[job.kind]}/{job.id}"
    elif job.kind == "doctor":
        links["result"] = f"{API}/sources/{job.inputs['source']}/doctor?job={job.id}"
    return links


def job_fields(job: Job, state: State) -> dict[str, Any]:
    """The fields of `JobView`."""
    return {
        "id": job.id, "kind": job.kind, "status": state, "progress": job.progress,
        "result": job.result if state is State.SUCCEEDED else None,
        "error": job_error(job, state),
        "inputs": job.inputs, "parameters": job.parameters, "created_at": job.created_at,
        "finished_at": job.finished_at, "links": job_links(job),
    }  # fmt: skip


def job_view(job: Job, state: State) -> JobView:
    """The response body of a job."""
    return JobView(**job_fields(job, state))


def event_view(event: JobEvent) -> EventView:
    """The response body of an event."""
    return EventView(id=event.id, at=event.at, event=event.event, data=event.data)
