"""The learning rate over the steps of a training: warm-up, hold, decay to zero."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import Field

from dataset_rules.ground.documents import Document
from unet.planning.budget import Precision

HOLD_SHARE = 0.6  # of the steps, before the decay
VALIDATIONS = 12  # per plan, less those in the first third of the steps, which is too early


@dataclass(frozen=True)
class Schedule:
    """The part of a plan that depends on the number of steps alone."""

    steps: int
    decay_from: int
    decay_steps: int
    warmup_steps: int
    ema_decay: float
    validate_at: tuple[int, ...]


class Refit(Document):
    """A decay that was refitted to the time left."""

    step: int = Field(ge=0, description="from which it applies")
    level: float = Field(ge=0, le=1, description="fraction of the rate at that step")
    steps: int = Field(ge=1, description="until it reaches zero")


class Shrink(Document):
    """A smaller batch after running out of memory."""

    step: int = Field(ge=0, description="from which it applies")
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
    """Fraction of the learning rate at a step after the warm-up: 1, then a decay to 0.

    Each refit applies from its step on, so a schedule that was refitted during training is
    bit-identical when replayed.
    """
    start, height, length = decay_from, 1.0, decay_steps
    for refit in refits:
        if step >= refit.step:
            start, height, length = refit.step, refit.level, refit.steps
    return height * max(0.0, 1 - max(0, step - start) / length)
