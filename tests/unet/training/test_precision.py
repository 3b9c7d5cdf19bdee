import json
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import write_dataset
from tests.unet.planning.test_plan import NUCLEI
from tests.unet.runs.test_train import small_plan, weights_of
from unet.errors import Stopped
from unet.network.timing import time_interleaved
from unet.planning.budget import Precision
from unet.planning.lr_schedule import Switch
from unet.planning.plan import Plan, make_plan, read_plan
from unet.runs.train import train
from unet.training.out_of_memory import OUT_OF_MEMORY_MARKER
from unet.training.patches import Patches, split_samples
from unet.training.precision import (
    MAX_ROUNDS,
    Decision,
    decide_precision,
    expected_precision,
    is_settled,
    processor_features,
    switch_precision,
)
from unet.training.state import LAST, initial_state, load_state
from unet.training.throughput import is_remeasurement_due, measure_speed
from unet.training.time_budget import TimeBudget

SECONDS = {"bfloat16": 1.0, "float32": 3.0}  # per step on an idle machine
SLOW_BFLOAT16 = {"bfloat16": 3.0, "float32": 1.0}
Noise = Callable[[np.random.Generator, float], float]  # factor of a step's duration at a time


def bursts(rng: np.random.Generator, _: float) -> float:
    """Half of the steps are up to ten times as slow."""
    return rng.uniform(1, 10) if rng.random() < 0.5 else 1.0


def load(rng: np.random.Generator, now: float) -> float:
    """Another program runs intermittently and slows steps down five times."""
    return 5.0 if np.sin(0.9 * now) + 0.6 * np.sin(2.3 * now) > rng.normal(0, 0.2) else 1.0


def calm(rng: np.random.Generator, _: float) -> float:
    return rng.uniform(1, 1.1)


def measured(
    expected: Precision | None, seconds: dict[Precision, float], noise: Noise, *, seed: int
) -> Decision:
    """The decision on a machine with these step durations and noise."""
    rng, now = np.random.default_rng(seed), [0.0]

    def step(name: Precision) -> None:
        now[0] += seconds[name] * noise(rng, now[0])

    works = {name: (lambda name=name: step(name)) for name in seconds}
    timings = time_interleaved(
        works, is_enough=lambda t: is_settled(t, expected), clock=lambda: now[0]
    )
    assert len(timings["float32"]) == len(timings["bfloat16"]) <= 2 * MAX_ROUNDS
    return decide_precision(timings, expected, explanation="simulated")


@pytest.mark.parametrize("noise", [bursts, load, calm])
@pytest.mark.parametrize("expected", ["bfloat16", "float32"])
def test_noise_never_overrules_an_expected_precision_that_is_three_times_as_fast(
    noise: Noise, expected: Precision
) -> None:
    seconds = SECONDS if expected == "bfloat16" else SLOW_BFLOAT16
    for seed in range(500):
        assert measured(expected, seconds, noise, seed=seed).precision == expected


@pytest.mark.parametrize("noise", [bursts, load, calm])
@pytest.mark.parametrize("seconds", [SECONDS, SLOW_BFLOAT16], ids=["bfloat16", "float32"])
def test_without_an_expectation_the_faster_precision_is_found(
    noise: Noise, seconds: dict[Precision, float]
) -> None:
    fast, found = min(seconds, key=lambda name: seconds[name]), []
    for seed in range(200):
        found.append(measured(None, seconds, noise, seed=seed).precision)
    assert found.count(fast) >= 190


@pytest.mark.parametrize("expected", ["bfloat16", "float32"])
def test_a_clear_measurement_overrules_the_expectation(expected: Precision) -> None:
    seconds = SLOW_BFLOAT16 if expected == "bfloat16" else SECONDS
    for seed in range(50):
        found = measured(expected, seconds, calm, seed=seed)
        assert found.precision != expected
        assert found.is_clear
        assert not found.is_doubtful
        assert "times as fast" in found.reason


