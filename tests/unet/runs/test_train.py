import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path

import pytest

from dataset_rules.artifacts.hashes import content_hash
from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.artifacts.seal import altered_files
from tests.drawn import write_dataset
from unet.errors import Stopped, UnetError
from unet.network.checkpoint import load_tensors
from unet.planning.fingerprint import fingerprint
from unet.planning.plan import Plan, make_plan, make_schedule
from unet.runs.train import train
from unet.scoring.evaluate import evaluate


def small_plan(dataset: Path, *, steps: int = 6) -> Plan:
    plan = make_plan(fingerprint([dataset]), patches=2 * steps)
    return plan.model_copy(
        update={
            "widths": (4, 8, 8),
            "batch": 2,
            **asdict(make_schedule(steps)),
            "validate_at": (3, steps),
        }
    )


def weights_of(run: Path) -> str:
    return content_hash(run / "model" / "weights.safetensors")


def test_two_runs_of_one_plan_are_bit_identical(discs: Path, tmp_path: Path) -> None:
    plan = small_plan(discs)
    runs = [train([discs], tmp_path / name, plan=plan) for name in ("a", "b")]
    assert weights_of(runs[0]) == weights_of(runs[1])
    ids = {read_artifact(run / "model", "model").id for run in runs}
    assert len(ids) == 1


class StopError(Exception):
    pass


def test_deep_supervision_trains_the_coarser_stages_and_replays(discs: Path, tmp_path: Path):
    plan = small_plan(discs).model_copy(update={"deep_supervision": 1})
    runs = [train([discs], tmp_path / name, plan=plan) for name in ("a", "b")]
    assert weights_of(runs[0]) == weights_of(runs[1])
    weights, _ = load_tensors(runs[0] / "model" / "weights.safetensors")
    assert weights["coarse.0.weight"].abs().max() > 0
    assert evaluate(runs[0], discs).document()["n"] > 0


def stop_once_saved(run: Path):
    """An event handler that stops the training at the first step after a checkpoint."""

    def stop(event: dict) -> None:
        if event["event"] == "validation" and (run / "last.safetensors").exists():
            raise StopError

    return stop


def test_stopped_and_resumed_equals_uninterrupted(discs: Path, tmp_path: Path) -> None:
    plan = small_plan(discs, steps=20).model_copy(update={"validate_at": (4, 8, 12, 16, 20)})
    whole, cut = train([discs], tmp_path / "whole", plan=plan), tmp_path / "cut"
    with pytest.raises(StopError):
        train([discs], cut, plan=plan, on_event=stop_once_saved(cut))
    events: list[dict] = []
    train([discs], cut, plan=plan, resume=True, on_event=events.append)
    (begun,) = [event["step"] for event in events if event["event"] == "plan"]
    assert begun >= 4  # the first saved step, not the start
    assert weights_of(cut) == weights_of(whole)


def test_stopped_twenty_times_it_progresses_and_equals_uninterrupted(discs: Path, tmp_path: Path):
    plan = small_plan(discs, steps=21)
    whole, cut = train([discs], tmp_path / "whole", plan=plan), tmp_path / "cut"
    began_at: list[int] = []

    def note(event: dict) -> None:
        if event["event"] == "plan":
            began_at.append(event["step"])

    for _ in range(20):
        with pytest.raises(Stopped):
            train([discs], cut, plan=plan, resume=True, on_event=note, is_to_stop=lambda: True)
    train([discs], cut, plan=plan, resume=True, on_event=note)
    assert began_at == list(range(21))
    assert weights_of(cut) == weights_of(whole)


def test_a_started_run_is_not_resumed_implicitly(discs: Path, tmp_path: Path) -> None:
    plan, run = small_plan(discs), tmp_path / "run"
    with pytest.raises(StopError):
        train([discs], run, plan=plan, on_event=stop_once_saved(run))
    with pytest.raises(UnetError, match="--resume"):
        train([discs], run, plan=plan)


def test_a_time_limit_is_kept_and_leaves_a_usable_model(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", train=12)
    begun = time.monotonic()
    run = train([dataset], tmp_path / "run", time_limit_s=14)
    assert time.monotonic() - begun < 21
    scores = evaluate(run, dataset).document()
    assert scores["n"] == 2
    assert scores["dice_mean"] is not None  # how good it is depends on the machine's speed
    assert altered_files(run) == [] == altered_files(run / "model")
    events = [json.loads(line) for line in (run / "events.jsonl").read_text().splitlines()]
    assert {"plan", "step", "validation", "done"} <= {event["event"] for event in events}


def test_a_finished_run_is_not_changed(discs: Path, tmp_path: Path) -> None:
    plan = small_plan(discs)
    run = train([discs], tmp_path / "run", plan=plan)
    before = weights_of(run)
    assert train([discs], run, plan=plan) == run
    assert weights_of(run) == before


def test_a_run_that_another_process_writes_is_refused(discs: Path, tmp_path: Path) -> None:
    import fcntl

    run = tmp_path / "run"
    run.mkdir()
    handle = os.open(run, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UnetError, match="another process"):
        train([discs], run, plan=small_plan(discs))
    os.close(handle)


def test_without_validation_split_one_group_is_held_out(tmp_path: Path) -> None:
    dataset = write_dataset(tmp_path / "set", val=0)
    run = train([dataset], tmp_path / "run", plan=small_plan(dataset))
    assert json.loads((run / "run.json").read_text())["validated_on"] == "1 held-out samples"


def test_a_plan_for_other_classes_is_refused(discs: Path, tmp_path: Path) -> None:
    plan = small_plan(discs)
    other = plan.model_copy(
        update={"classes": (plan.classes[0], plan.classes[1].model_copy(update={"name": "cell"}))}
    )
    with pytest.raises(UnetError, match="a different dataset"):
        train([discs], tmp_path / "run", plan=other)


def test_a_truncated_checkpoint_is_an_error(discs: Path, tmp_path: Path) -> None:
    plan, run = small_plan(discs), tmp_path / "run"

    with pytest.raises(StopError):
        train([discs], run, plan=plan, on_event=stop_once_saved(run))
    data = (run / "last.safetensors").read_bytes()
    (run / "last.safetensors").write_bytes(data[: len(data) // 2])
    with pytest.raises(UnetError, match="damaged or cut short"):
        train([discs], run, plan=plan, resume=True)


def kill_in_training(command: list[str], run: Path, *, after_s: float) -> None:
    """Start a training and kill it `after_s` seconds after its next save."""
    saved = run / "last.safetensors"
    before = saved.stat().st_mtime_ns if saved.exists() else 0
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until:
        if saved.exists() and saved.stat().st_mtime_ns > before:
            break
        time.sleep(0.01)
    time.sleep(after_s)
    process.send_signal(signal.SIGKILL)
    process.wait()


def test_a_killed_and_resumed_run_has_equal_weights(discs: Path, tmp_path: Path) -> None:
    plan_file = tmp_path / "plan.json"
    plan = small_plan(discs, steps=60)
    plan = plan.model_copy(update={"validate_at": tuple(range(5, 61, 5))})
    plan_file.write_text(plan.model_dump_json())
    whole = train([discs], tmp_path / "whole", plan=plan)
    run = tmp_path / "killed"
    command = [sys.executable, "-m", "app.cli", "train", str(discs), "--out", str(run),
               "--plan", str(plan_file), "--resume", "--json"]  # fmt: skip
    for _ in range(2):
        kill_in_training(command, run, after_s=0.0)
        assert not (run / "manifest.json").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert weights_of(run) == weights_of(whole)
