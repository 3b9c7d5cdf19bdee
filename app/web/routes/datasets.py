"""Datasets: create, list, read, export."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response
from fastapi.responses import FileResponse, StreamingResponse
from sqlalchemy.orm import Session

from app.access.route_roles import GuardedRoute, requires_role
from app.access.service import Service, ServiceDep
from app.access.tokens import Role
from app.ground.errors import NotFound
from app.jobs import queue
from app.store import artifacts
from app.store.archives import zip_files, zip_folder
from app.store.db import transaction
from app.store.tables import Artifact
from app.web.schemas import ArtifactView, DatasetRequest, Made, Samples, SampleView
from app.web.views import API, artifact_view, job_response
from dataset_rules.artifacts.dataset import Sample, read_dataset
from dataset_rules.exchange.export import export_files
from dataset_rules.exchange.layout import Layout

ExportForm = Literal["zip", "coco", "nnunet", "cellpose", "yolo"]

router = APIRouter(prefix="/datasets", tags=["datasets"], route_class=GuardedRoute)


@router.post("", status_code=202)
@requires_role(Role.ANNOTATOR)
def create_dataset(service: ServiceDep, request: DatasetRequest, response: Response) -> Made:
    """Format a source according to rules; repeating a request returns the same job."""
    with transaction(service.engine) as session:
        inputs = {
            "source": artifacts.find(session, request.source, kind="source").id,
            "rules": artifacts.find(session, request.rules, kind="rules").id,
        }
    job = queue.submit(service, "dataset", inputs=inputs, parameters={})
    return job_response(job, queue.job_state(service.client, job.id), response)


@router.get("")
def list_datasets(service: ServiceDep) -> list[ArtifactView]:
    """All datasets, newest first."""
    with transaction(service.engine) as session:
        return [artifact_view(row) for row in artifacts.list_artifacts(session, "dataset")]


@router.get("/{dataset_id}")
def read_dataset_row(service: ServiceDep, dataset_id: str) -> ArtifactView:
    """One dataset, by its id or that of the job that created it."""
    with transaction(service.engine) as session:
        return artifact_view(_find(session, dataset_id))


@router.get("/{dataset_id}/samples")
def list_samples(service: ServiceDep, dataset_id: str) -> Samples:
    """The samples of a dataset, with links to images and masks."""
    with transaction(service.engine) as session:
        row = _find(session, dataset_id)
        dataset = read_dataset(artifacts.artifact_path(service.settings, row))
    return Samples(
        samples=[_sample_view(row, sample) for sample in dataset.samples],
        classes=[known.model_dump() for known in dataset.classes],
    )


@router.get("/{dataset_id}/samples/{name}/image", response_class=FileResponse)
def read_sample_image(service: ServiceDep, dataset_id: str, name: str) -> FileResponse:
    """The image of a sample."""
    return _sample_file(service, dataset_id, name, "image")


@router.get("/{dataset_id}/samples/{name}/mask", response_class=FileResponse)
def read_sample_mask(service: ServiceDep, dataset_id: str, name: str) -> FileResponse:
    """The label mask of a sample: class ids, 255 for ignored pixels."""
    return _sample_file(service, dataset_id, name, "mask")


@router.get("/{dataset_id}/export", response_class=StreamingResponse)
def export_dataset(
    service: ServiceDep, dataset_id: str, form: Annotated[ExportForm, Query(alias="format")] = "zip"
) -> StreamingResponse:
    """The dataset as a zip: the folder itself, or another tool's format.

    The folder includes manifest, seal and lineage. COCO, nnU-Net, Cellpose and YOLO include an
    `export.json` with the dataset's id and what the format cannot store.
    """
    with transaction(service.engine) as session:
        row = _find(session, dataset_id)
        folder = artifacts.artifact_path(service.settings, row)
    sent = zip_folder(folder) if form == "zip" else zip_files(export_files(folder, Layout(form)))
    name = f"dataset-{row.id[:12]}{'' if form == 'zip' else f'-{form}'}.zip"
    headers = {"Content-Disposition": f'attachment; filename="{name}"'}
    return StreamingResponse(sent, media_type="application/zip", headers=headers)


def _find(session: Session, dataset_id: str) -> Artifact:
    return artifacts.find(session, dataset_id, kind="dataset")


def _sample_view(row: Artifact, sample: Sample) -> SampleView:
    url = f"{API}/datasets/{row.id}/samples/{sample.name}"
    links = {"image": f"{url}/image", "mask": f"{url}/mask"}
    return SampleView(name=sample.name, split=sample.split, group=sample.group, links=links)


def _sample_file(service: Service, dataset_id: str, name: str, part: str) -> FileResponse:
    with transaction(service.engine) as session:
        folder = artifacts.artifact_path(service.settings, _find(session, dataset_id))
    for sample in read_dataset(folder).samples:
        if sample.name == name:
            path = sample.image.path if part == "image" else sample.mask.path
            return FileResponse(artifacts.file_inside(folder, path))
    raise NotFound("no such sample in the dataset", where=name)
