import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from dataset_rules.artifacts.dataset import DATASET, read_dataset, read_sample
from dataset_rules.artifacts.hashes import content_hash
from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.rules.rules import Rules
from tests.drawn import draw_discs, write_dataset
from tests.unet.runs.test_train import small_plan
from unet.errors import Stopped, UnetError
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import read_plan
from unet.prediction.model_files import ModelCard, load_net
from unet.prediction.predictor import Networks, Predictor
from unet.runs.cross_validation import EVIDENCE
from unet.runs.folds import Fold, FoldRule, make_folds
from unet.runs.protocol import TrainingProtocol
from unet.runs.threshold_choice import Evidence, choose_settings
from unet.runs.train import train
from unet.scoring.evaluate import evaluate

TWO = TrainingProtocol(folds=FoldRule(count=2))


def hashes(run: Path) -> list[str]:
    model = run / "model"
    return [content_hash(path) for path in sorted(model.glob("*.safetensors"))]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="module")
def run(dataset: Path) -> Path:
    """Two folds of a fixed plan of six steps each."""
    return train([dataset], dataset.parent / "run", plan=small_plan(dataset), protocol=TWO)


def test_the_model_contains_one_network_per_fold_and_predicts_with_all(run: Path) -> None:
    assert sorted(p.name for p in (run / "model").glob("*.safetensors")) == [
        "weights-1.safetensors", "weights.safetensors",
    ]  # fmt: skip
    assert len(set(hashes(run))) == 2
    predictor = Predictor(run)
    assert predictor.card.members == 2
    image = draw_discs(np.random.default_rng(5))[0]
    mean = predictor.predict_with_probabilities(image)[1]
    nets, singles = predictor.nets, []
    for net in nets:
        predictor.nets, predictor._forwards = [net], []
        singles.append(predictor.predict_with_probabilities(image)[1])
    assert np.allclose(mean, (singles[0] + singles[1]) / 2, atol=1e-6)
    assert not np.allclose(singles[0], singles[1], atol=1e-3)


def test_each_sample_is_scored_once_by_the_network_trained_without_it(run: Path, dataset: Path):
    document = json.loads((run / "folds.json").read_text())
    usable = {s.name for s in read_dataset(dataset).samples if s.split != "test"}
    assert {image["name"] for image in document["images"]} == usable
    assert document["n"] == 8 == sum(fold["n"] for fold in document["folds"])
    assert [fold["trained_on"] + fold["n"] for fold in document["folds"]] == [8, 8]
    assert document["datasets"][0]["dice_mean"] == document["dice_mean"]


@pytest.fixture(scope="module")
def learnt(dataset: Path) -> Path:
    """Two folds of enough steps that their networks find different pixels."""
    plan = small_plan(dataset, steps=40).model_copy(update={"validate_at": (40,)})
    return train([dataset], dataset.parent / "learnt", plan=plan, protocol=TWO)


def dices(run: Path, network: int, fold: Fold) -> dict[str, float]:
    """Dice of the held-out samples of a fold by one network, computed here.

    Its thresholds are those of the fold that did not choose them: of two folds, the other one.
    """
    folder = run / f"fold-{network}"
    plan = read_plan(folder / "plan.json")
    other = Evidence.model_validate_json((run / f"fold-{1 - fold.number}" / EVIDENCE).read_bytes())
    facts = Fingerprint.model_validate_json((run / "fingerprint.json").read_bytes())
    card = ModelCard(plan=plan, rules=Rules(), split=choose_settings([other], facts), scores={})
    networks = Networks([load_net(folder / "best.safetensors", plan)], card)
    found = {}
    for dataset, sample in fold.held_out:
        image, mask, _ = read_sample(dataset, sample)
        said = networks.predict(image).mask > 0
        found[sample.name] = 2 * (said & (mask > 0)).sum() / (said.sum() + (mask > 0).sum())
    return found


@pytest.mark.parametrize("number", [0, 1])
def test_the_scores_of_a_fold_are_those_of_its_own_network(
    learnt: Path, dataset: Path, number: int
) -> None:
    """The other fold's network was trained on these samples."""
    document = json.loads((learnt / "folds.json").read_text())
    fold = make_folds([dataset], FoldRule(count=2)).folds[number]
    own, other = (dices(learnt, network, fold) for network in (number, 1 - number))
    assert own != pytest.approx(other)
    rows = {image["name"]: image["dice"] for image in document["images"]}
    assert {name: rows[name] for name in own} == pytest.approx(own)
    assert document["folds"][number]["dice_mean"] == pytest.approx(np.mean(list(own.values())))
    assert set(document["folds"][number]["tissues"]) == own.keys()


