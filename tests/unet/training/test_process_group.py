import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.distributed import TCPStore

from tests.unet.runs.test_train import small_plan
from unet.errors import UnetError
from unet.network.checkpoint import load_tensors
from unet.planning.plan import read_plan
from unet.runs.train import train
from unet.training.process_group import ProcessGroup, join_process_group
from unet.training.step import resolve_device


def test_shares_cover_the_batch_once() -> None:
    for size in (1, 2, 3, 5, 8):
        places = [place for rank in range(size) for place in ProcessGroup(rank, size).share(8)]
        assert places == list(range(8))


def test_more_processes_than_patches_are_refused() -> None:
    with pytest.raises(UnetError, match="more processes than patches"):
        ProcessGroup(0, 3).share(2)


def test_without_torchrun_the_group_is_a_single_process() -> None:
    with join_process_group({}, "cpu") as group:
        assert group == ProcessGroup(0, 1)


def test_a_missing_gpu_is_an_error() -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    assert resolve_device("auto") == "cpu"
    with pytest.raises(UnetError, match="no usable GPU"):
        resolve_device("cuda")


NARROW = """
import resource, sys
from pathlib import Path
from unet.training.process_group import join_process_group
from unet.planning.plan import read_plan
from unet.runs.train import train
import json, os, torch
torch.set_num_threads(1)
dataset, out, plan, room = sys.argv[1:]
tell = lambda event: print(json.dumps(event), flush=True)
with join_process_group(os.environ, "cpu") as group:
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (held + int(room), -1))
    train([Path(dataset)], Path(out), plan=read_plan(Path(plan)), resume=True, on_event=tell,
          group=group)
"""


@pytest.mark.system
def test_out_of_memory_in_one_process_shrinks_the_batches_of_all(
    discs: Path, tmp_path: Path
) -> None:
    plan = small_plan(discs, steps=2).model_copy(
        update={"batch": 64, "patch_px": 256, "widths": (8, 8, 8)}
    )
    (tmp_path / "plan.json").write_text(plan.model_dump_json())
    (tmp_path / "narrow.py").write_text(NARROW)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--max-restarts", "5",
               "--nproc-per-node", "2", str(tmp_path / "narrow.py"), str(discs),
               str(tmp_path / "run"), str(tmp_path / "plan.json"), str(1500 << 20)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert "out of memory in one of the training processes" in done.stderr
    assert '"event": "shrink"' in done.stdout
    recorded = read_plan(tmp_path / "run" / "plan.json")
    assert recorded.batch < 64
    assert "memory was refused" in recorded.reasons["batch"]


MEETING = """
import os, time, torch
from unet.training.process_group import join_process_group
time.sleep(float(os.environ["RANK"]))
with join_process_group(os.environ, "cpu") as group:
    print(float(group.total(torch.tensor(1.0))), flush=True)
    os._exit(0)
"""


@pytest.mark.system
def test_restarted_processes_do_not_wait_for_ended_ones() -> None:
    """As under torchrun, whose store outlives them; the second comes after the first has asked."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    for restart in ("0", "1", "2"):
        started = [
            subprocess.Popen(
                [sys.executable, "-c", MEETING], stdout=subprocess.PIPE, text=True,
                env=os.environ | {
                    "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port),
                    "TORCHELASTIC_USE_AGENT_STORE": "True", "WORLD_SIZE": "2", "RANK": rank,
                    "TORCHELASTIC_RESTART_COUNT": restart,
                },
            )
            for rank in ("0", "1")
        ]  # fmt: skip
        try:
            said = [process.communicate(timeout=60)[0] for process in started]
        finally:
            for process in started:
                process.kill()
                process.wait()
        assert said == ["2.0\n", "2.0\n"], restart


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
