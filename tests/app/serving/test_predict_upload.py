"""Predictions by a real predictor process, and cleanup after failures."""

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from app.jobs.process import PARENT
from app.store.intake import import_artifacts
from dataset_rules.pixels.images import encode
from tests.app.conftest import wait_for
from tests.drawn import draw_discs
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import make_plan
from unet.runs.train import train


@pytest.fixture
def weights(discs: Path, tmp_path: Path, settings) -> Path:
    """The weights of the production model in the store."""
    plan = make_plan(fingerprint([discs]), patches=4)
    plan = plan.model_copy(update={"widths": (4, 8), "batch": 2})
    import_artifacts(settings.home, [train([discs], tmp_path / "run", plan=plan)])
    return next((settings.home / "artifacts").glob("*/model/*.safetensors"))


@contextmanager
def predicting(home: Path):
    with (home / "predictor.err").open("ab") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.serving.predictor_process"], stderr=errors,
            env={**os.environ, "UNETOPS_HOME": str(home), PARENT: str(os.getpid())},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def predict(http):
    image, _ = draw_discs(np.random.default_rng(9), size=64)
    return http.post("/api/v1/predictions", files={"image": ("a.png", encode(image, ".png"))})


def is_ready(http) -> bool:
    return http.get("/readyz").json()["predictor"]


def left_behind(home: Path) -> list[str]:
    folders = (home / name for name in ("sources", "work", "uploads"))
    return [path.name for folder in folders if folder.exists() for path in folder.iterdir()]


def test_a_failed_prediction_leaves_nothing_and_readiness_tracks_the_model(http, settings, weights):
    kept = weights.read_bytes()
    weights.write_bytes(kept[:-1] + bytes([kept[-1] ^ 1]))
    with predicting(settings.home):
        errors = settings.home / "predictor.err"
        wait_for(lambda: "cannot load production model" in errors.read_text(), seconds=90)
        answer = predict(http)
        assert answer.status_code == 422, answer.text
        assert left_behind(settings.home) == []
        assert http.get("/api/v1/sources").json() == []
        assert not is_ready(http), "the production model cannot be loaded"
        weights.write_bytes(kept)
        wait_for(lambda: is_ready(http))
        made = predict(http)
        assert made.status_code == 201, made.text
    (source,) = http.get("/api/v1/sources").json()
    assert left_behind(settings.home) == [source["id"]]
    chain = http.get(made.json()["links"]["lineage"]).json()
    assert chain["whole"], chain
    origins = [link["detail"] for link in chain["links"] if link["kind"] == "source"]
    assert str(settings.home / "sources" / source["id"]) in origins


def test_the_predictor_reloads_production_after_a_database_failure(http, settings, engine, weights):
    with engine.begin() as connection:
        connection.exec_driver_sql("ALTER TABLE alias RENAME TO elsewhere")
    with predicting(settings.home):
        errors = settings.home / "predictor.err"
        wait_for(lambda: "no such table" in errors.read_text(), seconds=90)
        assert not is_ready(http)
        with engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE elsewhere RENAME TO alias")
        wait_for(lambda: is_ready(http))
        assert "loaded production model" in errors.read_text()
