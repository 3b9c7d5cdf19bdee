"""Measurements: list, read, download as CSV, JSON or HTML."""

from fastapi import APIRouter
from fastapi.responses import FileResponse

from app.access.route_roles import GuardedRoute
from app.access.service import Service, ServiceDep
from app.store import artifacts
from app.store.db import transaction
from app.web.schemas import ArtifactView
from app.web.views import artifact_view

router = APIRouter(prefix="/measurements", tags=["measurements"], route_class=GuardedRoute)

# The page has inline style and pictures and no scripts.
REPORT_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
}


@router.get("")
def list_measurements(service: ServiceDep) -> list[ArtifactView]:
    """All measurements, newest first."""
    with transaction(service.engine) as session:
        return [artifact_view(row) for row in artifacts.list_artifacts(session, "measurements")]


@router.get("/{measurements_id}")
def read_measurements(service: ServiceDep, measurements_id: str) -> ArtifactView:
    """One measurements artifact."""
    with transaction(service.engine) as session:
        return artifact_view(artifacts.find(session, measurements_id, kind="measurements"))


@router.get("/{measurements_id}/report", response_class=FileResponse)
def read_report(service: ServiceDep, measurements_id: str) -> FileResponse:
    """Self-contained HTML report with scores, tables and outlined objects."""
    return _file(service, measurements_id, "report.html", headers=REPORT_HEADERS)


@router.get("/{measurements_id}/table", response_class=FileResponse)
def read_table(service: ServiceDep, measurements_id: str) -> FileResponse:
    """CSV with one row per object, including the prediction's record."""
    return _file(service, measurements_id, "measurements.csv", filename="measurements.csv")


@router.get("/{measurements_id}/document", response_class=FileResponse)
def read_document(service: ServiceDep, measurements_id: str) -> FileResponse:
    """JSON with the scores of each image and a row for each object."""
    return _file(service, measurements_id, "measurements.json")


def _file(
    service: Service, measurements_id: str, name: str, *,
    headers: dict[str, str] | None = None, filename: str | None = None,
) -> FileResponse:  # fmt: skip
    with transaction(service.engine) as session:
        row = artifacts.find(session, measurements_id, kind="measurements")
        path = artifacts.file_inside(artifacts.artifact_path(service.settings, row), name)
    return FileResponse(path, headers=headers, filename=filename)