def test_a_wrong_expectation_kept_by_noise_is_doubtful() -> None:
    found = [measured("float32", SECONDS, bursts, seed=seed) for seed in range(200)]
    assert sum(one.is_doubtful or one.precision == "bfloat16" for one in found) >= 190


def test_a_few_rounds_overrule_nothing_but_are_doubtful() -> None:
    timings = {"bfloat16": [3.0] * (MAX_ROUNDS - 1), "float32": [1.0] * (MAX_ROUNDS - 1)}
    found = decide_precision(timings, "bfloat16", explanation="simulated")
    assert (found.precision, found.is_doubtful, found.is_clear) == ("bfloat16", True, False)


def test_a_difference_of_ten_percent_is_not_clear() -> None:
    timings = {"bfloat16": [1.1] * MAX_ROUNDS, "float32": [1.0] * MAX_ROUNDS}
    assert decide_precision(timings, "bfloat16", explanation="").precision == "bfloat16"
    assert not decide_precision(timings, "float32", explanation="").is_clear


@pytest.mark.parametrize(
    ("features", "precision"),
    [
        (("sse2", "avx2"), "float32"),
        (("sse2", "avx512f", "avx512_vnni"), "float32"),
        (("sse2", "avx512f", "avx512_bf16"), "bfloat16"),
        (("sse2", "amx_tile", "amx_bf16"), "bfloat16"),
        (("fp", "asimd", "bf16"), None),
        ((), None),
    ],
)
def test_expected_precision_by_processor_features(features, precision) -> None:
    assert expected_precision(features)[0] == precision


def test_features_are_read_from_cpuinfo(tmp_path: Path) -> None:
    info = tmp_path / "cpuinfo"
    info.write_text("processor\t: 0\nflags\t\t: fpu sse2 amx_bf16\nbugs\t\t: none\n")
    assert processor_features(info) == {"fpu", "sse2", "amx_bf16"}
    assert processor_features(tmp_path / "absent") == frozenset()


def test_rounds_alternate_their_order_and_are_timed() -> None:
    done, now = [], [0.0]

    def work(name: str, seconds: float) -> None:
        done.append(name)
        now[0] += seconds

    works = {"a": lambda: work("a", 2.0), "b": lambda: work("b", 5.0)}
    timings = time_interleaved(works, is_enough=lambda t: len(t["a"]) == 3, clock=lambda: now[0])
    assert timings == {"a": [2.0] * 3, "b": [5.0] * 3}
    assert "".join(done) == "abbaab"


def test_a_plan_without_switches_is_written_without_the_field(tmp_path: Path) -> None:
    plan = make_plan(NUCLEI)
    assert "switches" not in plan.model_dump(mode="json")
    assert "switches" not in json.loads(plan.model_dump_json())
    later = switch_precision(plan, 40, "bfloat16", reason="measured")
    (tmp_path / "plan.json").write_text(later.model_dump_json())
    assert read_plan(tmp_path / "plan.json") == later
    assert [later.at(step).precision for step in (0, 39, 40, 99)] == ["float32"] * 2 + [
        "bfloat16"
    ] * 2  # fmt: skip
    assert "from step 40" in later.reasons["switches"]


def test_a_switch_applies_from_its_step_and_replays(discs: Path, tmp_path: Path) -> None:
    plan = small_plan(discs, steps=4)
    late = plan.model_copy(update={"switches": (Switch(step=3, precision="bfloat16"),)})
    runs = [train([discs], tmp_path / n, plan=p) for n, p in (("a", late), ("b", late))]
    assert weights_of(runs[0]) == weights_of(runs[1])
    assert weights_of(train([discs], tmp_path / "c", plan=plan)) != weights_of(runs[0])
    card = json.loads((runs[0] / "model" / "model.json").read_text())
    assert card["plan"]["switches"] == [{"step": 3, "precision": "bfloat16"}]


