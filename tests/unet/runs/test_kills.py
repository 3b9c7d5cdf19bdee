"""Many kills at random moments; run by `make test-long`."""

import random
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_rules.artifacts.seal import altered_files
from tests.drawn import write_dataset
from tests.unet.runs.test_train import kill_in_training, small_plan, weights_of
from unet.runs.train import train

pytestmark = [pytest.mark.long]


@pytest.mark.parametrize("seed", range(3))
def test_ten_kills_of_a_training_change_no_weight(seed: int, tmp_path: Path) -> None:
    moments = random.Random(seed)
    dataset, run = write_dataset(tmp_path / "set"), tmp_path / "run"
    plan = small_plan(dataset, steps=2000)
    update = {"validate_at": tuple(range(10, 2001, 10)), "patience": 0}
    plan = plan.model_copy(update=update)
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    whole = train([dataset], tmp_path / "whole", plan=plan)
    command = [sys.executable, "-m", "app.cli", "train", str(dataset), "--out", str(run),
               "--plan", str(tmp_path / "plan.json"), "--resume", "--json"]  # fmt: skip
    for _ in range(10):
        kill_in_training(command, run, after_s=moments.uniform(0, 0.5))
        assert not (run / "manifest.json").exists()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    assert weights_of(run) == weights_of(whole)
    assert altered_files(run) == [] == altered_files(run / "model")
