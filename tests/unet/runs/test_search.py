import json
from pathlib import Path

import pytest

from dataset_rules.artifacts.hashes import content_hash
from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.artifacts.seal import altered_files
from tests.drawn import write_dataset
from tests.unet.runs.test_train import small_plan
from unet.errors import Stopped, UnetError
from unet.planning.plan import Plan
from unet.planning.search_space import FACTORS, apply_changes, trial_changes
from unet.runs.folds import FoldRule
from unet.runs.protocol import TrainingProtocol
from unet.runs.search import Trial, rank_trials, round_sizes
from unet.runs.train import train

FOUR = TrainingProtocol(trials=4)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "discs")


@pytest.fixture(scope="module")
def run(dataset: Path) -> Path:
    return train(
        [dataset], dataset.parent / "run", plan=small_plan(dataset, steps=36), protocol=FOUR
    )


def table(run: Path) -> list[Trial]:
    return [Trial(**row) for row in json.loads((run / "search.json").read_text())["trials"]]


def test_a_third_of_the_trials_advances_until_one_is_left() -> None:
    assert round_sizes(27) == [27, 9, 3]
    assert round_sizes(8) == [8, 3]
    assert round_sizes(4) == [4, 2]
    assert round_sizes(2) == [2]


def test_the_first_trial_is_the_plan_and_the_others_depend_on_their_number_only() -> None:
    drawn = [trial_changes(trial, seed=0, keeps_network=False) for trial in range(60)]
    assert drawn[0] == {}
    assert all(drawn[1:])
    assert drawn[7] == trial_changes(7, seed=0, keeps_network=False)
    assert {name for changes in drawn for name in changes} == set(FACTORS)
    fixed = [trial_changes(trial, seed=0, keeps_network=True) for trial in range(60)]
    assert not any("widths" in changes for changes in fixed)


def test_changes_keep_the_plan_valid_and_say_why(dataset: Path) -> None:
    plan = small_plan(dataset)
    for trial in range(60):
        other = apply_changes(plan, trial_changes(trial, seed=1, keeps_network=False))
        assert Plan.model_validate(other.model_dump()) == other
        assert other.zoom_min <= 1 <= other.zoom_max
    faster = apply_changes(plan, {"learning_rate": 2.0})
    assert faster.learning_rate == 2 * plan.learning_rate
    assert faster.reasons["learning_rate"] == "the best of the search"


def test_better_trials_train_longer_and_the_best_plan_is_trained(run: Path) -> None:
    rows = table(run)
    first, second = ([r for r in rows if r.round == n] for n in (0, 1))
    assert [len(first), len(second)] == [4, 2]
    assert {r.trial for r in second} == {r.trial for r in rank_trials(first)[:2]}
    assert {r.steps for r in first} == {4}
    assert {r.steps for r in second} == {12}
    plan = Plan.model_validate_json((run / "plan.json").read_text())
    best = rank_trials(second)[0]
    assert plan.steps == 36
    assert plan.learning_rate == pytest.approx(best.values["learning_rate"])
    assert plan.widths == tuple(best.values["widths"])


def test_the_run_is_intact_and_contains_the_table(run: Path) -> None:
    assert altered_files(run) == []
    manifest = json.loads((run / "manifest.json").read_text())
    assert "search.json" in manifest["files"]
    assert manifest["parameters"]["search"] == 4
    assert not (run / "search").exists()


def test_a_search_stopped_often_ends_with_the_same_id(run: Path, dataset: Path, tmp_path):
    cut, plan = tmp_path / "cut", small_plan(dataset, steps=36)
    for steps in (3, 5, 14):
        asked = iter([False] * steps + [True])
        with pytest.raises(Stopped):
            train([dataset], cut, plan=plan, protocol=FOUR, resume=True,
                  is_to_stop=lambda asked=asked: next(asked))  # fmt: skip
    train([dataset], cut, plan=plan, protocol=FOUR, resume=True)
    assert [row.dice for row in table(cut)] == [row.dice for row in table(run)]
    assert read_artifact(cut, "run").id == read_artifact(run, "run").id


@pytest.mark.long
def test_a_search_keeps_its_time_limit_and_trains_the_best_plan(dataset: Path, tmp_path: Path):
    events: list[dict] = []
    run = train([dataset], tmp_path / "run", time_limit_s=26, protocol=TrainingProtocol(trials=2),
                on_event=events.append)  # fmt: skip
    assert [row.trial for row in table(run)] == [0, 1]
    at = [event["event"] for event in events]
    assert at.count("part done") == 2
    assert at.index("search") < at.index("done")
    assert {event["trial"] for event in events if "trial" in event} == {0, 1}
    done = next(event for event in events if event["event"] == "done")
    assert 8 < done["seconds"] < 15
    assert content_hash(run / "best.safetensors") == content_hash(run / "model/weights.safetensors")


def test_folds_follow_a_search(dataset: Path, tmp_path: Path) -> None:
    protocol = TrainingProtocol(trials=2, folds=FoldRule(count=2))
    run = train([dataset], tmp_path / "run", plan=small_plan(dataset, steps=12), protocol=protocol)
    best = rank_trials(table(run))[0]
    for fold in ("fold-0", "fold-1"):
        plan = Plan.model_validate_json((run / fold / "plan.json").read_text())
        assert plan.learning_rate == pytest.approx(best.values["learning_rate"])


def test_too_little_time_or_too_few_trials_are_refused(dataset: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(UnetError, match=r"too short for a search of 9 trials.*at least 108 s"):
        train([dataset], run, time_limit_s=30, protocol=TrainingProtocol(trials=9))
    with pytest.raises(UnetError, match="at least 2"):
        train([dataset], run, protocol=TrainingProtocol(trials=1))
    assert not run.exists()


def test_a_search_without_held_out_samples_is_refused(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "one", train=1, val=0)
    with pytest.raises(UnetError, match="no samples are held out"):
        train([dataset], tmp_path / "run", protocol=FOUR)
