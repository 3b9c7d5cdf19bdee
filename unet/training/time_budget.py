"""How the time of a training is spent, and the schedule that fills what is left of it."""

import os
import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from unet.planning.lr_schedule import HOLD_SHARE, Refit
from unet.planning.plan import Plan

RECENT = 16  # steps whose median tells how long the next ones take
VALIDATIONS = 6  # would fit into a time limit; those in its first third are left out
FIRST_VALIDATION = 1 / 3  # of the time; before it nothing is worth to be kept
LAST_VALIDATION = 0.9  # of the time; after it only that at the end
MARGIN = 0.02  # of the limit, so that what was guessed wrongly does not end behind it
CLOSING_S = 1.2  # hashes, the model's folder and the end of the process: 0.9 s were measured
CLOSING_SHARE = 0.15  # of the seconds until training could begin, where those are many: both are
# the work of one core, and grow alike on a busy machine
CLOSING_SAVES = 2  # times the seconds of a save that closing takes where the disk is slow
GAIN = 0.002  # of the Dice; less is no gain for early stopping
REFIT_SHARE = 0.05  # of the steps left; smaller errors correct themselves later


class Pace:
    """Time given, time spent, and what steps and validations cost.

    Attributes:
        limit_s: wall time of all processes that worked on the training; infinite without one.
        lost_s: of it, spent on work that was set aside when the limit was raised.
    """

    def __init__(
        self, limit_s: float | None, clock: float, *, spent_s: float = 0.0, lost_s: float = 0.0
    ) -> None:
        self.limit_s = float("inf") if limit_s is None else limit_s
        self.clock = clock
        self.spent_s = spent_s
        self.lost_s = lost_s
        self.choice_s = self.save_s = 0.0
        self.startup_s = time.monotonic() - clock
        self._validations: deque[float] = deque(maxlen=2)
        self._steps: deque[float] = deque(maxlen=RECENT)

    @property
    def is_limited(self) -> bool:
        """There is a time limit."""
        return self.limit_s != float("inf")

    def elapsed(self) -> float:
        """Seconds spent on the training, by this process and those before."""
        return self.spent_s + time.monotonic() - self.clock

    def add_step(self, seconds: float) -> None:
        """Learn how long a step takes."""
        self._steps.append(seconds)

    @property
    def step_s(self) -> float:
        """Seconds of a step to expect."""
        return statistics.median(self._steps) if self._steps else 0.0

    def expect(self, validation_s: float, choice_s: float, *, is_chosen: bool) -> None:
        """A guess from a rehearsal, until it was done."""
        self._validations.append(validation_s)
        self.choice_s = choice_s if is_chosen else 0.0

    def add_validation(self, seconds: float) -> None:
        """Learn how long a validation takes."""
        self._validations.append(seconds)

    @property
    def validation_s(self) -> float:
        """Seconds of a validation to expect: on a busy machine the slower of the last two."""
        return max(self._validations, default=0.0)

    def expected_s(self, steps: int) -> float:
        """Seconds until the end of this process, if so many steps are left."""
        if self.is_limited:
            return round(max(0.0, self.limit_s - self.elapsed()), 1)
        return round(steps * self.step_s + self.validation_s, 1)

    def usable_s(self) -> float:
        """Time until training must stop so that the end fits into the limit."""
        if not self.is_limited:
            return self.limit_s
        closing = max(CLOSING_S, CLOSING_SHARE * self.startup_s)
        ending = self.validation_s + self.choice_s + closing + CLOSING_SAVES * self.save_s
        return self.limit_s - min(ending + MARGIN * self.limit_s, 0.4 * self.limit_s)

    def is_up(self) -> bool:
        """No further step fits."""
        return self.elapsed() + 0.5 * self.step_s > self.usable_s()

    def validation_is_due(self, validated_s: float) -> bool:
        """The clock asks for a validation; `validated_s` was elapsed at the last one."""
        elapsed, useful = self.elapsed() - self.lost_s, self.limit_s - self.lost_s
        return (
            FIRST_VALIDATION * useful < elapsed < LAST_VALIDATION * useful
            and self.elapsed() - validated_s > useful / VALIDATIONS
        )

    @property
    def steady_step_s(self) -> float | None:
        """Seconds of a step, once enough of them were done to tell; None before."""
        return self.step_s if len(self._steps) == RECENT else None

    def begin_anew(self, step_s: float) -> None:
        """Forget the steps so far: the next ones are of another speed."""
        self._steps.clear()
        self.add_step(step_s)

    def _validations_left(self, validated_s: float) -> int:
        useful = self.limit_s - self.lost_s
        between = useful / VALIDATIONS
        first = max(validated_s - self.lost_s + between, FIRST_VALIDATION * useful)
        return max(0, int((LAST_VALIDATION * useful - first) / between) + 1)

    def fitted(self, plan: Plan, step: int, *, validated_s: float) -> Plan:
        """The plan whose steps from `step` on fill the time that is left."""
        if not self._steps or not self.is_limited:
            return plan
        usable = self.usable_s()
        left_s = usable - self.elapsed() - self.validation_s * self._validations_left(validated_s)
        left = max(1, int(left_s / self.step_s))
        if step > plan.decay_from:
            return _refitted(plan, step, left)
        decay = max(1, round((1 - HOLD_SHARE) * (usable - self.lost_s) / self.step_s))
        decay_steps = min(left, decay)
        decay_from = step + left - decay_steps
        update = {
            "decay_from": decay_from, "decay_steps": decay_steps, "steps": step + left,
            "refits": (),
        }  # fmt: skip
        return plan.model_copy(update=update)


def _refitted(plan: Plan, step: int, left: int) -> Plan:
    """The rate, which falls already, reaches zero in `left` steps instead."""
    planned = plan.steps - step
    if planned < 1 or abs(left - planned) < max(1, REFIT_SHARE * planned):
        return plan
    refit = Refit(step=step, level=plan.level(step), steps=left)
    return plan.model_copy(update={"refits": (*plan.refits, refit), "steps": step + left})


def stopped_early(plan: Plan, step: int, dices: Sequence[float]) -> Plan:
    """The plan whose rate falls from this step on, if the last validations gained nothing.

    A plan that was stopped so is stopped at the same step when it is replayed.
    """
    if not plan.patience or step >= plan.decay_from or len(dices) <= plan.patience:
        return plan
    if max(dices[-plan.patience :]) > max(dices[: -plan.patience]) + GAIN:
        return plan
    decay = min(plan.decay_steps, max(1, round(step * (1 - HOLD_SHARE) / HOLD_SHARE)))
    return plan.model_copy(update={"decay_from": step, "decay_steps": decay, "steps": step + decay})


def process_clock() -> float:
    """`time.monotonic()` of the moment at which this process was started."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        age_s = uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        age_s = 0.0  # where the system does not tell: from now on
    return time.monotonic() - max(0.0, age_s)