def slower_precision(dataset: Path, plan: Plan) -> Precision:
    """The precision that is clearly slower on this machine; skips if there is none."""
    speed = measure_speed(plan, Patches(split_samples([dataset])[0], plan), within_s=20)
    speeds = speed.patches_per_s
    slow = min(speeds, key=lambda name: speeds[name])
    if not speed.decision.is_clear or speed.decision.precision == slow:
        pytest.skip(f"this machine trains as fast in either precision: {speed.decision.reason}")
    return slow


def test_a_training_in_the_slower_precision_switches_resumes_and_replays(
    tmp_path: Path,
) -> None:
    """Started on another machine, where its precision was the faster one; switches with a limit."""
    torch.set_num_threads(1)
    dataset, run, events = write_dataset(tmp_path / "set"), tmp_path / "run", []
    plan = small_plan(dataset).model_copy(update={"widths": (8, 16, 32), "batch": 4})
    slow = slower_precision(dataset, plan)
    plan = plan.model_copy(update={"precision": slow})
    call = {"datasets": [dataset], "out": run, "plan": plan, "resume": True}
    with pytest.raises(Stopped):
        train(**call, is_to_stop=lambda: True)
    with pytest.raises(Stopped):
        train(**call, time_limit_s=600, on_event=events.append,
              is_to_stop=lambda: any(event["event"] == "switch" for event in events))  # fmt: skip
    (switch,) = [event for event in events if event["event"] == "switch"]
    train(**call, time_limit_s=2 * load_state(run / LAST).seconds + 2)
    recorded = read_plan(run / "plan.json")
    assert recorded.precision == slow != switch["precision"]
    assert recorded.switches == (Switch(step=switch["step"], precision=switch["precision"]),)
    assert recorded.steps > switch["step"] > 0
    replay = train([dataset], tmp_path / "replay", plan=recorded)
    assert weights_of(replay) == weights_of(run)
    assert (replay / "plan.json").read_bytes() == (run / "plan.json").read_bytes()


def test_a_shrunk_training_keeps_its_time_limit(discs: Path, tmp_path: Path) -> None:
    """The marker is written by a process that ran out of memory."""
    call = {"datasets": [discs], "out": tmp_path / "run", "resume": True}
    call["plan"] = small_plan(discs).model_copy(update={"batch": 8})
    with pytest.raises(Stopped):
        train(**call, time_limit_s=6, is_to_stop=lambda: True)
    (tmp_path / "run" / OUT_OF_MEMORY_MARKER).touch()
    train(**call, time_limit_s=7)
    assert read_plan(tmp_path / "run" / "plan.json").shrinks
    assert load_state(tmp_path / "run" / LAST).limit_s == 7


def looked_at(*, steps_s: float, elapsed_s: float = 30.0, **facts: object) -> bool:
    """Whether both precisions are remeasured, for a limit of 100 s and steps of 16 patches."""
    state = initial_state(make_plan(NUCLEI).model_copy(update={"widths": (4, 4)}))
    state.step, state.patches_per_s = 20, 16.0
    for name, value in facts.items():
        setattr(state, name, value)
    time_budget = TimeBudget(100.0, time.monotonic() - elapsed_s)
    for _ in range(16):
        time_budget.add_step(steps_s)
    return is_remeasurement_due(state, time_budget)


def test_precisions_are_remeasured_if_steps_are_slow_or_the_choice_was_doubtful() -> None:
    assert not looked_at(steps_s=1.3)
    assert looked_at(steps_s=2.0)
    assert looked_at(steps_s=1.0, is_doubtful=True)
    assert looked_at(steps_s=1.0, patches_per_s=0.0)


def test_remeasurements_are_spaced_early_and_at_most_three() -> None:
    assert not looked_at(steps_s=2.0, looked_s=25.0)
    assert not looked_at(steps_s=2.0, elapsed_s=80.0)
    assert not looked_at(steps_s=2.0, looks=3)
