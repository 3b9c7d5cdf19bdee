"""The machine's speed as an input of the plan."""

import statistics
import time
from dataclasses import asdict
from typing import Any

from unet.network.inference import make_net
from unet.planning.budget import Budget, Precision
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan, make_schedule
from unet.training.assignment import Part
from unet.training.out_of_memory import is_out_of_memory
from unet.training.patches import Patches
from unet.training.step import make_optimizer, train_step
from unet.training.time_budget import Pace

MEASURE_SHARE = 0.08  # of the time limit, to find the faster precision
MEASURE_S = 3.0  # to tell how long a training without a limit will take

PRECISIONS: tuple[Precision, Precision] = ("bfloat16", "float32")
MEASURE_STEPS = 3  # timed steps a precision, after one that warms up
MEASURE_PATCHES = 8  # in each; the speed of twice as many is hardly another


def measured(plan: Plan, patches: Patches, pace: Pace, budget: Budget) -> Budget:
    """The budget with the machine's speed; within a time limit also with the faster precision."""
    if not pace.is_limited:
        _, speed = fastest(plan, patches, within_s=MEASURE_S, device=budget.device,
                           precisions=(plan.precision,))  # fmt: skip
        return budget.model_copy(update={"patches_per_s": speed})
    precision, speed = fastest(
        plan, patches, within_s=MEASURE_SHARE * pace.limit_s, device=budget.device
    )
    seconds = max(1.0, pace.limit_s - pace.elapsed())
    return budget.model_copy(
        update={"seconds": seconds, "patches_per_s": speed, "precision": precision}
    )


def measured_in_memory(plan: Plan, patches: Patches, pace: Pace, budget: Budget) -> Budget | None:
    """As `measured`; None where memory was refused."""
    try:
        return measured(plan, patches, pace, budget)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
    return None


def planned(plan: Plan, budget: Budget, part: Part, *, facts: Fingerprint, is_own: bool) -> Plan:
    """The plan for a budget; of a plan that was given, precision and schedule only."""
    if is_own:
        return part.make_plan(facts, budget, seed=plan.seed)
    steps = max(4, (budget.patches or 0) // plan.batch)
    update: dict[str, Any] = {"precision": budget.precision, **asdict(make_schedule(steps))}
    return plan.model_copy(update=update | {"refits": (), "shrinks": (), "patience": 0})


def fastest(
    plan: Plan,
    patches: Patches,
    *,
    within_s: float,
    device: str = "cpu",
    precisions: tuple[Precision, ...] = PRECISIONS,
) -> tuple[Precision, float]:
    """The precision in which this machine trains the plan's network fastest; patches a second.

    bfloat16 is slower than float32 on some processors that have it, so both are measured, in
    turn, on networks that are thrown away. The best step decides between them (what else runs on
    the machine only ever slows a step down); the median tells the speed to expect. After
    `within_s` seconds no further step is begun.
    """
    count = min(plan.batch, MEASURE_PATCHES)
    plans = {name: plan.model_copy(update={"precision": name}) for name in precisions}
    nets = {name: make_net(plan).to(device) for name in precisions}
    optimizers = {name: make_optimizer(net, plan) for name, net in nets.items()}
    took: dict[Precision, list[float]] = {name: [] for name in precisions}
    until = time.monotonic() + within_s
    for index in range(1 + MEASURE_STEPS):
        if index and time.monotonic() > until:
            break
        batch = patches.batch(index, range(count)).to(device)
        for name in precisions:
            begun = time.monotonic()
            train_step(nets[name], optimizers[name], batch, plans[name])
            took[name].append(time.monotonic() - begun)
    timed = {name: steps[1:] or steps for name, steps in took.items()}  # the first warms up
    precision = min(precisions, key=lambda name: min(timed[name]))
    return precision, count / statistics.median(timed[precision])
