import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unet.test_train import small_plan
from unet.checkpoint import load_tensors
from unet.errors import UnetError
from unet.group import Group, joined
from unet.step import device_named
from unet.train import train


def test_shares_cover_the_batch_once() -> None:
    for size in (1, 2, 3, 5, 8):
        places = [place for rank in range(size) for place in Group(rank, size).share(8)]
        assert places == list(range(8))


def test_more_processes_than_patches_are_refused() -> None:
    with pytest.raises(UnetError, match="more processes than patches"):
        Group(0, 3).share(2)


def test_outside_of_torchrun_a_process_is_by_itself() -> None:
    with joined({}, "cpu") as group:
        assert group == Group(0, 1)


def test_a_gpu_that_is_not_there_is_said() -> None:
    if torch.cuda.is_available():
        pytest.skip("here is one")
    assert device_named("auto") == "cpu"
    with pytest.raises(UnetError, match="no GPU can be used here"):
        device_named("cuda")


@pytest.mark.system
def test_two_processes_train_as_one_at_equal_batch(discs: Path, tmp_path: Path) -> None:
    """Floats are added in another order: where a gradient is near zero, AdamW may turn a weight
    the other way. All others stay equal."""
    plan = small_plan(discs, steps=8).model_copy(update={"batch": 4})
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    losses: dict[str, list[float]] = {"one": [], "two": []}

    def note(event: dict) -> None:
        if event["event"] == "step":
            losses["one"].append(event["loss"])

    one = train([discs], tmp_path / "one", plan=plan, on_event=note)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone",
               "--nproc-per-node", "2", "-m", "app.cli", "train", str(discs),
               "--out", str(tmp_path / "two"), "--plan", str(tmp_path / "plan.json"),
               "--json"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    events = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    losses["two"] = [e["loss"] for e in events if e["event"] == "step"]
    assert losses["two"] == pytest.approx(losses["one"], abs=2e-3)
    files = [run / "last.safetensors" for run in (one, tmp_path / "two")]
    weights = [load_tensors(path)[0] for path in files]
    for name, tensor in weights[0].items():
        apart = (weights[1][name].float() - tensor.float()).abs()
        assert apart.mean() < 1e-3, name
        assert apart.max() < plan.steps * plan.learning_rate, name
