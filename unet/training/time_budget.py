"""The time budget of a training, and the schedule that fills the time left."""

import os
import statistics
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from unet.planning.lr_schedule import HOLD_SHARE, Refit
from unet.planning.plan import Plan

RECENT = 16  # steps whose median predicts the duration of the next ones
VALIDATIONS = 6  # that would fit into a time limit; those in its first third are omitted
FIRST_VALIDATION = 1 / 3  # of the time; weights before it are not worth keeping
LAST_VALIDATION = 0.9  # of the time; after it only the final one
MARGIN = 0.02  # of the limit, for wrong estimates
CLOSING_S = 1.2  # hashes, the model's folder, process exit; measured: 0.9 s
CLOSING_SHARE = 0.15  # of the startup time, if that is long: both run on one core and slow down
# alike on a busy machine
CLOSING_SAVES = 2  # saves that closing costs on a slow disk
MIN_GAIN = 0.002  # of Dice, for early stopping
REFIT_SHARE = 0.05  # of the steps left; smaller errors even out later


class TimeBudget:
    """Time limit, time spent, and the cost of steps and validations.

    Attributes:
        limit_s: wall time over all processes of the training; infinite without a limit.
        lost_s: the part of it spent on work discarded when the limit was raised.
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
        """True if there is a time limit."""
        return self.limit_s != float("inf")

    def elapsed(self) -> float:
        """Seconds spent on the training by this and earlier processes."""
        return self.spent_s + time.monotonic() - self.clock

    def add_step(self, seconds: float) -> None:
        """Record the duration of a step."""
        self._steps.append(seconds)

    @property
    def step_s(self) -> float:
        """Expected seconds per step."""
        return statistics.median(self._steps) if self._steps else 0.0

    def expect(self, validation_s: float, choice_s: float, *, is_chosen: bool) -> None:
        """Set estimates from a rehearsal, used until the real durations are known."""
        self._validations.append(validation_s)
        self.choice_s = choice_s if is_chosen else 0.0

    def add_validation(self, seconds: float) -> None:
        """Record the duration of a validation."""
        self._validations.append(seconds)

    @property
    def validation_s(self) -> float:
        """Expected seconds per validation: the slower of the last two, for busy machines."""
        return max(self._validations, default=0.0)

    def expected_s(self, steps: int) -> float:
        """Seconds until the end of this process with `steps` left."""
        if self.is_limited:
            return round(max(0.0, self.limit_s - self.elapsed()), 1)
        return round(steps * self.step_s + self.validation_s, 1)

    def usable_s(self) -> float:
        """Elapsed time at which training must stop for closing to fit into the limit."""
        if not self.is_limited:
            return self.limit_s
        closing = max(CLOSING_S, CLOSING_SHARE * self.startup_s)
        ending = self.validation_s + self.choice_s + closing + CLOSING_SAVES * self.save_s
        return self.limit_s - min(ending + MARGIN * self.limit_s, 0.4 * self.limit_s)

    def is_exhausted(self) -> bool:
        """True if no further step fits."""
        return self.elapsed() + 0.5 * self.step_s > self.usable_s()

    def validation_is_due(self, validated_s: float) -> bool:
        """True if a validation is due; `validated_s` is the elapsed time at the last one."""
        elapsed, useful = self.elapsed() - self.lost_s, self.limit_s - self.lost_s
        return (
            FIRST_VALIDATION * useful < elapsed < LAST_VALIDATION * useful
            and self.elapsed() - validated_s > useful / VALIDATIONS
        )

    @property
    def steady_step_s(self) -> float | None:
        """Seconds per step once enough steps were timed; None before."""
        return self.step_s if len(self._steps) == RECENT else None

    def reset_steps(self, step_s: float) -> None:
        """Forget previous steps: the speed has changed."""
        self._steps.clear()
        self.add_step(step_s)

    def _validations_left(self, validated_s: float) -> int:
        useful = self.limit_s - self.lost_s
        between = useful / VALIDATIONS
        first = max(validated_s - self.lost_s + between, FIRST_VALIDATION * useful)
        return max(0, int((LAST_VALIDATION * useful - first) / between) + 1)

    def fit(self, plan: Plan, step: int, *, validated_s: float) -> Plan:
        """The plan with steps from `step` on fitted to the time left."""
        if not self._steps or not self.is_limited:
            return plan
        usable = self.usable_s()
        left_s = usable - self.elapsed() - self.validation_s * self._validations_left(validated_s)
        left = max(1, int(left_s / self.step_s))
        if step > plan.decay_from:
            return _refit(plan, step, left)
        decay = max(1, round((1 - HOLD_SHARE) * (usable - self.lost_s) / self.step_s))
        decay_steps = min(left, decay)
        decay_from = step + left - decay_steps
        update = {
            "decay_from": decay_from, "decay_steps": decay_steps, "steps": step + left,
            "refits": (),
        }  # fmt: skip
        return plan.model_copy(update=update)


def _refit(plan: Plan, step: int, left: int) -> Plan:
    """Make a decay in progress reach zero in `left` steps."""
    planned = plan.steps - step
    if planned < 1 or abs(left - planned) < max(1, REFIT_SHARE * planned):
        return plan
    refit = Refit(step=step, level=plan.level(step), steps=left)
    return plan.model_copy(update={"refits": (*plan.refits, refit), "steps": step + left})


def stop_early(plan: Plan, step: int, dices: Sequence[float]) -> Plan:
    """Start the decay at this step if the last validations brought no gain.

    A replayed plan stops at the same step.
    """
    if not plan.patience or step >= plan.decay_from or len(dices) <= plan.patience:
        return plan
    if max(dices[-plan.patience :]) > max(dices[: -plan.patience]) + MIN_GAIN:
        return plan
    decay = min(plan.decay_steps, max(1, round(step * (1 - HOLD_SHARE) / HOLD_SHARE)))
    return plan.model_copy(update={"decay_from": step, "decay_steps": decay, "steps": step + decay})


def process_start() -> float:
    """`time.monotonic()` at the start of this process."""
    try:
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        uptime_s = float(Path("/proc/uptime").read_text().split()[0])
        age_s = uptime_s - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, ValueError, IndexError):
        age_s = 0.0  # not available on this system: count from now
    return time.monotonic() - max(0.0, age_s)
