"""What the hyper-parameter search may change in a plan, and by how much."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unet.planning.plan import Plan

Changes = Mapping[str, float]  # setting -> factor

# Each includes the plan's own value; in trials, only factors of 2 to 3 changed the scores.
FACTORS: Mapping[str, Sequence[float]] = {
    "learning_rate": (0.4, 1.0, 2.0),
    "widths": (0.75, 1.0, 1.5),
    "zoom": (0.4, 1.0, 1.4),  # of the logarithm of zoom_min and zoom_max
    "colour_jitter": (0.5, 1.0, 1.5),
    "class_weights": (1.0, 1.5, 2.5),  # of all classes except background
    "distance_weight": (0.5, 1.0, 2.0),
}
WIDTH_STEP = 4  # widths are multiples of it


def trial_changes(trial: int, *, seed: int, keeps_network: bool) -> dict[str, float]:
    """What a trial changes: nothing for trial 0, else drawn from its number and the seed alone.

    Args:
        trial: from 0.
        seed: of the training.
        keeps_network: leave the widths unchanged, since weights are given.
    """
    if trial == 0:
        return {}
    rng = np.random.default_rng([seed, 7, trial])
    drawn = {name: float(rng.choice(factors)) for name, factors in FACTORS.items()}
    if keeps_network:
        drawn.pop("widths")
    changes = {name: factor for name, factor in drawn.items() if factor != 1}
    return changes or {"learning_rate": float(rng.choice((0.4, 2.0)))}


def apply_changes(plan: Plan, changes: Changes) -> Plan:
    """The plan with its values multiplied by the factors."""
    if not changes:
        return plan
    update: dict[str, Any] = {
        name: getattr(plan, name) * changes[name]
        for name in ("learning_rate", "colour_jitter", "distance_weight")
        if name in changes
    }
    if "widths" in changes:
        update["widths"] = tuple(
            max(WIDTH_STEP, round(width * changes["widths"] / WIDTH_STEP) * WIDTH_STEP)
            for width in plan.widths
        )
    if "zoom" in changes:
        ends = np.exp(np.log([plan.zoom_min, plan.zoom_max]) * changes["zoom"])
        update["zoom_min"], update["zoom_max"] = (round(float(end), 4) for end in ends)
    if "class_weights" in changes:
        first, *others = plan.class_weights
        update["class_weights"] = (first, *(w * changes["class_weights"] for w in others))
    reasons = dict.fromkeys(update, "the best of the search")
    return plan.model_copy(update=update | {"reasons": plan.reasons | reasons})
