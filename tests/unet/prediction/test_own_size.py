"""Predictions of images that are read and written by rows."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile

import unet.prediction.predictor as predictor_module
from dataset_rules.artifacts.hashes import content_hash
from dataset_rules.artifacts.manifest import contradictions, read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels import rows as rows_module
from dataset_rules.pixels.images import encode, read_image, read_mask
from dataset_rules.pixels.rows import Rows, rows_of
from dataset_rules.rules.rules import Rules
from tests.drawn import write_dataset
from unet.errors import UnetError
from unet.measurement.mask_objects import read_instances
from unet.network.backend import (
    Backend,
    BackendChoice,
    available_backends,
    choose_backend,
    fastest_backend,
    is_settled,
    make_forward,
)
from unet.network.timing import time_interleaved
from unet.planning.fingerprint import fingerprint
from unet.planning.lr_schedule import make_schedule
from unet.planning.plan import make_plan
from unet.prediction import map_files
from unet.prediction.predict_files import OptionalMaps, entropy, predict_files
from unet.prediction.predictor import Predictor
from unet.runs.train import train
from unet.scoring.metrics import pixel_counts

CHANGES: list[dict] = [
    {"scale": 0.61},
    {"rules": Rules(fit="pad", height=200, width=300)},
    {"rules": Rules(color_model="grayscale")},
]
ALL_MAPS = OptionalMaps(probabilities=True, uncertainty=True)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small, briefly trained network that predicts in tiles of 96 px."""
    dataset = write_dataset(tmp_path_factory.mktemp("data") / "discs", train=12)
    plan = make_plan(fingerprint([dataset]), patches=160)
    update = {"widths": (8, 16, 16), "batch": 4, "tile_px": 96, "overlap_px": 24}
    return train([dataset], dataset.parent / "run",
                 plan=plan.model_copy(update=update | asdict(make_schedule(40))))  # fmt: skip


@pytest.fixture(scope="module")
def tissue(run: Path) -> np.ndarray:
    """Discs side by side, 450 x 330 px."""
    images = sorted((run.parent / "discs/test/images").iterdir())
    tiles = [np.tile(read_image(path), (8, 3, 1)) for path in images[:2]]
    return np.hstack(tiles)[:450, :330]


def by_rows(pixels: np.ndarray, step: int = 50) -> Rows:
    tops = range(0, len(pixels), step)
    return Rows(*pixels.shape[:2], lambda: (pixels[top : top + step] for top in tops))


def dice(truth: np.ndarray, found: np.ndarray) -> float | None:
    return pixel_counts(truth > 0, found > 0, np.ones(truth.shape, bool)).dice


