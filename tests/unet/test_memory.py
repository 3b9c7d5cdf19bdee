import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.unet.test_train import small_plan, weights_of
from unet.errors import UnetError
from unet.plan import read_plan
from unet.shrinking import shrunk
from unet.step import is_out_of_memory
from unet.train import train

LIMITED = """
import json, resource, sys
from pathlib import Path
from unet.plan import read_plan
from unet.train import train
import torch
torch.set_num_threads(1)
dataset, out, plan, room = sys.argv[1:]
held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (held + int(room), -1))
tell = lambda event: print(json.dumps(event))
train([Path(dataset)], Path(out), plan=read_plan(Path(plan)), on_event=tell)
"""


@pytest.mark.system
def test_where_memory_is_refused_the_plan_shrinks_says_so_and_its_record_replays(
    discs: Path, tmp_path: Path
) -> None:
    plan = small_plan(discs, steps=2).model_copy(
        update={"batch": 64, "patch_px": 256, "widths": (8, 8, 8)}
    )
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    command = [sys.executable, "-c", LIMITED, str(discs), str(tmp_path / "run"),
               str(tmp_path / "plan.json"), str(1500 << 20)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert [e for e in events if e["event"] == "shrink"]
    recorded = read_plan(tmp_path / "run" / "plan.json")
    assert recorded.batch < 64
    assert "memory was refused" in recorded.reasons["batch"]
    torch.set_num_threads(1)
    replay = train([discs], tmp_path / "replay", plan=recorded)
    assert weights_of(replay) == weights_of(tmp_path / "run")


def test_a_shrink_on_the_way_holds_from_its_step_and_replays(discs: Path, tmp_path: Path) -> None:
    plan = small_plan(discs, steps=8)
    smaller = shrunk(plan.model_copy(update={"batch": 8}), 5)
    assert smaller.sizes(4) == (8, 64)
    assert smaller.sizes(5) == (4, 64)
    runs = [train([discs], tmp_path / name, plan=smaller) for name in ("a", "b")]
    assert weights_of(runs[0]) == weights_of(runs[1])


def test_a_batch_of_one_small_patch_cannot_shrink(discs: Path) -> None:
    plan = small_plan(discs).model_copy(update={"batch": 1, "patch_px": 64})
    with pytest.raises(UnetError, match="single small patch"):
        shrunk(plan, 0)


def test_refused_memory_is_told_from_other_errors() -> None:
    with pytest.raises(RuntimeError) as refused:
        torch.empty(1 << 60, dtype=torch.uint8)
    assert is_out_of_memory(refused.value)
    assert is_out_of_memory(MemoryError())
    assert not is_out_of_memory(RuntimeError("sizes differ"))
    assert not is_out_of_memory(ValueError("out of memory"))
