import io
import json
import zipfile

import numpy as np
import pytest

from dataset_rules.artifacts.dataset import read_dataset, read_sample
from dataset_rules.artifacts.lineage import is_intact, trace
from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.exchange.export import export_dataset
from dataset_rules.exchange.layout import Layout
from tests.app.conftest import finished, post_dataset, working
from tests.app.test_cli import refusal, unetops


def test_export_and_import_on_the_command_line(discs, tmp_path):
    coco, back = tmp_path / "coco", tmp_path / "back"
    done = unetops("export-dataset", discs, "--to", "coco", "--out", coco, "--json")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    assert document["id"] == read_artifact(coco, "export").id
    assert (document["samples"], document["layout"]) == ({"train": 6, "val": 2, "test": 2}, "coco")
    done = unetops("import-dataset", coco, back, "--from", "coco", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["samples"] == {"train": 6, "val": 2, "test": 2}
    again = {sample.name: sample for sample in read_dataset(back).samples}
    for sample in read_dataset(discs).samples:
        before, after = read_sample(discs, sample), read_sample(back, again[sample.name])
        assert all(np.array_equal(*pair) for pair in zip(before, after, strict=True))
    assert is_intact(trace(back))


def test_export_reports_what_the_format_cannot_store(discs, tmp_path):
    done = unetops("export-dataset", discs, "--to", "nnunet", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert "the format holds no objects: instance maps are left out" in done.stdout


def test_bad_input_of_the_exchange_commands_is_reported_in_one_line(discs, tmp_path):
    assert "no COCO annotations here" in refusal(
        "import-dataset", discs, tmp_path / "out", "--from", "coco"
    )
    assert "do not say what the values of the source's masks are" in refusal(
        "write-back", discs, "--out", tmp_path / "out"
    )
    assert not (tmp_path / "out").exists()


def test_write_back_on_the_command_line(discs, tmp_path):
    rules = json.loads((discs / "rules.json").read_bytes())
    rules["source"]["mask_kind"] = "binary"
    rules["classes"] = [{"id": 0, "name": "background", "source_values": [0]},
                        {"id": 1, "name": "disc", "source_values": [255]}]  # fmt: skip
    (tmp_path / "rules.json").write_text(json.dumps(rules))
    done = unetops(
        "write-back", discs, "--out", tmp_path / "masks", "--rules", tmp_path / "rules.json",
        "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["files"] == 10


def test_the_service_streams_the_same_export_as_the_command(http, settings, tmp_path):
    job = post_dataset(http)
    with working(settings.home):
        view = finished(http, job)
    export = f"/api/v1/datasets/{view['result']['id']}/export"
    folder = settings.home / "artifacts" / view["result"]["id"]
    for layout in Layout:
        answer = http.get(export, params={"format": str(layout)})
        assert answer.headers["content-disposition"].endswith(f'-{layout}.zip"')
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            sent = {name: archive.read(name) for name in archive.namelist()}
        written = export_dataset(folder, tmp_path / layout, layout)
        assert sent == {name: (written / name).read_bytes() for name in sent}
        assert sent.keys() == json.loads((written / "manifest.json").read_bytes())["files"].keys()
    assert http.get(export).content == http.get(export, params={"format": "zip"}).content
    assert http.get(export, params={"format": "pascal"}).status_code == 422


@pytest.mark.parametrize("layout", Layout)
def test_export_needs_a_dataset_that_exists(http, layout):
    answer = http.get("/api/v1/datasets/none/export", params={"format": str(layout)})
    assert (answer.status_code, answer.json()["what"]) == (404, "no such dataset")
