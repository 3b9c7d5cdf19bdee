"""Measurements: list, look at, take away as table or page."""

from fastapi import APIRouter
from fastapi.responses import FileResponse

from app.access.route_roles import Guarded
from app.access.service import Here, Service
from app.store import artifacts
from app.store.db import transaction
from app.web.schemas import ArtifactView
from app.web.views import artifact_view

router = APIRouter(prefix="/measurements", tags=["measurements"], route_class=Guarded)

# The page brings its own style and pictures and runs no script.
REPORT_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


@router.get("")
def list_measurements(here: Here) -> list[ArtifactView]:
    """All measurements, newest first."""
    with transaction(here.engine) as session:
        return [artifact_view(row) for row in artifacts.listed(session, "measurements")]


@router.get("/{measurements_id}")
def read_measurements(here: Here, measurements_id: str) -> ArtifactView:
    """One artifact of measurements."""
    with transaction(here.engine) as session:
        return artifact_view(artifacts.find(session, measurements_id, kind="measurements"))


@router.get("/{measurements_id}/report", response_class=FileResponse)
def read_report(here: Here, measurements_id: str) -> FileResponse:
    """The page with scores, tables and outlined objects; it needs nothing beside itself."""
    return _file(here, measurements_id, "report.html", headers=REPORT_HEADERS)


@router.get("/{measurements_id}/table", response_class=FileResponse)
def read_table(here: Here, measurements_id: str) -> FileResponse:
    """One row an object, CSV; each row carries the record of the prediction."""
    return _file(here, measurements_id, "measurements.csv", filename="measurements.csv")


@router.get("/{measurements_id}/document", response_class=FileResponse)
def read_document(here: Here, measurements_id: str) -> FileResponse:
    """Scores of each image and rows of each object, JSON."""
    return _file(here, measurements_id, "measurements.json")


def _file(
    here: Service, measurements_id: str, name: str, *,
    headers: dict[str, str] | None = None, filename: str | None = None,
) -> FileResponse:  # fmt: skip
    with transaction(here.engine) as session:
        row = artifacts.find(session, measurements_id, kind="measurements")
        path = artifacts.inside(artifacts.place(here.settings, row), name)
    return FileResponse(path, headers=headers, filename=filename)
