"""Liveness and readiness."""

from typing import Literal

from fastapi import APIRouter, Response
from sqlalchemy import text

from app.access.route_roles import GuardedRoute
from app.access.service import ServiceDep
from app.ground.locks import is_locked
from app.jobs.process import WORKER_LOCK
from app.serving.predict_upload import predictor_is_ready
from app.store.db import transaction
from app.web.schemas import Ready
from dataset_rules.artifacts.provenance import commit

router = APIRouter(tags=["health"], route_class=GuardedRoute)


@router.get("/healthz")
def healthz() -> dict[str, Literal["ok"]]:
    """Whether the web process runs; never requires a token."""
    return {"status": "ok"}


@router.get("/readyz", responses={503: {"model": Ready}})
def readyz(service: ServiceDep, response: Response) -> Ready:
    """Whether database, worker and predictor are available, and their releases; 503 if one is not.

    The predictor is available once it has loaded the production model, if one exists.
    Requests from this machine need no token.
    """
    with transaction(service.engine) as session:
        session.execute(text("SELECT 1"))
    lock = service.settings.home / WORKER_LOCK
    has_worker = is_locked(lock)
    ready = Ready(
        database=True,
        worker=has_worker,
        predictor=predictor_is_ready(service.settings),
        release=commit(),
        worker_release=(lock.read_text() or None) if has_worker else None,
    )
    response.status_code = 200 if ready.worker and ready.predictor else 503
    return ready
