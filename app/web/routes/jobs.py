"""Jobs: list, read, follow, cancel."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import APIRouter, Header, Query, Request
from fastapi.responses import Response, StreamingResponse
from starlette.concurrency import run_in_threadpool

from app.access.route_roles import GuardedRoute, requires_role
from app.access.service import Service, ServiceDep
from app.access.tokens import Role
from app.jobs import queue
from app.store.db import transaction
from app.web.schemas import Events, JobView
from app.web.views import event_view, job_view

router = APIRouter(prefix="/jobs", tags=["jobs"], route_class=GuardedRoute)
POLL_S = 0.5
STREAM = "text/event-stream"


@router.get("")
def list_jobs(
    service: ServiceDep, limit: Annotated[int, Query(ge=1, le=500)] = 100
) -> list[JobView]:
    """Jobs, newest first."""
    with transaction(service.engine) as session:
        rows = queue.list_jobs(session, limit=limit)
    states = queue.job_states(service.client, (job.id for job in rows))
    return [job_view(job, states[job.id]) for job in rows]


@router.get("/{job_id}")
def read_job(service: ServiceDep, job_id: str) -> JobView:
    """One job: status, progress, result, error."""
    return _view(service, job_id)


@router.get("/{job_id}/events", response_model=Events, responses={200: {"content": {STREAM: {}}}})
async def read_events(
    request: Request, service: ServiceDep, job_id: str,
    after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    accept: Annotated[str, Header()] = "", last_event_id: Annotated[str, Header()] = "",
) -> Events | Response:  # fmt: skip
    """Events of the job so far; with `Accept: text/event-stream`, a live stream until it ends."""
    if STREAM not in accept:
        return await run_in_threadpool(_events, service, job_id, after)
    await run_in_threadpool(_view, service, job_id)  # an unknown job is a 404, not an empty stream
    is_number = last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) < 19
    start = int(last_event_id) if is_number else after
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(_stream(service, job_id, start), media_type=STREAM, headers=headers)


@router.post("/{job_id}/cancel")
@requires_role(Role.ADMIN)
def cancel_job(service: ServiceDep, job_id: str) -> JobView:
    """Cancel a queued or running job; the worker stops its process within a second."""
    _view(service, job_id)
    queue.cancel(service.engine, service.client, job_id)
    return _view(service, job_id)


def _view(service: Service, job_id: str) -> JobView:
    with transaction(service.engine) as session:
        job = queue.find_job(session, job_id)
    return job_view(job, queue.job_state(service.client, job_id))


def _events(service: Service, job_id: str, after: int) -> Events:
    state = queue.job_state(service.client, _view(service, job_id).id)
    with transaction(service.engine) as session:
        found = [event_view(event) for event in queue.events_after(session, job_id, after)]
    return Events(events=found, next=found[-1].id if found else after, status=state)


async def _stream(service: Service, job_id: str, after: int) -> AsyncIterator[str]:
    """Events as they arrive; the last one is `end` with the job itself."""
    while True:
        batch = await run_in_threadpool(_events, service, job_id, after)
        for event in batch.events:
            yield f"id: {event.id}\nevent: {event.event}\ndata: {event.model_dump_json()}\n\n"
        after = batch.next
        if batch.status.is_final and not batch.events:
            view = await run_in_threadpool(_view, service, job_id)
            yield f"event: end\ndata: {view.model_dump_json()}\n\n"
            return
        yield f": {json.dumps(batch.status)}\n\n"  # a comment, to keep the connection alive
        await asyncio.sleep(POLL_S)
