import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unet.planning.test_plan import NUCLEI
from tests.unet.runs.test_train import small_plan, weights_of
from unet.planning.plan import make_plan, read_plan
from unet.runs.train import train
from unet.training.time_budget import TimeBudget, process_start, stop_early


def simulated(limit_s: float, step_s, *, validation_s: float = 0.5) -> tuple[float, list[float]]:
    """Seconds at which a training of steps that take `step_s(now)` ends, and its rates."""
    plan, time_budget = make_plan(NUCLEI, patches=800), TimeBudget(limit_s, time.monotonic())
    time_budget.expect(validation_s, 0.5, is_chosen=True)
    now, step, validated, rates = 2.0, 0, 0.0, []
    time_budget.elapsed = lambda: now  # type: ignore[method-assign] # the clock of the simulation
    time_budget.add_step(step_s(0.0))
    while step < plan.steps and not (step and time_budget.is_exhausted()):
        rates.append(plan.level(step))
        now += step_s(now)
        time_budget.add_step(step_s(now))
        step += 1
        plan = time_budget.fit(plan, step, validated_s=validated)
        if time_budget.validation_is_due(validated):
            now += validation_s
            validated = now
    replayed = [plan.level(step) for step in range(len(rates))]
    assert rates == replayed
    return now + validation_s + 0.5 + 1.0, rates


@pytest.mark.parametrize("limit", [30, 60, 120, 600])
@pytest.mark.parametrize(
    "step_s",
    [lambda _: 0.4, lambda now: 0.3 if now < 25 else 0.6, lambda now: 0.8 if now < 20 else 0.25],
    ids=["steady", "slower", "faster"],
)
def test_the_time_limit_is_filled_and_kept_even_if_the_speed_changes(limit: int, step_s) -> None:
    ended, rates = simulated(limit, step_s)
    assert 0.93 * limit <= ended <= limit
    assert max(rates) == 1
    assert rates[-1] < 0.1
    assert 0.3 <= sum(rate == 1 for rate in rates) / len(rates) <= 0.8


@settings(deadline=None, max_examples=40)
@given(limit=st.integers(20, 2000), step=st.floats(0.2, 2))
def test_a_limited_training_never_ends_late_on_a_steady_machine(limit: int, step: float) -> None:
    ended, _ = simulated(limit, lambda _: step)
    assert ended <= limit


def test_early_stopping_starts_the_decay_and_its_plan_replays() -> None:
    plan = make_plan(NUCLEI).model_copy(update={"patience": 2})
    assert stop_early(plan, 300, [0.5, 0.6, 0.7]) is plan
    early = stop_early(plan, 300, [0.7, 0.7, 0.7])
    assert (early.decay_from, early.steps) == (300, 500)
    assert stop_early(early, 300, [0.7, 0.7, 0.7]) == early
    assert stop_early(plan, plan.decay_from, [0.7, 0.7, 0.7]) is plan


def test_the_process_started_before_this_test() -> None:
    assert 0 < time.monotonic() - process_start() < 86_400


def test_the_plan_of_a_limited_run_replays_bit_identically(discs: Path, tmp_path: Path) -> None:
    run = train([discs], tmp_path / "run", plan=small_plan(discs), time_limit_s=6)
    plan = read_plan(run / "plan.json")
    assert plan.steps >= 2
    replay = train([discs], tmp_path / "replay", plan=plan)
    assert weights_of(replay) == weights_of(run)
    assert (replay / "plan.json").read_bytes() == (run / "plan.json").read_bytes()


def test_a_resumed_run_uses_the_time_left(discs: Path, tmp_path: Path) -> None:
    run, plan, events = tmp_path / "run", small_plan(discs), []

    def stop_in_the_midst(event: dict) -> None:
        if event["event"] == "validation":
            raise InterruptedError

    with pytest.raises(InterruptedError):
        train([discs], run, plan=plan, time_limit_s=4, on_event=stop_in_the_midst)
    begun = time.monotonic()
    train([discs], run, plan=plan, time_limit_s=4, resume=True, on_event=events.append)
    assert time.monotonic() - begun < 3
    assert events[-1]["seconds"] <= 4


def test_a_finished_run_is_prolonged_and_its_plan_replays(discs: Path, tmp_path: Path) -> None:
    run, plan = tmp_path / "run", small_plan(discs)
    train([discs], run, plan=plan, time_limit_s=3)
    first, model = read_plan(run / "plan.json"), weights_of(run)
    assert weights_of(train([discs], run, plan=plan, time_limit_s=3, resume=True)) == model
    begun = time.monotonic()
    train([discs], run, plan=plan, time_limit_s=7, resume=True)
    assert time.monotonic() - begun < 6  # what was left
    longer = read_plan(run / "plan.json")
    assert longer.decay_from > first.decay_from
    assert weights_of(run) != model
    replay = train([discs], tmp_path / "replay", plan=longer)
    assert weights_of(replay) == weights_of(run)
