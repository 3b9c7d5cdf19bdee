"""One image -> a stored prediction, through the predictor process."""

import json
import shutil
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from app.access.service import Service
from app.ground.errors import TooLarge, Unavailable, Unprocessable
from app.ground.settings import Settings
from app.store import artifacts
from app.store.archives import file_name, with_client_name
from app.store.db import transaction
from app.store.tables import Artifact
from app.store.upload import Upload
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import IMAGE_SUFFIXES, Header, read_header, read_image

PREDICTION_TIMEOUT_S = 600.0
START_TIMEOUT_S = 20.0  # loading torch takes about five
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif"}


def predict_upload(service: Service, upload: Upload) -> Artifact:
    """Predict an uploaded image; store the image and the prediction.

    Raises:
        RulesError: if it is not an image.
        TooLarge: if it has too many pixels.
        Unavailable: if the predictor does not respond.
    """
    with transaction(service.engine) as session:
        model = artifacts.find_model(session, upload.fields.get("model") or artifacts.PRODUCTION)
        model_folder = artifacts.artifact_path(service.settings, model)
    name = _checked_name(service.settings, upload)
    image = artifacts.new_upload_path(service.settings) / name
    out = artifacts.work_folder(service.settings, uuid.uuid4().hex)
    try:
        image.parent.mkdir()
        upload.path.rename(image)
        request = {"model": model_folder, "image": image, "out": out,
                 "location": artifacts.source_folder(service.settings, image.parent)}  # fmt: skip
        _ask(service.settings, {name: str(path) for name, path in request.items()})
        return _store(service, image, out, model_id=model.id)
    finally:  # failed files are removed; successful ones are in the store by now
        for folder in (image.parent, out):
            shutil.rmtree(folder, ignore_errors=True)


def _store(service: Service, image: Path, out: Path, *, model_id: str) -> Artifact:
    """Store the prediction, and its image as a source, where the lineage ends."""
    with transaction(service.engine) as session:
        source = artifacts.store_source(
            service.settings, session, image.parent, label=image.name, facts={}
        )
        facts = {**_facts(out), "model": model_id, "source": source.id, "image": image.name}
        return artifacts.store_folder(service.settings, session, out, label=image.name, facts=facts)


def _checked_name(settings: Settings, upload: Upload) -> str:
    """File name of the uploaded image, with a suffix for its format."""
    name = file_name(upload.name)
    header = _checked_header(settings, upload, name)
    has_suffix = Path(name).suffix.lower() in IMAGE_SUFFIXES
    return name if has_suffix else name + SUFFIXES[header.format]


def _checked_header(settings: Settings, upload: Upload, name: str) -> Header:
    try:
        header = read_header(upload.path)
    except RulesError as error:
        raise with_client_name(error, upload.path, name) from error
    if header.format not in SUFFIXES:
        raise Unprocessable(
            "unsupported image format", where=name, expected="PNG, JPEG, BMP or TIFF",
            found=header.format,
        )  # fmt: skip
    pixels = header.height_px * header.width_px
    if pixels > settings.max_image_pixels:
        raise TooLarge(
            "the image has too many pixels", where=name,
            expected=f"at most {settings.max_image_pixels}", found=str(pixels),
            remedy="use `unetops predict`, which has no size limit",
        )  # fmt: skip
    try:
        read_image(upload.path)  # damage that only decoding shows
    except RulesError as error:
        raise with_client_name(error, upload.path, name) from error
    return header


def predictor_is_ready(settings: Settings) -> bool:
    """True if the predictor runs and has loaded the production model."""
    return _get_is_success(settings, "/readyz")


def predictor_answers(settings: Settings) -> bool:
    """True if the predictor responds."""
    return _get_is_success(settings, "/healthz")


def _get_is_success(settings: Settings, path: str) -> bool:
    if (
        not settings.predictor_socket.exists()
    ):  # a failed attempt would leak a socket until garbage collection
        return False
    try:
        with _client(settings, timeout_s=2.0) as client:
            return client.get(path).is_success
    except httpx.TransportError:
        return False


def _client(settings: Settings, *, timeout_s: float) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(settings.predictor_socket))
    return httpx.Client(transport=transport, base_url="http://predictor", timeout=timeout_s)


def _ask(settings: Settings, request: dict[str, str]) -> None:
    _wait_for_predictor(settings)
    try:
        with _client(settings, timeout_s=PREDICTION_TIMEOUT_S) as client:
            response = client.post("/predict", json=request)
    except httpx.TransportError as error:
        raise Unavailable(
            "the predictor exited during the prediction", found=str(error) or type(error).__name__,
            remedy="it restarts automatically; a very large image may need more memory",
        ) from error  # fmt: skip
    if response.is_success:
        return
    problem = response.json()
    kind = Unprocessable if response.status_code == Unprocessable.status else Unavailable
    parts = {part: problem.get(part) for part in ("where", "expected", "found", "remedy")}
    raise kind(problem["what"], **parts)


def _wait_for_predictor(settings: Settings) -> None:
    """Wait for a predictor that is starting."""
    until = time.monotonic() + START_TIMEOUT_S
    while not predictor_answers(settings):
        if time.monotonic() > until:
            raise Unavailable(
                "the predictor does not respond",
                remedy="`unetops serve` starts it; see its log for the reason",
            )
        time.sleep(0.3)


def _facts(folder: Path) -> dict[str, Any]:
    """Facts of the image from `predictions.json`."""
    document = json.loads((folder / "predictions.json").read_bytes())
    row: dict[str, Any] = document["images"][0]
    return {
        "objects": row["objects"], "class_share": row["class_share"],
        "height_px": row["height_px"], "width_px": row["width_px"],
        "classes": document["classes"], "mask": row["mask"], "instances": row["instances"],
    }  # fmt: skip
