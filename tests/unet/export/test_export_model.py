"""Exported folders give the same results as their models."""

import json
import shutil
import signal
import subprocess
import sys
import time
import venv
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.manifest import make_source, read_artifact
from dataset_rules.artifacts.seal import SEAL, altered_files
from dataset_rules.ground.errors import ArtifactError
from dataset_rules.pixels.images import read_image
from dataset_rules.rules.rules import Rules
from tests.drawn import draw_discs, write_dataset
from tests.unet.export.test_processing_graphs import plan_of
from unet.errors import UnetError
from unet.export.export_model import RUNNER, export, write_exported
from unet.export.network_graph import network_graph
from unet.export.parity import parity_report
from unet.network.inference import make_net
from unet.objects.splitting import Seeds, SplitSettings
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import make_plan
from unet.prediction.model_files import ModelCard
from unet.prediction.predictor import Networks, Predictor
from unet.runs.train import train

PLAN = plan_of(widths=(4, 8, 8), tile_px=64, overlap_px=16, patch_px=32)
MODEL = make_source({}, location="a model", started=datetime.now(UTC))


@pytest.fixture(scope="module")
def networks() -> Networks:
    """Two networks with random weights; about half of a disc image is foreground."""
    nets = []
    for seed in (0, 1):
        net = make_net(PLAN.model_copy(update={"seed": seed})).eval()
        torch.manual_seed(seed)
        torch.nn.init.normal_(net.head.weight)
        nets.append(net)
    return Networks(nets, ModelCard(plan=PLAN, rules=Rules(), split=SplitSettings(), scores={},
                                    members=2))  # fmt: skip


@pytest.fixture(scope="module")
def graph(networks: Networks) -> onnx.ModelProto:
    return network_graph(networks.nets, PLAN)


