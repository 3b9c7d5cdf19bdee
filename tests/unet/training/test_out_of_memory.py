import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.drawn import write_dataset
from tests.unet.runs.test_train import small_plan, weights_of
from unet.errors import Stopped, UnetError
from unet.network.checkpoint import load_tensors
from unet.planning.plan import Plan, read_plan
from unet.runs.train import train
from unet.training.out_of_memory import OUT_OF_MEMORY_MARKER, is_out_of_memory, shrink_plan
from unet.training.state import LAST

# Memory is limited between two events, so that only what happens between them depends on the
# machine.
LIMITED = """
import json, resource, sys
from pathlib import Path
from unet.planning.plan import read_plan
from unet.runs.train import train
import torch
torch.set_num_threads(1)
dataset, out, plan, room, begin, end = sys.argv[1:]
def limit_memory(room):
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + room if room >= 0 else -1, -1))
def report(event):
    print(json.dumps(event))
    if event["event"] == begin:
        limit_memory(int(room))
    if event["event"] == end:
        limit_memory(-1)
if begin == "start":
    limit_memory(int(room))
try:
    train([Path(dataset)], Path(out), plan=read_plan(Path(plan)), on_event=report, resume=True)
except Exception as error:
    sys.exit(f"{type(error).__name__}: {error}")
"""


def train_with_limited_memory(
    dataset: Path, run: Path, plan: Plan, *, room_mib: int, begin: str, end: str
) -> tuple[list[dict], str]:
    """Events and error of a training with limited memory between two events."""
    given = run.with_suffix(".json")
    given.write_text(plan.model_dump_json())
    command = [sys.executable, "-c", LIMITED, str(dataset), str(run), str(given),
               str(room_mib << 20), begin, end]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in (0, 1), done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr.strip()


@pytest.mark.system
def test_out_of_memory_shrinks_the_plan_and_its_record_replays(discs: Path, tmp_path: Path) -> None:
    plan = small_plan(discs, steps=2).model_copy(
        update={"batch": 64, "patch_px": 256, "widths": (8, 8, 8)}
    )
    run = tmp_path / "run"
    events, error = train_with_limited_memory(
        discs, run, plan, room_mib=1500, begin="start", end="shrink"
    )
    assert not error
    assert [e for e in events if e["event"] == "shrink"]
    recorded = read_plan(run / "plan.json")
    assert recorded.batch < 64
    assert "memory was refused" in recorded.reasons["batch"]
    torch.set_num_threads(1)
    replay = train([discs], tmp_path / "replay", plan=recorded)
    assert weights_of(replay) == weights_of(run)


def large_validation(folder: Path) -> tuple[Path, Plan]:
    """A dataset whose validation needs far more memory than a step of its training.

    The planes of the first stage take 128 MiB each, so their allocation fails, not that of a few
    pages without which libraries crash.
    """
    dataset = write_dataset(folder, train=2, val=1, test=1, size=512)
    plan = small_plan(dataset, steps=10)
    return dataset, plan.model_copy(
        update={"patch_px": 64, "tile_px": 512, "scale": 1.0, "widths": (128, 8, 8),
                "validate_at": (10,)}
    )  # fmt: skip


@pytest.mark.system
def test_a_validation_out_of_memory_retries_with_the_memory_of_training(tmp_path: Path) -> None:
    dataset, plan = large_validation(tmp_path / "large")
    events, error = train_with_limited_memory(
        dataset, tmp_path / "run", plan, room_mib=64, begin="step", end="warning"
    )
    assert not error
    warned = [e["text"] for e in events if e["event"] == "warning"]
    assert any("out of memory in validation" in text for text in warned)
    torch.set_num_threads(1)
    replay = train([dataset], tmp_path / "replay", plan=read_plan(tmp_path / "run" / "plan.json"))
    assert weights_of(replay) == weights_of(tmp_path / "run")


@pytest.mark.system
def test_a_validation_out_of_memory_ends_with_a_clear_error_and_resumes(tmp_path: Path) -> None:
    dataset, plan = large_validation(tmp_path / "large")
    run = tmp_path / "run"
    _, error = train_with_limited_memory(dataset, run, plan, room_mib=64, begin="step", end="never")
    assert "UnetError" in error
    assert "out of memory in validation" in error
    assert "--resume" in error
    assert (train([dataset], run, plan=plan, resume=True) / "model").is_dir()


def test_a_shrink_during_training_applies_from_its_step_and_replays(
    discs: Path, tmp_path: Path
) -> None:
    plan = small_plan(discs, steps=8)
    smaller = shrink_plan(plan.model_copy(update={"batch": 8}), 5)
    assert smaller.sizes(4) == (8, 64)
    assert smaller.sizes(5) == (4, 64)
    runs = [train([discs], tmp_path / name, plan=smaller) for name in ("a", "b")]
    assert weights_of(runs[0]) == weights_of(runs[1])


def test_a_run_that_shrinks_keeps_its_time_limit(discs: Path, tmp_path: Path) -> None:
    run, plan = tmp_path / "run", small_plan(discs).model_copy(update={"batch": 8})
    with pytest.raises(Stopped):
        train([discs], run, plan=plan, time_limit_s=60, is_to_stop=lambda: True)
    (run / OUT_OF_MEMORY_MARKER).touch()  # as if one of several processes ran out of memory
    events: list[dict[str, object]] = []
    train([discs], run, plan=plan, time_limit_s=3, resume=True, on_event=events.append)
    assert "shrink" in [event["event"] for event in events]
    assert load_tensors(run / LAST)[1]["limit_s"] == 3, "a prolonged run is recognised by it"


def test_a_batch_of_one_small_patch_cannot_shrink(discs: Path) -> None:
    plan = small_plan(discs).model_copy(update={"batch": 1, "patch_px": 64})
    with pytest.raises(UnetError, match="single small patch"):
        shrink_plan(plan, 0)


def test_out_of_memory_is_distinguished_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("sizes differ"))
    assert not is_out_of_memory(ValueError("out of memory"))
