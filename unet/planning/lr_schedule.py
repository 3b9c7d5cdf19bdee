"""The steps of a training and its learning rate over them: warm-up, hold, decay to zero."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from dataset_rules.ground.documents import Document
from unet.planning.budget import Precision

HOLD_SHARE = 0.6  # of the steps, before the rate falls
VALIDATIONS = 12  # of a plan; the first third of the steps is too early to look


@dataclass(frozen=True)
class Schedule:
    """The part of a plan that follows from the number of steps alone."""

    steps: int
    decay_from: int
    decay_steps: int
    warmup_steps: int
    ema_decay: float
    validate_at: tuple[int, ...]


class Refit(Document):
    """Where a falling rate was fitted anew to the time that was left."""

    step: int = Field(ge=0, description="from which it holds")
    level: float = Field(ge=0, le=1, description="share of the rate at that step")
    steps: int = Field(ge=1, description="in which it then reaches zero")


class Shrink(Document):
    """Where memory did not suffice and the batch became smaller."""

    step: int = Field(ge=0, description="from which it holds")
    batch: int = Field(ge=1)
    patch_px: int = Field(ge=8)


class Switch(Document):
    """Where another precision was found to be clearly faster."""

    step: int = Field(ge=0, description="from which it holds")
    precision: Precision


def make_schedule(steps: int) -> Schedule:
    """Warm-up, hold and decay for a number of steps."""
    decay_steps = max(1, round((1 - HOLD_SHARE) * steps))
    return Schedule(
        steps=steps,
        decay_from=steps - decay_steps,
        decay_steps=decay_steps,
        warmup_steps=min(50, max(1, steps // 10)),
        ema_decay=max(0.5, min(0.99, 1 - 8 / steps)),
        validate_at=tuple(
            sorted({max(1, steps * i // VALIDATIONS) for i in range(4, VALIDATIONS + 1)})
        ),
    )


def level(step: int, *, decay_from: int, decay_steps: int, refits: Sequence[Refit]) -> float:
    """Share of the learning rate at a step after the warm-up: 1, then a way down to 0.

    Each refit holds from its step on, so that a schedule that was refitted on its way is the
    same, to the bit, when it is replayed.
    """
    begun, height, length = decay_from, 1.0, decay_steps
    for refit in refits:
        if step >= refit.step:
            begun, height, length = refit.step, refit.level, refit.steps
    return height * max(0.0, 1 - max(0, step - begun) / length)
