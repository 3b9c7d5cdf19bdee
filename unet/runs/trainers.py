"""The trainers of a run with several trainings: shared settings, and each one's time."""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_rules.ground.disk import write_json
from unet.errors import UnetError
from unet.planning.budget import Budget
from unet.planning.fingerprint import Fingerprint, fingerprint
from unet.planning.plan import Plan
from unet.training.assignment import Assignment
from unet.training.state import EVENTS, append_event, seconds_spent
from unet.training.trainer import FINGERPRINT, Event, Trainer
from unet.training.transfer import PretrainedModel

RUN_SECONDS = "run_s"  # key of events: seconds spent on the run, over all processes
MIN_PART_S = 3.0  # less is hardly enough to measure the machine's speed


@dataclass
class Trainers:
    """Settings shared by all trainings of a run.

    Attributes:
        clock: `time.monotonic()` at the start of this process.
        spent_before_s: seconds that earlier processes spent on the run.
    """

    datasets: Sequence[Path]
    out: Path
    budget: Budget
    start: PretrainedModel | None
    limit_s: float | None
    clock: float
    on_event: Event | None
    is_to_stop: Callable[[], bool]

    def __post_init__(self) -> None:
        self.spent_before_s = run_seconds_spent(self.out)

    def elapsed(self) -> float:
        """Seconds spent on the run, over all processes."""
        return self.spent_before_s + time.monotonic() - self.clock

    def facts(self) -> Fingerprint:
        """The fingerprint of all training samples, computed once and saved."""
        path = self.out / FINGERPRINT
        if not path.exists():
            write_json(path, fingerprint(self.datasets).model_dump(mode="json"))
        return Fingerprint.model_validate_json(path.read_bytes())

    def share_s(self, folder: Path, *, parts: float, until_s: float | None) -> float | None:
        """Time limit of a part, possibly already started, when `parts` equal ones must fit.

        Args:
            folder: the part's folder.
            parts: number of parts left, including this one.
            until_s: seconds of the run at which the last one must end; None without a limit.
        """
        if until_s is None:
            return None
        return max(1.0, (until_s - self.elapsed() + seconds_spent(folder)) / parts)

    def make_trainer(
        self,
        folder: Path,
        assignment: Assignment,
        *,
        plan: Plan | None,
        seed: int,
        limit_s: float | None,
    ) -> Trainer:
        """The trainer of a part, resumed if it was started before."""
        started = time.monotonic()
        folder.mkdir(parents=True, exist_ok=True)
        self.facts()
        shutil.copyfile(self.out / FINGERPRINT, folder / FINGERPRINT)
        return Trainer(
            self.datasets, folder, plan=plan, seed=seed, limit_s=limit_s, clock=started,
            on_event=self.report, is_to_stop=self.is_to_stop,
            assignment=assignment, budget=self.budget,
        )  # fmt: skip

    def report(self, event: dict[str, Any]) -> None:
        """Report an event with the time of the whole run; `done` becomes `part done`."""
        elapsed = self.elapsed()
        event = {**event, RUN_SECONDS: round(elapsed, 1)}
        if self.limit_s is not None:
            event["run_seconds_left"] = round(max(0.0, self.limit_s - elapsed), 1)
        if event["event"] == "done":
            event["event"] = "part done"
        append_event(self.out, event)
        if self.on_event:
            self.on_event(event)

    def refuse_short(self, parts: float, *, share: float, what: str, remedy: str) -> None:
        """Refuse a time limit that leaves too little for each part."""
        if self.limit_s is None:
            return
        each_s = share * self.limit_s / parts
        if each_s < MIN_PART_S:
            raise UnetError(
                f"the time limit is too short for {what}",
                expected=f"at least {MIN_PART_S * parts / share:.0f} s",
                found=f"{self.limit_s:.0f} s, {each_s:.1f} s for each", remedy=remedy,
            )  # fmt: skip


def run_seconds_spent(out: Path) -> float:
    """Seconds that all processes spent on the parts of a run, from its events."""
    try:
        lines = (out / EVENTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return max((_run_seconds(line) for line in lines), default=0.0)


def _run_seconds(line: str) -> float:
    try:
        return float(json.loads(line).get(RUN_SECONDS, 0.0))
    except (ValueError, AttributeError, TypeError):
        return 0.0  # a kill may cut the last line
