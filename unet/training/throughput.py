"""Measuring the machine's training speed, an input of the plan."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unet.network.inference import make_net
from unet.network.timing import Timings, time_interleaved
from unet.planning.budget import Budget, Device, Precision
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan, make_schedule
from unet.training.assignment import Assignment
from unet.training.out_of_memory import is_out_of_memory
from unet.training.patches import Batch, Patches
from unet.training.precision import (
    PRECISIONS,
    Decision,
    decide_precision,
    expected_for_device,
    is_settled,
)
from unet.training.state import TrainingState
from unet.training.step import make_optimizer, train_step
from unet.training.time_budget import TimeBudget

MEASURE_SHARE = 0.08  # of the time limit, to find the faster precision
MEASURE_S = 3.0  # to estimate the duration of a training without a limit
REMEASURE_SHARE = 0.04  # of the time limit, to remeasure both precisions during training
REMEASURE_PATCHES = 2  # per remeasured step: the slower precision may take many times as long
MAX_REMEASUREMENTS = 3  # at most
REMEASURE_INTERVAL = 1 / 8  # of the time limit, at least, between remeasurements
LAST_REMEASUREMENT = 0.75  # of the time limit; after it a faster precision gains too little
SLOWDOWN = 1.6  # times the measured duration: batches are drawn during training steps

MEASURE_PATCHES = 8  # per timed step; twice as many give nearly the same speed


@dataclass(frozen=True)
class Speed:
    """Measured training speed of a network on this machine."""

    decision: Decision
    patches_per_s: Mapping[Precision, float]


def measure_throughput(
    plan: Plan, patches: Patches, time_budget: TimeBudget, budget: Budget
) -> Budget:
    """The budget with the measured speed and, with a time limit, the faster precision."""
    if not time_budget.is_limited:
        speed = measure_speed(plan, patches, within_s=MEASURE_S, device=budget.device,
                        precisions=(plan.precision,))  # fmt: skip
        return budget.model_copy(update={"patches_per_s": speed.patches_per_s[plan.precision]})
    speed = measure_speed(
        plan, patches, within_s=MEASURE_SHARE * time_budget.limit_s, device=budget.device
    )
    decision = speed.decision
    return budget.model_copy(
        update={
            "seconds": max(1.0, time_budget.limit_s - time_budget.elapsed()),
            "patches_per_s": speed.patches_per_s[decision.precision],
            "precision": decision.precision,
            "precision_reason": decision.reason,
            "is_doubtful": decision.is_doubtful,
        }
    )


def try_measure_throughput(
    plan: Plan, patches: Patches, time_budget: TimeBudget, budget: Budget
) -> Budget | None:
    """As `measure_throughput`; None if out of memory."""
    try:
        return measure_throughput(plan, patches, time_budget, budget)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def is_remeasurement_due(state: TrainingState, time_budget: TimeBudget) -> bool:
    """True if the precision may be the wrong one: steps are slow, or its choice was doubtful."""
    elapsed = time_budget.elapsed()
    if state.looks >= MAX_REMEASUREMENTS or elapsed > LAST_REMEASUREMENT * time_budget.limit_s:
        return False
    if not state.patches_per_s:  # started without a limit: only its own precision was measured
        return True
    is_spaced = elapsed - state.looked_s > REMEASURE_INTERVAL * time_budget.limit_s
    return is_spaced and (state.is_doubtful or _is_slow(state, time_budget))


def _is_slow(state: TrainingState, time_budget: TimeBudget) -> bool:
    measured_s = state.plan.sizes(state.step)[0] / state.patches_per_s
    return (
        time_budget.steady_step_s is not None and time_budget.steady_step_s > SLOWDOWN * measured_s
    )


def remeasure_speed(
    plan: Plan, patches: Patches, time_budget: TimeBudget, budget: Budget, *, step: int
) -> Speed | None:
    """Measure both precisions during a training; None if out of memory."""
    try:
        return measure_speed(
            plan, patches, within_s=REMEASURE_SHARE * time_budget.limit_s, device=budget.device,
            step=step, max_patches=REMEASURE_PATCHES,
        )  # fmt: skip
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def plan_for_budget(
    plan: Plan, budget: Budget, assignment: Assignment, *, facts: Fingerprint, is_own: bool
) -> Plan:
    """The plan for a budget; for a given plan, only precision and schedule change."""
    if is_own:
        return assignment.make_plan(facts, budget, seed=plan.seed)
    steps = max(4, (budget.patches or 0) // plan.batch)
    reasons = plan.reasons | {"precision": budget.precision_reason}
    update: dict[str, Any] = {"precision": budget.precision, **asdict(make_schedule(steps))}
    update |= {"refits": (), "shrinks": (), "switches": (), "patience": 0, "reasons": reasons}
    return plan.model_copy(update=update)


def measure_speed(
    plan: Plan,
    patches: Patches,
    *,
    within_s: float,
    device: Device = "cpu",
    precisions: tuple[Precision, ...] = PRECISIONS,
    step: int = 0,
    max_patches: int = MEASURE_PATCHES,
) -> Speed:
    """The precision in which this machine trains the plan's network fastest, and the speed.

    Precisions are timed in turn on temporary networks; `decide_precision` weighs the timings
    against the processor's features. The median step gives the expected speed.

    Args:
        plan: of the training.
        patches: of its samples.
        within_s: seconds after which no further round starts.
        device: to train on.
        precisions: to choose from.
        step: of the training whose batch is used.
        max_patches: number of patches used of that batch.
    """
    until = time.monotonic() + within_s
    expected, explanation = expected_for_device(device)
    count = min(plan.sizes(step)[0], max_patches)
    batch = patches.batch(step, range(count)).to(device)

    def is_enough(timings: Timings[Precision]) -> bool:
        return time.monotonic() > until or is_settled(_without_warm_up(timings), expected)

    functions = {name: _step_in(name, plan, batch, device) for name in precisions}
    timings = _without_warm_up(time_interleaved(functions, is_enough=is_enough))
    speeds = {name: count / statistics.median(seconds) for name, seconds in timings.items()}
    return Speed(decide_precision(timings, expected, explanation=explanation), speeds)


def _step_in(precision: Precision, plan: Plan, batch: Batch, device: Device) -> Callable[[], float]:
    """A function that runs a training step on its own temporary network."""
    plan = plan.model_copy(update={"precision": precision, "switches": ()})
    net = make_net(plan).to(device)
    optimizer = make_optimizer(net, plan)
    return lambda: train_step(net, optimizer, batch, plan)


def _without_warm_up(timings: Timings[Precision]) -> dict[Precision, Sequence[float]]:
    """Timings without the first round, a warm-up, if there are others."""
    return {name: seconds[1:] or seconds for name, seconds in timings.items()}
