import json
import shutil
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.lineage import LinkState, is_intact, trace
from dataset_rules.artifacts.manifest import Step, begin, finish, make_source, read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.errors import ArtifactError
from dataset_rules.pixels.images import encode
from dataset_rules.pixels.png import png_text
from tests.drawn import write_dataset


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """dataset -> run -> model -> prediction, as the steps write them, but tiny."""
    now = datetime.now(UTC)
    dataset = write_dataset(tmp_path / "dataset", train=2, val=0, test=0)
    run = tmp_path / "run"
    step = Step("run", 1, (read_artifact(dataset),), {"seed": 0})
    begin(run, step)
    write_json(run / "plan.json", {"steps": 3})
    finish(run, step, content={"plan.json": None}, started=now)
    model = run / "model"
    step = Step("model", 1, (read_artifact(run),))
    begin(model, step)
    (model / "weights.safetensors").write_bytes(bytes(range(200)))
    finish(model, step, content={"weights.safetensors": None}, started=now)
    images = make_source({"a.png": "1" * 64}, location="images", started=now)
    prediction = tmp_path / "prediction"
    step = Step("prediction", 1, (read_artifact(model), images))
    begin(prediction, step)
    (prediction / "a_mask.png").write_bytes(encode(np.eye(16, dtype=np.uint8), ".png"))
    finish(prediction, step, content={"a_mask.png": None}, started=now, stamped=["a_mask.png"])
    return prediction / "a_mask.png"


def flip(path: Path, at: int = -1) -> None:
    """Change one byte of a file."""
    data = bytearray(path.read_bytes())
    at = len(data) // 2 if at < 0 else at
    data[at] ^= 0x01
    path.write_bytes(bytes(data))


def broken_links(mask: Path) -> dict[str, str]:
    return {link.kind: link.detail for link in trace(mask) if link.state is LinkState.BROKEN}


def test_chain_leads_from_mask_to_source_and_commit(chain: Path) -> None:
    links = trace(chain)
    assert is_intact(links), [link for link in links if link.state is LinkState.BROKEN]
    kinds = [link.kind for link in links]
    assert kinds[:4] == ["mask", "prediction", "model", "source"]
    assert set(kinds) >= {"run", "dataset", "rules", "source", "commit"}
    assert png_text(chain.read_bytes(), "unetops:record") == links[1].record


@pytest.mark.parametrize(
    ("file", "expected"),
    [
        ("prediction/a_mask.png", "mask"),
        ("prediction/manifest.json", "prediction"),
        ("prediction/provenance.json", "prediction"),
        ("run/model/weights.safetensors", "model"),
        ("run/model/provenance.json", "model"),
        ("run/plan.json", "run"),
        ("run/provenance.json", "run"),
        ("dataset/rules.json", "rules"),
        ("dataset/train/images/train0.png", "dataset"),
        ("dataset/provenance.json", "dataset"),
        ("dataset/files.sha256", "dataset"),
    ],
)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_one_altered_byte_breaks_its_link(
    chain: Path, tmp_path: Path, file: str, expected: str, place: float
) -> None:
    flip(tmp_path / file, int(place * len((tmp_path / file).read_bytes())))
    found = broken_links(chain)
    assert expected in found or (file == "prediction/manifest.json" and "artifact" in found), found
    assert not set(found) - {expected, "mask", "artifact"}, found


@pytest.mark.parametrize("name", ["manifest.json", "provenance.json"])
@pytest.mark.parametrize("kind", ["source", "dataset", "run", "model"])
def test_altered_ancestor_record_breaks_its_link(chain: Path, kind: str, name: str) -> None:
    for folder in (chain.parent / "lineage").iterdir():
        manifest = json.loads((folder / "manifest.json").read_bytes())
        if manifest["kind"] == kind:
            flip(folder / name)
            found = broken_links(chain)
            assert kind in found, found
            return
    pytest.fail(f"the prediction has no {kind} among its ancestors")


def test_chain_is_intact_when_only_the_prediction_is_moved(chain: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere" / "p"
    moved.parent.mkdir()
    shutil.move(chain.parent, moved)
    links = trace(moved / chain.name)
    assert is_intact(links)
    assert {"model", "run", "dataset", "rules", "commit"} <= {link.kind for link in links}


def test_mask_without_its_folder_needs_the_artifact_option(chain: Path, tmp_path: Path) -> None:
    alone = tmp_path / "alone" / "mask.png"
    alone.parent.mkdir()
    shutil.copy(chain, alone)
    with pytest.raises(ArtifactError, match="--artifact"):
        trace(alone)
    assert is_intact(trace(alone, artifact=chain.parent))
    flip(alone)
    assert not is_intact(trace(alone, artifact=chain.parent))


def test_seal_covers_every_file_of_a_small_artifact(chain: Path) -> None:
    folder = chain.parent
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        data = path.read_bytes()
        for at in range(0, len(data), max(1, len(data) // 23)):
            flip(path, at)
            assert altered_files(folder), f"byte {at} of {path.name}"
            path.write_bytes(data)
    assert not altered_files(folder)


def test_another_artifact_in_place_of_an_ancestor_breaks_no_link(
    chain: Path, tmp_path: Path
) -> None:
    shutil.rmtree(tmp_path / "dataset")
    write_dataset(tmp_path / "dataset", train=3, seed=7)
    links = {link.kind: link for link in trace(chain)}
    assert links["dataset"].state is LinkState.OK
    assert "elsewhere" in links["dataset"].detail


def test_ancestor_named_by_its_id_next_to_its_child_is_found(chain: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    for name in ("dataset", "run", "prediction"):
        folder = tmp_path / name
        shutil.copytree(folder, store / read_artifact(folder).id)
    mask = store / read_artifact(chain.parent).id / chain.name
    details = {link.kind: link.detail for link in trace(mask)}
    for kind in ("model", "run", "dataset"):
        assert details[kind] == "its files are intact"


def test_added_file_breaks_the_link(chain: Path) -> None:
    (chain.parent / "extra.txt").write_text("x")
    assert "added" in broken_links(chain)["prediction"]


def test_changed_source_file_is_reported(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name in ("a.png", "b.png"):
        (source / name).write_bytes(name.encode())
    files = {path.name: file_hash(path) for path in source.iterdir()}
    origin = make_source(files, location=str(source), started=datetime.now(UTC))
    dataset = tmp_path / "dataset"
    step = Step("dataset", 1, (origin,))
    begin(dataset, step)
    finish(dataset, step, content={}, started=datetime.now(UTC))
    assert is_intact(trace(dataset))
    (source / "b.png").write_bytes(b"other")
    assert "b.png" in broken_links(dataset)["source"]
    shutil.rmtree(source)
    assert is_intact(trace(dataset))
