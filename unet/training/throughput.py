"""The machine's speed as an input of the plan."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from unet.network.inference import make_net
from unet.network.timing import Took, in_turn
from unet.planning.budget import Budget, Device, Precision
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan, make_schedule
from unet.training.assignment import Part
from unet.training.out_of_memory import is_out_of_memory
from unet.training.patches import Batch, Patches
from unet.training.precision import PRECISIONS, Decision, decided, expected_on, is_settled
from unet.training.state import Training
from unet.training.step import make_optimizer, train_step
from unet.training.time_budget import Pace

MEASURE_SHARE = 0.08  # of the time limit, to find the faster precision
MEASURE_S = 3.0  # to tell how long a training without a limit will take
LOOK_SHARE = 0.04  # of the time limit, to look at both precisions again on the way
LOOK_PATCHES = 2  # in a step of that: the slower precision may take many times as long
LOOKS = 3  # at most
LOOK_EVERY = 1 / 8  # of the time limit, at least, from one look to the next
LAST_LOOK = 0.75  # of the time limit; after it a faster precision gains too little
SLOWER = 1.6  # times what was measured: beside steps on the way, batches are drawn

MEASURE_PATCHES = 8  # in a timed step; the speed of twice as many is hardly another


@dataclass(frozen=True)
class Speed:
    """How this machine trains a network, as measured."""

    decision: Decision
    patches_per_s: Mapping[Precision, float]


def measured(plan: Plan, patches: Patches, pace: Pace, budget: Budget) -> Budget:
    """The budget with the machine's speed; within a time limit also with the faster precision."""
    if not pace.is_limited:
        speed = fastest(plan, patches, within_s=MEASURE_S, device=budget.device,
                        precisions=(plan.precision,))  # fmt: skip
        return budget.model_copy(update={"patches_per_s": speed.patches_per_s[plan.precision]})
    speed = fastest(plan, patches, within_s=MEASURE_SHARE * pace.limit_s, device=budget.device)
    decision = speed.decision
    return budget.model_copy(
        update={
            "seconds": max(1.0, pace.limit_s - pace.elapsed()),
            "patches_per_s": speed.patches_per_s[decision.precision],
            "precision": decision.precision,
            "precision_reason": decision.reason,
            "is_doubtful": decision.is_doubtful,
        }
    )


def measured_in_memory(plan: Plan, patches: Patches, pace: Pace, budget: Budget) -> Budget | None:
    """As `measured`; None where memory was refused."""
    try:
        return measured(plan, patches, pace, budget)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def is_look_due(state: Training, pace: Pace) -> bool:
    """The precision may be the wrong one: steps are slow, or its choice was in doubt."""
    elapsed = pace.elapsed()
    if state.looks >= LOOKS or elapsed > LAST_LOOK * pace.limit_s:
        return False
    if not state.patches_per_s:  # begun without a limit: only its own precision was measured
        return True
    is_spaced = elapsed - state.looked_s > LOOK_EVERY * pace.limit_s
    return is_spaced and (state.is_doubtful or _is_slow(state, pace))


def _is_slow(state: Training, pace: Pace) -> bool:
    measured_s = state.plan.sizes(state.step)[0] / state.patches_per_s
    return pace.steady_step_s is not None and pace.steady_step_s > SLOWER * measured_s


def looked_at_again(
    plan: Plan, patches: Patches, pace: Pace, budget: Budget, *, step: int
) -> Speed | None:
    """Both precisions in the midst of a training; None where memory was refused."""
    try:
        return fastest(plan, patches, within_s=LOOK_SHARE * pace.limit_s, device=budget.device,
                       step=step, most_patches=LOOK_PATCHES)  # fmt: skip
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def planned(plan: Plan, budget: Budget, part: Part, *, facts: Fingerprint, is_own: bool) -> Plan:
    """The plan for a budget; of a plan that was given, precision and schedule only."""
    if is_own:
        return part.make_plan(facts, budget, seed=plan.seed)
    steps = max(4, (budget.patches or 0) // plan.batch)
    reasons = plan.reasons | {"precision": budget.precision_reason}
    update: dict[str, Any] = {"precision": budget.precision, **asdict(make_schedule(steps))}
    update |= {"refits": (), "shrinks": (), "switches": (), "patience": 0, "reasons": reasons}
    return plan.model_copy(update=update)


def fastest(
    plan: Plan,
    patches: Patches,
    *,
    within_s: float,
    device: Device = "cpu",
    precisions: tuple[Precision, ...] = PRECISIONS,
    step: int = 0,
    most_patches: int = MEASURE_PATCHES,
) -> Speed:
    """The precision in which this machine trains the plan's network fastest, and how fast.

    All are measured, in turn, on networks that are thrown away; `decided` weighs the steps
    against what the processor promises. The median of the steps tells the speed to expect.

    Args:
        plan: of the training.
        patches: of its samples.
        within_s: seconds after which no further round is begun.
        device: to train on.
        precisions: to choose from.
        step: of the training, whose batch is learnt from.
        most_patches: of that batch.
    """
    until = time.monotonic() + within_s
    expected, because = expected_on(device)
    count = min(plan.sizes(step)[0], most_patches)
    batch = patches.batch(step, range(count)).to(device)

    def is_enough(took: Took[Precision]) -> bool:
        return time.monotonic() > until or is_settled(_warm(took), expected)

    works = {name: _step_in(name, plan, batch, device) for name in precisions}
    took = _warm(in_turn(works, is_enough=is_enough))
    speeds = {name: count / statistics.median(seconds) for name, seconds in took.items()}
    return Speed(decided(took, expected, because=because), speeds)


def _step_in(precision: Precision, plan: Plan, batch: Batch, device: Device) -> Callable[[], float]:
    """A step of a network of its own."""
    plan = plan.model_copy(update={"precision": precision, "switches": ()})
    net = make_net(plan).to(device)
    optimizer = make_optimizer(net, plan)
    return lambda: train_step(net, optimizer, batch, plan)


def _warm(took: Took[Precision]) -> dict[Precision, Sequence[float]]:
    """Without the first round, which warms up, where there are others."""
    return {name: seconds[1:] or seconds for name, seconds in took.items()}
