"""The predictor, which keeps models loaded: HTTP on a Unix socket private to this user.

`POST /predict` {"model": folder, "image": file, "out": folder} writes a prediction artifact. The
production model is loaded in advance, and again when the alias changes.
"""

import logging
import os
import threading
import time
from collections import OrderedDict
from pathlib import Path

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import Engine

from app.ground import errors, logs
from app.ground.locks import locked
from app.ground.settings import Settings
from app.jobs.process import die_with_parent
from app.store import artifacts
from app.store.db import migrate, open_engine, transaction
from app.store.tables import Alias, Artifact
from dataset_rules.ground.errors import UserError
from unet.network.backend import CHOICES_FILE
from unet.prediction.predict_files import predict_files
from unet.prediction.predictor import Predictor

log = logging.getLogger(__name__)

MAX_LOADED_MODELS = 2  # production and one to compare it with
POLL_S = 2.0
MAX_DELAY_S = 30.0  # before another attempt to load a model
MAX_WAITING = 8


class PredictRequest(BaseModel):
    """One image to predict; all paths are absolute."""

    model: Path
    image: Path
    out: Path
    location: str | None = None  # folder where the image will be stored


class ModelCache:
    """Loaded models; one prediction at a time, so that two do not compete for the cores."""

    def __init__(self, backend_choices: Path | None = None) -> None:
        self._backend_choices = backend_choices  # file with each model's fastest backend
        self._loaded: OrderedDict[Path, Predictor] = OrderedDict()
        self._turn = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MAX_WAITING)
        self.not_ready_reason: str | None = "the production model has not been loaded yet"

    def predict(self, request: PredictRequest) -> None:
        """Write the prediction artifact.

        Raises:
            Unavailable: if too many predictions are waiting.
        """
        if not self._waiting.acquire(blocking=False):
            raise errors.Unavailable(
                "too many predictions are waiting", remedy="try again in a moment"
            )
        try:
            with self._turn:
                predictor = self._get(request.model)
                predict_files(
                    request.model, [request.image], request.out, predictor=predictor,
                    location=request.location,
                )  # fmt: skip
        finally:
            self._waiting.release()

    def load(self, folder: Path) -> None:
        """Load a model before its first use."""
        with self._turn:
            self._get(folder)

    def _get(self, folder: Path) -> Predictor:
        if folder not in self._loaded:
            predictor = Predictor(folder)
            choice = predictor.choose_backend(self._backend_choices)
            log.info("model %s runs on %s", predictor.artifact.id[:12], choice.backend)
            self._loaded[folder] = predictor
        self._loaded.move_to_end(folder)
        while len(self._loaded) > MAX_LOADED_MODELS:
            self._loaded.popitem(last=False)
        return self._loaded[folder]


def create_app(models: ModelCache) -> FastAPI:
    """The application served on the socket."""
    app = FastAPI(openapi_url=None)
    errors.install(app)

    @app.get("/healthz")
    def healthz() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/readyz")
    def readyz() -> dict[str, str]:
        if models.not_ready_reason is not None:
            raise errors.Unavailable(
                "the production model is not loaded", found=models.not_ready_reason
            )
        return {"status": "ok"}

    @app.post("/predict")
    def predict(request: PredictRequest) -> dict[str, str]:
        models.predict(request)
        return {"out": str(request.out)}

    return app


def _follow_production(settings: Settings, engine: Engine, models: ModelCache) -> None:
    """Load the production model now and whenever it changes; retry after failures."""
    loaded, delay_s = "", POLL_S
    while True:
        try:
            loaded = _load_production(settings, engine, models, loaded)
        except Exception as error:  # any error: this thread must keep running
            _record_failure(models, error)
            loaded, delay_s = "", min(2 * delay_s, MAX_DELAY_S)
        else:
            models.not_ready_reason, delay_s = None, POLL_S
        time.sleep(delay_s)


def _load_production(settings: Settings, engine: Engine, models: ModelCache, loaded: str) -> str:
    """Load the production model unless it is loaded; return its id, "" if there is none."""
    with transaction(engine) as session:
        alias = session.get(Alias, artifacts.PRODUCTION)
        row = session.get(Artifact, alias.artifact_id) if alias else None
    if row is None:
        return ""
    if row.id != loaded:
        models.load(artifacts.artifact_path(settings, row))
        log.info("loaded production model %s", row.id)
    return row.id


def _record_failure(models: ModelCache, error: Exception) -> None:
    reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
    if reason != models.not_ready_reason:  # once, not at every attempt
        is_bug = not isinstance(error, UserError)
        log.error("cannot load production model: %s", reason, exc_info=error if is_bug else None)
    models.not_ready_reason = reason


def main() -> None:
    """Serve until SIGTERM."""
    die_with_parent()
    logs.configure("predictor")
    settings = Settings.from_environment()
    migrate(settings)
    socket = settings.predictor_socket
    socket.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if socket.parent.stat().st_uid != os.getuid():
        raise errors.AppError(
            "the folder of the socket belongs to another user", where=str(socket.parent)
        )
    with locked(socket.parent / "predictor.lock", wait_s=30, busy="another predictor is running"):
        socket.unlink(missing_ok=True)
        models = ModelCache(settings.home / CHOICES_FILE)
        arguments = (settings, open_engine(settings), models)
        threading.Thread(target=_follow_production, args=arguments, daemon=True).start()
        try:
            uvicorn.run(create_app(models), uds=str(socket), log_level="warning")
        finally:
            socket.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
