from pathlib import Path

import numpy as np
import pytest

from app.store.intake import import_artifacts
from dataset_rules.pixels.images import encode
from tests.drawn import write_dataset
from unet.measurement.measure_files import measure_files
from unet.measurement.synthetic import draw_field


@pytest.fixture
def report(tmp_path: Path) -> Path:
    """Measurements of one synthetic field, as made on the command line."""
    field = draw_field(np.random.default_rng(0), height_px=96, width_px=96)
    for name, pixels in (("a.png", field.image), ("a_instances.png", field.instances)):
        (tmp_path / name).write_bytes(encode(pixels, ".png"))
    return measure_files([tmp_path / "a.png"], [tmp_path / "a_instances.png"], tmp_path / "report")


def test_imported_artifacts_are_served(http, settings, report: Path, tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", train=1, val=1, test=1)
    for _ in range(2):  # importing twice changes nothing
        import_artifacts(settings.home, [dataset, report])
    assert report.exists()
    (made,) = http.get("/api/v1/measurements").json()
    assert len(http.get("/api/v1/datasets").json()) == 1
    page = http.get(made["links"]["report"])
    assert page.headers["content-type"].startswith("text/html")
    assert "script" not in page.headers["content-security-policy"]
    assert made["links"]["report"] in http.get("/reports").text
    assert http.get(made["links"]["table"]).text.startswith("image,")
    assert http.get(made["links"]["document"]).json()["images"][0]["name"] == "a"
    assert http.get(made["links"]["lineage"]).json()["whole"]


def test_unknown_measurements_are_not_found(http) -> None:
    assert http.get("/api/v1/measurements").json() == []
    answer = http.get("/api/v1/measurements/none/report")
    assert (answer.status_code, answer.json()["what"]) == (404, "no such measurements")
    assert answer.headers["content-type"] == "application/problem+json"
