"""Predictions: predict one image, list and read predictions."""

from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Header
from fastapi.responses import FileResponse, JSONResponse, Response

from app.access.route_roles import GuardedRoute, requires_role
from app.access.service import Service, ServiceDep
from app.access.tokens import Role
from app.ground.errors import NotFound
from app.serving.overlay import displayable, overlay_png
from app.serving.predict_upload import predict_upload
from app.store import artifacts
from app.store.db import transaction
from app.store.tables import Artifact
from app.web.schemas import ArtifactView, Made
from app.web.uploads import ImageUpload, multipart_body
from app.web.views import artifact_response, artifact_view
from dataset_rules.pixels.images import encode, read_image, read_mask

router = APIRouter(prefix="/predictions", tags=["predictions"], route_class=GuardedRoute)
PNG = "image/png"


class PredictionMade(Made):
    """A stored prediction: number of objects and share of each class."""

    objects: int
    class_share: dict[str, float]
    height_px: int
    width_px: int
    model: str


@router.post(
    "", status_code=201, response_model=PredictionMade,
    openapi_extra=multipart_body("image", model="id or alias; default: production"),
    responses={201: {"content": {PNG: {}}}},
)  # fmt: skip
@requires_role(Role.ANNOTATOR, takes_file=True)
def create_prediction(
    service: ServiceDep, upload: ImageUpload, accept: Annotated[str, Header()] = ""
) -> Response:
    """Predict one image; returns the mask with `Accept: image/png`, else numbers and links."""
    row = predict_upload(service, upload)
    response = Response(status_code=201)
    fields = {**artifact_response(row, response), **_numbers(row)}
    headers = {"Location": response.headers["Location"], "X-Prediction": row.id}
    if _prefers_png(accept):
        mask = artifacts.artifact_path(service.settings, row) / row.facts["mask"]
        return Response(mask.read_bytes(), status_code=201, media_type=PNG, headers=headers)
    return JSONResponse(fields, status_code=201, headers=headers)


@router.get("")
def list_predictions(service: ServiceDep) -> list[ArtifactView]:
    """All predictions, newest first."""
    with transaction(service.engine) as session:
        return [artifact_view(row) for row in artifacts.list_artifacts(session, "prediction")]


@router.get("/{prediction_id}")
def read_prediction(service: ServiceDep, prediction_id: str) -> ArtifactView:
    """One prediction; its facts contain object count, class shares, model and source."""
    with transaction(service.engine) as session:
        return artifact_view(artifacts.find(session, prediction_id, kind="prediction"))


@router.get("/{prediction_id}/mask", response_class=FileResponse)
def read_prediction_mask(service: ServiceDep, prediction_id: str) -> FileResponse:
    """The label mask at the image's own size; a PNG text chunk has the prediction's record."""
    return FileResponse(_file(service, prediction_id, "mask"))


@router.get("/{prediction_id}/instances", response_class=FileResponse)
def read_prediction_instances(service: ServiceDep, prediction_id: str) -> FileResponse:
    """The instance map: 16-bit PNG, or 32-bit TIFF above 65,535 objects."""
    return FileResponse(_file(service, prediction_id, "instances"))


@router.get(
    "/{prediction_id}/image", response_class=Response, responses={200: {"content": {PNG: {}}}}
)
def read_prediction_image(service: ServiceDep, prediction_id: str) -> Response:
    """The image for browsers: 8 bits, at most 2048 pixels per side."""
    image = read_image(_image(service, prediction_id))
    return Response(encode(displayable(image), ".png"), media_type=PNG)


@router.get(
    "/{prediction_id}/overlay", response_class=Response, responses={200: {"content": {PNG: {}}}}
)
def read_prediction_overlay(service: ServiceDep, prediction_id: str) -> Response:
    """The image with every object outlined."""
    picture = overlay_png(
        read_image(_image(service, prediction_id)),
        read_mask(_file(service, prediction_id, "mask")),
        read_mask(_file(service, prediction_id, "instances")),
    )
    return Response(picture, media_type=PNG)


def _numbers(row: Artifact) -> dict[str, object]:
    names = ("objects", "class_share", "height_px", "width_px", "model")
    return {name: row.facts[name] for name in names}


def _prefers_png(accept: str) -> bool:
    """True if the client accepts PNG and does not list JSON before it."""
    names = [part.partition(";")[0].strip() for part in accept.split(",")]
    wanted = [name for name in names if name in {PNG, "application/json"}]
    return wanted[:1] == [PNG]


def _file(service: Service, prediction_id: str, part: str) -> Path:
    with transaction(service.engine) as session:
        row = artifacts.find(session, prediction_id, kind="prediction")
        return artifacts.file_inside(
            artifacts.artifact_path(service.settings, row), _fact(row, part)
        )


def _image(service: Service, prediction_id: str) -> Path:
    with transaction(service.engine) as session:
        row = artifacts.find(session, prediction_id, kind="prediction")
        source = artifacts.find(session, _fact(row, "source"), kind="source")
        return artifacts.file_inside(
            artifacts.artifact_path(service.settings, source), row.facts["image"]
        )


def _fact(row: Artifact, name: str) -> str:
    if name not in row.facts:
        raise NotFound(
            "this prediction was imported, not made from one uploaded image", where=row.id,
            remedy="its files are in the folder where it was made",
        )  # fmt: skip
    return str(row.facts[name])
