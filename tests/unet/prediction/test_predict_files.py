import json
import shutil
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset_rules.artifacts.manifest import RECORD_KEY, read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.ground.errors import ArtifactError, RulesError
from dataset_rules.pixels.images import encode, read_image, read_mask
from dataset_rules.pixels.png import png_text
from dataset_rules.rules.rules import Rules
from tests.drawn import write_dataset
from unet.errors import UnetError
from unet.planning.fingerprint import common_rules, fingerprint
from unet.planning.plan import make_plan, make_schedule
from unet.prediction.predict_files import predict_files
from unet.prediction.predictor import Predictor
from unet.runs.train import train
from unet.scoring.evaluate import evaluate
from unet.scoring.metrics import pixel_counts


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "discs", train=12)


@pytest.fixture(scope="module")
def run(dataset: Path) -> Path:
    """A small network that has learnt to find discs."""
    plan = make_plan(fingerprint([dataset]), patches=320)
    update = {"widths": (8, 16, 16), "batch": 4, **asdict(make_schedule(80))}
    return train([dataset], dataset.parent / "run", plan=plan.model_copy(update=update))


@pytest.mark.parametrize("size", [(64, 64), (1, 1), (7, 300), (65, 33), (600, 560)])
@pytest.mark.parametrize("kind", ["rgb", "grey", "deep"])
def test_any_image_gets_a_mask_of_its_size(run: Path, size: tuple, kind: str) -> None:
    image = np.random.default_rng(0).integers(0, 255, (*size, 3)).astype(np.uint8)
    image = {"rgb": image, "grey": image[..., 0], "deep": image[..., 0].astype(np.uint16) * 257}[
        kind
    ]
    found = Predictor(run).predict(image)
    assert found.mask.shape == found.instances.shape == size
    assert found.mask.dtype == np.uint8
    assert ((found.mask > 0) == (found.instances > 0)).all()


def test_prediction_in_tiles_equals_prediction_as_a_whole(run: Path, dataset: Path) -> None:
    tile = read_image(dataset / "test/images/test0.png")
    image = np.tile(tile, (3, 3, 1))
    whole, tiled = Predictor(run), Predictor(run)
    plan = whole.card.plan
    tiled.card = tiled.card.model_copy(
        update={"plan": plan.model_copy(update={"tile_px": 96, "overlap_px": 32})}
    )
    expected, found = whole.predict(image).mask > 0, tiled.predict(image).mask > 0
    assert pixel_counts(expected, found, np.ones(expected.shape, bool)).dice > 0.97


def test_a_model_of_stretched_images_stretches_new_ones(run: Path, dataset: Path) -> None:
    """An image of another size is resized to the size that the network was trained on."""
    image = read_image(dataset / "test/images/test0.png")
    predictor = Predictor(run)
    own = predictor.predict(image)
    rules = Rules(height=64, width=64, fit="stretch")
    predictor.card = predictor.card.model_copy(update={"rules": rules})
    assert (predictor.predict(image).mask == own.mask).all()
    larger = cv2.resize(image, (320, 192), interpolation=cv2.INTER_CUBIC)
    found = predictor.predict(larger)
    assert found.mask.shape == (192, 320)
    back = cv2.resize(found.mask, (64, 64), interpolation=cv2.INTER_AREA) > 0
    assert pixel_counts(own.mask > 0, back, np.ones(back.shape, bool)).dice > 0.9
    assert found.instances.max() == own.instances.max()


def test_datasets_of_different_forms_cannot_be_combined(dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other")
    rules = json.loads((other / "rules.json").read_text())
    rules.update(height=64, width=64, fit="stretch")
    (other / "rules.json").write_text(json.dumps(rules))
    assert common_rules([dataset]) == Rules()
    with pytest.raises(UnetError, match="differ in the form"):
        common_rules([dataset, other])


def test_predictions_are_an_artifact_and_masks_contain_its_record(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    images = sorted((dataset / "test/images").iterdir())
    out = predict_files(run, images, tmp_path / "p")
    artifact = read_artifact(out, "prediction")
    assert altered_files(out) == []
    rows = json.loads((out / "predictions.json").read_text())["images"]
    assert [row["image"] for row in rows] == [path.name for path in images]
    for row in rows:
        assert png_text((out / row["mask"]).read_bytes(), RECORD_KEY) == artifact.record
        instances = read_mask(out / row["instances"])
        assert instances.dtype == np.uint16
        assert row["objects"] == len(np.unique(instances[instances > 0])) > 0
    assert predict_files(run, images, tmp_path / "again")
    assert read_artifact(tmp_path / "again").id == artifact.id


def test_images_with_the_same_name_are_prefixed_with_their_folder(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    images = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        images.append(tmp_path / folder / "1.png")
        images[-1].write_bytes(encode(np.zeros((9, 9, 3), np.uint8), ".png"))
    out = predict_files(run, images, tmp_path / "p")
    assert {path.name for path in out.glob("*_mask.png")} == {"a__1_mask.png", "b__1_mask.png"}


def test_files_that_are_not_images_are_listed_and_nothing_is_written(
    run: Path, tmp_path: Path
) -> None:
    bad = [tmp_path / "a.png", tmp_path / "b.png"]
    bad[0].write_text("text")
    with pytest.raises(RulesError, match=r"a\.png.*b\.png"):
        predict_files(run, bad, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_a_folder_that_is_not_a_model_is_an_error(dataset: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no model"):
        Predictor(dataset)
    with pytest.raises(ArtifactError, match="no such folder"):
        Predictor(tmp_path / "none")


def test_altered_datasets_and_models_are_refused(dataset: Path, run: Path, tmp_path: Path) -> None:
    copies = {name: tmp_path / name for name in ("dataset", "run")}
    shutil.copytree(dataset, copies["dataset"])
    shutil.copytree(run, copies["run"])
    image = copies["dataset"] / "train/images/train0.png"
    image.write_bytes(encode(np.zeros((64, 64, 3), np.uint8), ".png"))
    weights = copies["run"] / "model/weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    with pytest.raises(ArtifactError, match=r"train0\.png was altered"):
        train([copies["dataset"]], tmp_path / "new")
    assert not (tmp_path / "new").exists() or not any((tmp_path / "new").iterdir())
    with pytest.raises(ArtifactError, match=r"train0\.png was altered"):
        evaluate(run, copies["dataset"])
    with pytest.raises(ArtifactError, match=r"weights\.safetensors was altered"):
        Predictor(copies["run"])


def test_a_refused_prediction_leaves_no_folder_behind(run: Path, tmp_path: Path) -> None:
    cut, pixels = tmp_path / "cut.png", np.random.default_rng(0).integers(0, 255, (64, 64, 3))
    whole = encode(pixels.astype(np.uint8), ".png")
    cut.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RulesError, match="damaged or cut short"):
        predict_files(run, [cut], tmp_path / "p")
    assert not (tmp_path / "p").exists()
    cut.write_bytes(whole)
    assert altered_files(predict_files(run, [cut], tmp_path / "p")) == []


def test_nothing_is_written_into_a_sealed_folder(run: Path, dataset: Path) -> None:
    image = dataset / "test/images/test0.png"
    with pytest.raises(ArtifactError, match="inside a finished result"):
        predict_files(run, [image], dataset / "prediction")
    assert not (dataset / "prediction").exists()
    assert altered_files(dataset) == []