def test_the_run_is_intact_and_can_be_evaluated(run: Path, dataset: Path) -> None:
    assert altered_files(run) == [] == altered_files(run / "model")
    assert evaluate(run, dataset).document()["n"] == 2
    facts = json.loads((run / "run.json").read_text())
    assert facts["members"] == 2
    assert "8 samples in 2 folds" in facts["validated_on"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert manifest["parameters"]["folds"]["count"] == 2
    assert {"fold-0/best.safetensors", "fold-1/best.safetensors", "folds.json"} <= set(
        manifest["files"]
    )


def test_stopped_after_every_step_it_resumes_and_gets_the_same_id(
    run: Path, dataset: Path, tmp_path: Path
) -> None:
    cut, begun = tmp_path / "cut", []

    def note(event: dict) -> None:
        if event["event"] == "plan":
            begun.append((event["fold"], event["step"]))

    for _ in range(40):
        try:
            train([dataset], cut, plan=small_plan(dataset), protocol=TWO, resume=True,
                  on_event=note, is_to_stop=lambda: True)  # fmt: skip
        except Stopped:
            continue
        break
    else:
        train([dataset], cut, plan=small_plan(dataset), protocol=TWO, resume=True)
    assert begun[:3] == [(0, 0), (0, 1), (0, 2)]
    assert (1, 5) in begun
    assert hashes(cut) == hashes(run)
    assert [read_artifact(r, "run").id for r in (cut, run)] == [read_artifact(run, "run").id] * 2


def test_folds_share_the_time_limit_and_report_progress(dataset: Path, tmp_path: Path):
    events: list[dict] = []
    run = train([dataset], tmp_path / "run", time_limit_s=9, protocol=TWO, on_event=events.append)
    document = json.loads((run / "folds.json").read_text())
    steps = [fold["steps"] for fold in document["folds"]]
    assert min(steps) >= 1
    kinds = [event["event"] for event in events]
    assert (kinds[0], kinds[-1]) == ("folds", "cross-validation")
    assert kinds.count("part done") == 2
    trained = [event for event in events if event["event"] in {"step", "validation"}]
    assert {event["fold"] for event in trained} == {0, 1}
    assert all(event["run_seconds_left"] >= 0 for event in trained)
    times = [event["run_s"] for event in events]
    assert times == sorted(times)


def test_too_little_time_for_the_folds_is_refused_and_leaves_no_folder(dataset: Path, tmp_path):
    run = tmp_path / "run"
    with pytest.raises(UnetError, match=r"too short for 4 folds.*at least 12 s.*8 s, 2.0 s"):
        train([dataset], run, time_limit_s=8, protocol=TrainingProtocol(folds=FoldRule(count=4)))
    assert not run.exists()


def test_more_folds_than_groups_are_refused_and_leave_no_folder(dataset: Path, tmp_path: Path):
    run = tmp_path / "run"
    with pytest.raises(UnetError, match="fewer groups than folds"):
        train([dataset], run, protocol=TrainingProtocol(folds=FoldRule(count=9)))
    assert not run.exists()


def test_a_class_missing_from_a_folds_training_is_refused_and_leaves_no_folder(
    tmp_path: Path,
) -> None:
    dataset = write_dataset(tmp_path / "set", train=4, val=0, test=0, rings=["train0"])
    rule, run = FoldRule(count=2, groups=(("train0", "train1"),)), tmp_path / "run"
    message = r"fold 0, which holds out train0, train1.*none of class 2 ring.*'training'"
    with pytest.raises(UnetError, match=message):
        train([dataset], run, protocol=TrainingProtocol(folds=rule))
    assert not run.exists()
    kept = FoldRule(count=2, training=("train0",))
    assert (
        train([dataset], run, plan=small_plan(dataset), protocol=TrainingProtocol(folds=kept))
        == run
    )


def test_a_plan_for_other_classes_is_refused_with_folds(dataset: Path, tmp_path: Path) -> None:
    plan = small_plan(dataset)
    other = plan.model_copy(
        update={"classes": (plan.classes[0], plan.classes[1].model_copy(update={"name": "cell"}))}
    )
    with pytest.raises(UnetError, match="a different dataset"):
        train([dataset], tmp_path / "run", plan=other, protocol=TWO)
    assert not (tmp_path / "run").exists()


def test_started_folds_are_not_resumed_implicitly(dataset: Path, tmp_path: Path) -> None:
    plan, run = small_plan(dataset), tmp_path / "run"
    with pytest.raises(Stopped):
        train([dataset], run, plan=plan, protocol=TWO, is_to_stop=lambda: True)
    with pytest.raises(UnetError, match="--resume"):
        train([dataset], run, plan=plan, protocol=TWO)


def test_folds_of_a_dataset_the_initial_model_was_trained_on_are_refused(
    run: Path, dataset: Path, tmp_path
):
    with pytest.raises(UnetError, match="was trained on samples"):
        train([dataset], tmp_path / "run", start=run, protocol=TWO)


def test_scores_are_reported_per_dataset(dataset: Path, tmp_path: Path) -> None:
    other = write_dataset(tmp_path / "other", train=3, val=0, test=0, seed=7)
    content = json.loads((other / DATASET).read_text())
    assert [s["group"] for s in content["samples"]] == ["train0", "train1", "train2"]
    run = train([dataset, other], tmp_path / "run", plan=small_plan(dataset), protocol=TWO)
    document = json.loads((run / "folds.json").read_text())
    assert [scores["n"] for scores in document["datasets"]] == [8, 3]
    for fold in document["folds"]:
        assert [d["n"] for d in fold["datasets"]] == [
            fold["n"] - fold["datasets"][1]["n"], len([t for t in fold["tissues"]
            if t in ("train0", "train1", "train2")]),
        ]  # fmt: skip
    shutil.rmtree(run)
