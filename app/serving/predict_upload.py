"""One image -> a stored prediction, through the predictor process."""

import json
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from app.access.service import Service
from app.ground.errors import TooLarge, Unavailable, Unprocessable
from app.ground.settings import Settings
from app.store import artifacts
from app.store.archives import file_name, renamed
from app.store.db import transaction
from app.store.tables import Artifact
from app.store.upload import Upload
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import IMAGE_SUFFIXES, Header, read_header, read_image

LONGEST_PREDICTION_S = 600.0
START_S = 20.0  # torch is loaded in about five
SUFFIXES = {"PNG": ".png", "JPEG": ".jpg", "BMP": ".bmp", "TIFF": ".tif"}


def predict_upload(here: Service, upload: Upload) -> Artifact:
    """Predict an uploaded image and keep image and prediction.

    Raises:
        RulesError: if it is no image.
        TooLarge: if it has too many pixels to wait for.
        Unavailable: if the predictor does not answer.
    """
    with transaction(here.engine) as session:
        model = artifacts.find_model(session, upload.fields.get("model") or artifacts.PRODUCTION)
        model_folder = artifacts.place(here.settings, model)
    image, source = _keep_image(here, upload)
    out = artifacts.work_folder(here.settings, uuid.uuid4().hex)
    _ask(here.settings, {"model": str(model_folder), "image": str(image), "out": str(out)})
    facts = {**_facts(out), "model": model.id, "source": source.id, "image": image.name}
    with transaction(here.engine) as session:
        return artifacts.keep_folder(here.settings, session, out, label=image.name, facts=facts)


def _keep_image(here: Service, upload: Upload) -> tuple[Path, Artifact]:
    """The image as a source of one file: what the prediction's lineage leads back to."""
    name = file_name(upload.name)
    header = _checked_header(here.settings, upload, name)
    if Path(name).suffix.lower() not in IMAGE_SUFFIXES:
        name += SUFFIXES[header.format]
    folder = artifacts.new_upload(here.settings)
    folder.mkdir()
    upload.path.rename(folder / name)
    with transaction(here.engine) as session:
        source = artifacts.keep_source(here.settings, session, folder, label=name, facts={})
        return artifacts.place(here.settings, source) / name, source


def _checked_header(settings: Settings, upload: Upload, name: str) -> Header:
    try:
        header = read_header(upload.path)
    except RulesError as error:
        raise renamed(error, upload.path, name) from error
    if header.format not in SUFFIXES:
        raise Unprocessable(
            "this format is not read", where=name, expected="PNG, JPEG, BMP or TIFF",
            found=header.format,
        )  # fmt: skip
    pixels = header.height_px * header.width_px
    if pixels > settings.max_image_pixels:
        raise TooLarge(
            "the image has too many pixels to wait for", where=name,
            expected=f"at most {settings.max_image_pixels}", found=str(pixels),
            remedy="`unetops predict` takes images of any size",
        )  # fmt: skip
    try:
        read_image(upload.path)  # damage that only decoding shows
    except RulesError as error:
        raise renamed(error, upload.path, name) from error
    return header


def predictor_answers(settings: Settings) -> bool:
    """True if the predictor is there."""
    if not settings.predictor_socket.exists():  # an attempt would leave a socket to the collector
        return False
    try:
        with _client(settings, timeout_s=2.0) as client:
            return client.get("/healthz").is_success
    except httpx.TransportError:
        return False


def _client(settings: Settings, *, timeout_s: float) -> httpx.Client:
    transport = httpx.HTTPTransport(uds=str(settings.predictor_socket))
    return httpx.Client(transport=transport, base_url="http://predictor", timeout=timeout_s)


def _ask(settings: Settings, request: dict[str, str]) -> None:
    _wait_for_predictor(settings)
    try:
        with _client(settings, timeout_s=LONGEST_PREDICTION_S) as client:
            answer = client.post("/predict", json=request)
    except httpx.TransportError as error:
        raise Unavailable(
            "the predictor ended while it worked", found=str(error) or type(error).__name__,
            remedy="it starts again by itself; a very large image may need more memory",
        ) from error  # fmt: skip
    if answer.is_success:
        return
    problem = answer.json()
    kind = Unprocessable if answer.status_code == Unprocessable.status else Unavailable
    parts = {part: problem.get(part) for part in ("where", "expected", "found", "remedy")}
    raise kind(problem["what"], **parts)


def _wait_for_predictor(settings: Settings) -> None:
    """Give a predictor that is just starting a moment."""
    until = time.monotonic() + START_S
    while not predictor_answers(settings):
        if time.monotonic() > until:
            raise Unavailable(
                "the predictor does not answer",
                remedy="`unetops serve` starts it; its log says why it is not there",
            )
        time.sleep(0.3)


def _facts(folder: Path) -> dict[str, Any]:
    """What `predictions.json` says of the one image."""
    document = json.loads((folder / "predictions.json").read_bytes())
    row: dict[str, Any] = document["images"][0]
    return {
        "objects": row["objects"], "class_share": row["class_share"],
        "height_px": row["height_px"], "width_px": row["width_px"],
        "classes": document["classes"], "mask": row["mask"], "instances": row["instances"],
    }  # fmt: skip
