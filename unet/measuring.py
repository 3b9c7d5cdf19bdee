"""The machine's speed as an input of the plan."""

from dataclasses import asdict
from typing import Any

from unet.budget import Budget
from unet.data import Patches
from unet.fingerprint import Fingerprint
from unet.memory import is_out_of_memory
from unet.pace import Pace
from unet.part import Part
from unet.plan import Plan, make_schedule
from unet.step import fastest

MEASURE_SHARE = 0.08  # of the time limit, to find the faster precision
MEASURE_S = 3.0  # to tell how long a training without a limit will take


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