@pytest.mark.parametrize("step", [13, 450])
def test_prediction_by_rows_equals_prediction_as_a_whole(
    run: Path, tissue: np.ndarray, step: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(run)
    whole = predictor.predict(tissue)
    assert whole.instances.max() > 50
    monkeypatch.setattr(predictor_module, "WHOLE_PIXELS", 0)
    parts = list(predictor.predict_rows(by_rows(tissue, step)))
    assert sum(len(part.mask) > 0 for part in parts) > 3
    assert (np.concatenate([part.mask for part in parts]) == whole.mask).all()
    assert (np.concatenate([part.instances for part in parts]) == whole.instances).all()


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_prediction_by_rows_at_another_scale_differs_by_less_than_a_thousandth(
    run: Path, tissue: np.ndarray, change: dict, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(run)
    if "scale" in change:
        change = {"plan": predictor.card.plan.model_copy(update=change)}
    predictor.card = predictor.card.model_copy(update=change)
    whole = predictor.predict(tissue)
    monkeypatch.setattr(predictor_module, "WHOLE_PIXELS", 0)
    found = np.concatenate([part.mask for part in predictor.predict_rows(by_rows(tissue))])
    assert found.shape == whole.mask.shape
    assert (dice(found, whole.mask) or 0) > 0.999


def test_a_large_image_is_predicted_at_a_small_size_and_written_by_rows(
    run: Path, tissue: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = Predictor(run)
    rules = Rules(fit="pad", height=300, width=300)
    predictor.card = predictor.card.model_copy(update={"rules": rules})
    whole = predictor.predict(tissue)
    monkeypatch.setattr("unet.prediction.own_size.WHOLE_PIXELS", 0)
    parts = list(predictor.predict_rows(rows_of(tissue)))
    assert len(parts) > 10
    found = np.concatenate([part.instances for part in parts])
    assert (dice(found, whole.instances) or 0) > 0.99
    first = [np.flatnonzero(found == n)[0] for n in range(1, found.max() + 1)]
    assert first == sorted(first)


def test_files_read_by_rows_or_as_a_whole_give_the_same_artifact(
    run: Path, tissue: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "tissue.tif"
    tifffile.imwrite(path, tissue, photometric="rgb", tile=(64, 64), compression="zlib")
    ids = []
    for name, whole_px in (("whole", 1 << 24), ("rows", 0)):
        monkeypatch.setattr(rows_module, "WHOLE_PIXELS", whole_px)
        monkeypatch.setattr(predictor_module, "WHOLE_PIXELS", whole_px)
        out = predict_files(run, [path], tmp_path / name, maps=ALL_MAPS)
        ids.append(read_artifact(out, "prediction").id)
        assert altered_files(out) == contradictions(out) == []
        assert not list(out.glob(".*"))
    assert ids[0] == ids[1]


def test_maps_contain_probabilities_and_their_entropy(
    run: Path, tissue: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encode(tissue, ".png"))
    out = predict_files(run, [tmp_path / "a.png"], tmp_path / "p", maps=ALL_MAPS)
    row = json.loads((out / "predictions.json").read_text())["images"][0]
    planes = tifffile.imread(out / row["probabilities"])
    uncertainty = read_image(out / row["uncertainty"])
    _, prob_KHW = Predictor(run).predict_with_probabilities(tissue)
    assert planes.shape == (450, 330, 2)
    assert np.abs(planes / 255 - np.moveaxis(prob_KHW, 0, 2)).max() < 0.002
    assert np.abs(uncertainty / 255 - entropy(prob_KHW)).max() < 0.002
    assert uncertainty[planes.max(axis=2) < 140].min() > 240


def test_entropy_is_0_if_certain_and_1_if_all_classes_are_equal() -> None:
    prob_KHW = np.array([[[1, 1 / 3, 0.5]], [[0, 1 / 3, 0.5]], [[0, 1 / 3, 0]]], np.float32)
    np.testing.assert_allclose(entropy(prob_KHW)[0], [0, 1, np.log(2) / np.log(3)], atol=1e-6)


def test_with_tta_the_mask_rotates_with_the_image(run: Path, tissue: np.ndarray) -> None:
    square = np.ascontiguousarray(tissue[:96, :96])
    predictor = Predictor(run, tta=True)
    upright = predictor.predict_with_probabilities(square)[1]
    turned = predictor.predict_with_probabilities(np.rot90(square)[::-1].copy())[1]
    back = np.rot90(turned[:, ::-1], -1, axes=(1, 2))
    assert np.abs(upright - back).max() < 2e-3
    plain = Predictor(run).predict_with_probabilities(square)[1]
    assert np.abs(upright - plain).max() > 2e-3


def test_members_of_a_model_are_averaged(run: Path, tissue: np.ndarray) -> None:
    single, ensemble = Predictor(run), Predictor(run)
    net = Predictor(run).nets[0]
    for parameter in net.parameters():
        parameter.data *= 1.05
    ensemble.nets = [*ensemble.nets, net]
    first, second = Predictor(run), Predictor(run)
    second.nets = [net]
    mean = (first.predict_with_probabilities(tissue)[1]
            + second.predict_with_probabilities(tissue)[1]) / 2  # fmt: skip
    assert np.abs(ensemble.predict_with_probabilities(tissue)[1] - mean).max() < 1e-5
    assert np.abs(single.predict_with_probabilities(tissue)[1] - mean).max() > 1e-3


@pytest.mark.parametrize("backend", available_backends())
def test_all_backends_give_the_mask_of_float32(
    run: Path, tissue: np.ndarray, backend: Backend
) -> None:
    """After 40 steps many pixels are undecided; fully trained networks differ ten times less."""
    truth = Predictor(run, backend=Backend.FLOAT32).predict(tissue).mask
    found = Predictor(run, backend=backend).predict(tissue).mask
    assert (dice(found, truth) or 0) > 0.99


def test_folding_batch_norms_does_not_change_the_output(run: Path) -> None:
    net = Predictor(run).nets[0]
    tile_HWC = np.random.default_rng(0).random((64, 96, 3), np.float32)
    found = make_forward(net, Backend.FLOAT32)(tile_HWC)
    assert found.shape == (3, 64, 96)
    np.testing.assert_allclose(found[:2].sum(0), 1, atol=1e-5)
    predictor = Predictor(run)
    from unet.network.inference import probabilities_of_prepared

    plan = predictor.card.plan.model_copy(update={"precision": "float32"})
    np.testing.assert_allclose(found, probabilities_of_prepared(net, tile_HWC, plan), atol=1e-4)


def test_the_choice_of_backend_is_saved_and_a_damaged_file_is_replaced(
    run: Path, tmp_path: Path
) -> None:
    notes, net = tmp_path / "home" / "backends.json", Predictor(run).nets[0]
    choice = fastest_backend(net, model_id="m", choices_file=notes)
    assert choice.backend in choice.seconds
    assert set(choice.seconds) <= {str(backend) for backend in available_backends()}
    document = json.loads(notes.read_text())
    (key,) = document
    assert document[key] == {"backend": choice.backend, "seconds": choice.seconds}
    other = next(backend for backend in available_backends() if backend is not choice.backend)
    document[key] = {"backend": other, "seconds": {other: 1.0}}
    notes.write_text(json.dumps(document))
    assert fastest_backend(net, model_id="m", choices_file=notes) == BackendChoice(
        other, {other: 1.0}
    )
    notes.write_text("[1, 2")
    measured = fastest_backend(net, model_id="m", choices_file=notes)
    assert json.loads(notes.read_text())[key]["seconds"] == measured.seconds


def chosen_on_a_busy_machine(fast: Backend, seed: int) -> Backend:
    """Half of the times are up to ten times as long."""
    rng, now = np.random.default_rng(seed), [0.0]

    def forward(backend: Backend) -> None:
        noise = rng.uniform(1, 10) if rng.random() < 0.5 else rng.uniform(1, 1.03)
        now[0] += (1.0 if backend is fast else 1.4) * noise

    works = {backend: partial(forward, backend) for backend in Backend}
    return choose_backend(
        time_interleaved(works, is_enough=is_settled, clock=lambda: now[0])
    ).backend


@pytest.mark.parametrize("fast", list(Backend))
def test_a_busy_machine_does_not_change_the_choice_of_backend(fast: Backend) -> None:
    assert {chosen_on_a_busy_machine(fast, seed) for seed in range(300)} == {fast}


def test_the_backend_is_part_of_the_predictions_id(
    run: Path, tissue: np.ndarray, tmp_path: Path
) -> None:
    (tmp_path / "a.png").write_bytes(encode(tissue, ".png"))
    ids = set()
    for backend in (Backend.FLOAT32, Backend.BFLOAT16):
        predictor = Predictor(run, backend=backend)
        out = predict_files(run, [tmp_path / "a.png"], tmp_path / backend, predictor=predictor)
        assert json.loads((out / "predictions.json").read_text())["backend"] == backend
        ids.add(read_artifact(out).id)
    assert len(ids) == 2


def test_more_objects_than_16_bits_allow_are_written_as_a_verifiable_tiff(
    run: Path, tissue: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(map_files, "MAX_UINT16", 3)
    (tmp_path / "a.png").write_bytes(encode(tissue, ".png"))
    out = predict_files(run, [tmp_path / "a.png"], tmp_path / "p")
    numbers = tifffile.imread(out / "a_instances.tif")
    assert numbers.dtype == np.uint32
    assert (numbers == Predictor(run).predict(tissue).instances).all()
    assert (read_instances(out / "a_instances.tif") == numbers).all()
    assert contradictions(out) == []
    numbers[0, 0] += 1
    tifffile.imwrite(out / "a_instances.tif", numbers)
    assert any("a_instances.tif" in finding for finding in contradictions(out))


@pytest.mark.parametrize("size", [(10, 10), (1, 1), (3, 500)])
def test_tiny_images_are_predicted(run: Path, size: tuple[int, int], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(encode(np.full((*size, 3), 90, np.uint8), ".png"))
    out = predict_files(run, [tmp_path / "a.png"], tmp_path / "p", maps=ALL_MAPS)
    assert read_mask(out / "a_mask.png").shape == size


def test_a_truncated_tiff_is_an_error_and_leaves_no_folder(
    run: Path, tissue: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rows_module, "WHOLE_PIXELS", 0)
    path = tmp_path / "cut.tif"
    tifffile.imwrite(path, tissue, photometric="rgb")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(RulesError, match=r"cut\.tif.*(damaged|no image)"):
        predict_files(run, [path], tmp_path / "p")
    assert not (tmp_path / "p").exists()


@pytest.mark.parametrize("writes", [1, 4, 8])
def test_a_full_disk_is_an_error_and_leaves_no_folder(
    run: Path, tissue: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    (tmp_path / "a.png").write_bytes(encode(tissue, ".png"))
    left, write = [writes], map_files.Spool.write

    def full(spool: map_files.Spool, rows: np.ndarray) -> None:
        left[0] -= 1
        if not left[0]:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        write(spool, rows)

    monkeypatch.setattr(map_files.Spool, "write", full)
    with pytest.raises(UnetError, match="the disk is full"):
        predict_files(run, [tmp_path / "a.png"], tmp_path / "p", maps=ALL_MAPS)
    assert not (tmp_path / "p").exists()


def test_a_disk_that_fills_while_lineage_is_copied_is_an_error(
    run: Path, tissue: np.ndarray, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.png").write_bytes(encode(tissue, ".png"))

    def full(*_: object, **__: object) -> None:
        raise shutil.Error([("a", "b", f"[Errno 28] {os.strerror(errno.ENOSPC)}")])

    monkeypatch.setattr(shutil, "copytree", full)
    with pytest.raises(UnetError, match="the disk is full"):
        predict_files(run, [tmp_path / "a.png"], tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_killed_prediction_is_completed_by_the_same_call(
    run: Path, tissue: np.ndarray, tmp_path: Path
) -> None:
    image, out = tmp_path / "a.tif", tmp_path / "p"
    tifffile.imwrite(image, np.tile(tissue, (3, 3, 1)), photometric="rgb")
    code = (
        "import sys; from pathlib import Path\n"
        "from unet.prediction.predict_files import predict_files\n"
        "predict_files(Path(sys.argv[1]), [Path(sys.argv[2])], Path(sys.argv[3]))"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(run), str(image), str(out)])
    until = time.monotonic() + 60
    while not (out / ".a_mask.png.part").exists() and time.monotonic() < until:
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert list(out.glob(".*"))  # begun
    assert not (out / "files.sha256").exists()
    predict_files(run, [image], out)
    assert altered_files(out) == []
    assert not list(out.glob(".*"))


def test_a_tiff_and_a_png_of_the_same_pixels_have_the_same_content_hash(
    tmp_path: Path, tissue: np.ndarray
) -> None:
    tifffile.imwrite(tmp_path / "a.tif", tissue, photometric="rgb")
    (tmp_path / "a.png").write_bytes(encode(tissue, ".png"))
    assert content_hash(tmp_path / "a.tif") == content_hash(tmp_path / "a.png")