def images() -> list[np.ndarray]:
    """Smaller than a tile, larger in both axes, larger in one; grey, RGB and 16 bits."""
    rng = np.random.default_rng(0)
    small, large = (draw_discs(rng, size=size, count=size // 8)[0] for size in (33, 100))
    return [small[..., 0], large, large[:40].astype(np.uint16) * 200]


CASES: dict[str, dict[str, Any]] = {
    "peaks": {},
    "cores": {"split": {"seeds": Seeds.CORE, "level": 0.6}},
    "shapes": {"split": {"seeds": Seeds.SHAPE, "level": 0.75, "min_area_px": 20}},
    "scaled": {"plan": {"scale": 0.6}},
    "stretched": {"rules": {"height": 90, "width": 70, "fit": "stretch"}},
    "padded": {"rules": {"height": 60, "width": 60, "fit": "pad"}, "plan": {"scale": 0.8}},
    "grey": {"rules": {"color_model": "grayscale"}},
}


QUICK = {"shapes", "padded"}


@pytest.mark.parametrize(
    "case", [pytest.param(case, marks=[pytest.mark.long] * (case not in QUICK)) for case in CASES]
)
def test_the_runner_gives_the_same_mask_and_objects_as_torch(
    case: str, networks: Networks, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    changes = CASES[case]
    plan = PLAN.model_copy(update=changes.get("plan", {}))
    rules = Rules.model_validate(changes.get("rules", {}))
    own = Networks(networks.nets, networks.card.model_copy(update={"plan": plan, "rules": rules}))
    half = np.median(own.predict_with_probabilities(images()[1])[1][0])
    split = SplitSettings(foreground=float(1 - half), **changes.get("split", {}))
    own.card = own.card.model_copy(update={"split": split})
    write_exported(tmp_path, own.card, MODEL, network=graph)
    report = parity_report(tmp_path / "run.py", own, images())
    for row in report["images"]:
        size = row["height_px"] * row["width_px"]
        exact = "rules" not in changes and "plan" not in changes
        assert row["dice"] > (0.999 if exact else 0.995), row
        assert row["pixels_of_another_class"] < 0.002 * size + 1, row
        assert abs(row["objects"] - row["objects_exported"]) <= 0.02 * row["objects"] + 1, row
        # Rounding by one grey level in a resized image changes a probability slightly.
        assert row["probability_difference"] < (1e-4 if exact else 0.05), row
    assert any(row["objects"] > 3 for row in report["images"])


def test_the_runner_has_at_most_60_lines_and_needs_only_numpy_and_onnxruntime() -> None:
    text = RUNNER.read_text()
    assert len(text.splitlines()) <= 60
    imports = {line.split()[1] for line in text.splitlines() if line.startswith(("import", "from"))}
    assert imports == {"heapq", "itertools", "json", "sys", "pathlib", "numpy", "onnxruntime"}


def test_the_graph_has_the_models_id_and_no_details_of_the_machine(
    networks: Networks, graph: onnx.ModelProto, tmp_path: Path
) -> None:
    write_exported(tmp_path, networks.card, MODEL, network=graph)
    paths = sorted(tmp_path.glob("*.onnx"))
    assert [path.name for path in paths] == ["after.onnx", "before.onnx", "model.onnx"]
    for path in paths:
        model = onnx.load(path)
        assert {p.key: p.value for p in model.metadata_props} == {"unetops:model": MODEL.id}
        assert str(Path.cwd()).encode() not in path.read_bytes()
        assert b".py" not in path.read_bytes()
    facts = json.loads((tmp_path / "export.json").read_text())
    assert facts["lineage"] == {"model": MODEL.id, "record": MODEL.record}
    assert facts["networks_averaged"] == 2


def trained(dataset: Path, out: Path) -> Path:
    plan = make_plan(fingerprint([dataset]), patches=4)
    return train([dataset], out, plan=plan.model_copy(update={"widths": (4, 8), "batch": 2}))


def test_a_model_of_binary_images_is_refused(discs: Path, tmp_path: Path) -> None:
    rules = json.loads((discs / "rules.json").read_text()) | {"color_model": "binary"}
    (discs / "rules.json").write_text(json.dumps(rules))
    (discs / SEAL).write_text(
        "".join(
            f"{file_hash(discs / name)}  {name}\n"
            for name in (line.split("  ")[1] for line in (discs / SEAL).read_text().splitlines())
        )
    )
    run = trained(discs, tmp_path / "run")
    with pytest.raises(UnetError, match="train on a dataset in grayscale"):
        export(run, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_killed_export_is_completed_by_the_same_call(discs: Path, tmp_path: Path) -> None:
    """Killed as soon as a file exists, then run again: the result equals an uninterrupted one."""
    run = trained(discs, tmp_path / "run")
    whole, killed = export(run, tmp_path / "whole"), tmp_path / "killed"
    command = [sys.executable, "-m", "app.cli", "export", str(run), "--out", str(killed)]
    for name in (".begun.json", "before.onnx", "model.onnx"):
        process = subprocess.Popen(command)
        while not (killed / name).exists() and process.poll() is None:
            time.sleep(0.01)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert not (killed / "manifest.json").exists()
    subprocess.run(command, check=True)
    assert read_artifact(killed).id == read_artifact(whole).id
    assert altered_files(killed) == []
    assert json.loads((killed / "parity.json").read_text())["same_mask"]
    with pytest.raises(ArtifactError, match="another result"):
        export(trained(write_dataset(tmp_path / "set", seed=5), tmp_path / "other"), killed)


@pytest.mark.system
@pytest.mark.timeout(600)
def test_an_exported_folder_works_with_only_numpy_and_onnxruntime(
    discs: Path, tmp_path: Path
) -> None:
    run = trained(discs, tmp_path / "run")
    folder = export(run, tmp_path / "exported")
    venv.create(tmp_path / "bare", with_pip=True)
    python = tmp_path / "bare" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "-q", "numpy", "onnxruntime"], check=True)
    shutil.move(folder, tmp_path / "elsewhere")
    image = read_image(discs / "test/images/test0.png")
    np.save(tmp_path / "image.npy", image)
    call = [python, "-I", tmp_path / "elsewhere" / "run.py", tmp_path / "image.npy",
            tmp_path / "found.npz"]  # fmt: skip
    subprocess.run(call, check=True, cwd=tmp_path)
    found = np.load(tmp_path / "found.npz")
    expected = Predictor(run).predict(image)
    assert (found["mask"] == expected.mask).mean() > 0.999
    assert found["instances"].dtype == np.uint32
    for name in ("torch", "cv2", "skimage", "scipy", "unet"):
        call = [python, "-I", "-c", f"import {name}"]
        assert subprocess.run(call, capture_output=True).returncode
