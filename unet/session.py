"""A training on its way: step, validate, save, resume; reads like a list of what happens."""

import copy
import json
import statistics
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dataset_rules.dataset import read_dataset
from dataset_rules.manifest import write_json
from dataset_rules.rules import rules_document
from unet.checkpoint import load_tensors, restore_training, save_tensors, training_state
from unet.data import Patches, split_samples
from unet.errors import Stopped, UnetError
from unet.fingerprint import Fingerprint, common_classes, common_rules, fingerprint
from unet.model import UNet
from unet.part import Part
from unet.plan import Plan, make_schedule
from unet.predict import make_net
from unet.step import average, fastest, make_optimizer, train_step
from unet.validate import Validation, validate

Event = Callable[[dict[str, Any]], None]

PLAN = "plan.json"
FINGERPRINT = "fingerprint.json"
RUN = "run.json"
EVENTS = "events.jsonl"
LAST = "last.safetensors"
BEST = "best.safetensors"
SAVE_EVERY_S = 20.0  # work that a kill can cost; saving takes a fifth of a second
FIRST_SAVE_S = 1.0  # of a process; doubled up to the above, so that killed often it gets on
VALIDATIONS = 8  # in a time limit; one costs about a hundredth of it
HOLD_SHARE = 0.6  # of the time, before the learning rate falls


@dataclass
class Training:
    """A training on its way: what is saved, and what a resumed process takes up again."""

    plan: Plan
    net: UNet
    averaged: UNet
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0  # spent on it, over all processes
    best_dice: float = -1.0
    best_step: int = 0
    validated_s: float = 0.0  # `seconds` at the last validation
    curve: list[dict[str, Any]] = field(default_factory=list)


class Session:
    """One process's share in a training: from the start or a checkpoint to the end."""

    def __init__(
        self,
        datasets: Sequence[Path],
        out: Path,
        *,
        plan: Plan | None,
        seed: int,
        limit_s: float | None,
        clock: float,
        on_event: Event | None,
        is_to_stop: Callable[[], bool] = lambda: False,
        part: Part | None = None,
    ) -> None:
        self.part = part or Part()
        self.out = out
        self.limit_s = limit_s
        self.clock = clock
        self.on_event = on_event
        self.is_to_stop = is_to_stop
        self.facts = _facts(out, datasets)
        common_classes(datasets, [read_dataset(folder) for folder in datasets])
        self.rules = common_rules(datasets)
        training, held_out = self.part.samples or split_samples(datasets)
        self.is_own_plan = plan is None
        self.state = self._begin_or_resume(plan, seed)
        self.patches = Patches(training, self.state.plan)
        self.validation = Validation(held_out, self.state.plan)
        self.saved_at = time.monotonic()
        self.save_every_s = FIRST_SAVE_S
        self.recent: deque[float] = deque(maxlen=40)  # seconds of the last steps
        self.step_s = 0.0
        self.validation_s = 0.0

    def run(self) -> None:
        """Train to the end and leave the run's files in its folder."""
        state = self.state
        if state.step == 0 and self.limit_s is not None:
            state.plan = self.patches.plan = self._fitted(state.plan)
            state.validated_s = self.elapsed()
        self._emit(
            {"event": "plan", "steps": state.plan.steps, "step": state.step,
             "precision": state.plan.precision, "patches": len(self.patches.samples)}
        )  # fmt: skip
        while state.step < state.plan.steps and not self._time_is_up():
            self._one_step()
            self._fit_schedule()
            if self._validation_is_due():
                self._validate()
            if time.monotonic() - self.saved_at > self.save_every_s:
                self._save()
            if self.is_to_stop():  # after a step: however often it is stopped, it gets on
                self._save()
                raise Stopped
        self._close()

    def elapsed(self) -> float:
        """Seconds spent on this training, over all processes."""
        return self.state.seconds + time.monotonic() - self.clock

    def _begin_or_resume(self, plan: Plan | None, seed: int) -> Training:
        saved = self.out / LAST
        if not saved.exists():
            plan = plan or self.part.make_plan(self.facts, seed=seed)
            _refuse_foreign_plan(plan, self.facts)
            net = make_net(plan)
            if self.part.start:
                self.part.start.give(net, plan)
            return Training(plan, net, copy.deepcopy(net).eval(), make_optimizer(net, plan))
        tensors, facts = load_tensors(saved)
        plan = Plan.model_validate(facts.pop("plan"))
        net = make_net(plan)
        state = Training(plan, net, copy.deepcopy(net).eval(), make_optimizer(net, plan), **facts)
        restore_training(tensors, net, state.averaged, state.optimizer)
        return state

    def _fitted(self, plan: Plan) -> Plan:
        """The plan with the precision, batch and steps that this machine and the limit allow."""
        precision, speed = fastest(plan, self.patches, within_s=0.1 * self._limit())
        patches = max(8, int(0.93 * max(1.0, self._limit() - self.elapsed()) * speed))
        if self.is_own_plan:
            plan = self.part.make_plan(self.facts, patches=patches, seed=plan.seed)
        update = {"precision": precision, **asdict(make_schedule(max(4, patches // plan.batch)))}
        return plan.model_copy(update=update)

    def _limit(self) -> float:
        return float("inf") if self.limit_s is None else self.limit_s

    def _one_step(self) -> None:
        state, begun = self.state, time.monotonic()
        for group in state.optimizer.param_groups:
            group["lr"] = state.plan.rate(state.step)
        loss = train_step(state.net, state.optimizer, self.patches.batch(state.step), state.plan)
        if not np.isfinite(loss):
            raise UnetError(
                "the loss is no longer a number", where=f"step {state.step}", found=str(loss),
                remedy="look for broken pixels in the images or lower learning_rate in the plan",
            )  # fmt: skip
        average(state.averaged, state.net, state.plan.ema_decay, state.step)
        state.step += 1
        self.recent.append(time.monotonic() - begun)
        self.step_s = statistics.median(self.recent)
        if state.step % 10 == 0 or state.step == state.plan.steps:
            self._emit_step(loss)

    def _fit_schedule(self) -> None:
        """Set the rest of the schedule by the time that is left; once the rate falls, it holds."""
        state = self.state
        if self.limit_s is None or state.step > state.plan.decay_from:
            return
        usable = self._limit() - self._reserve_s()
        hold_s = HOLD_SHARE * usable - self.elapsed()
        decay_from = state.step + max(0, int(hold_s / self.step_s))
        validations_s = self.validation_s * 2  # those that fall into the decay
        decay_s = min(usable - self.elapsed(), (1 - HOLD_SHARE) * usable) - validations_s
        decay_steps = max(1, int(decay_s / self.step_s))
        state.plan = state.plan.model_copy(
            update={"decay_from": decay_from, "decay_steps": decay_steps,
                    "steps": decay_from + decay_steps}
        )  # fmt: skip

    def _reserve_s(self) -> float:
        """Time kept for the last validation, the choice of thresholds and writing."""
        return min(2.0 + 6.0 * self.validation_s, 0.25 * self._limit())

    def _time_is_up(self) -> bool:
        return self.state.step > 0 and self.elapsed() > self._limit() - self._reserve_s()

    def _validation_is_due(self) -> bool:
        """By the plan's steps, or by the clock within a time limit; the last comes later."""
        state = self.state
        if state.step >= state.plan.steps:
            return False
        if self.limit_s is None:
            return state.step in state.plan.validate_at
        return self.elapsed() - state.validated_s > self.limit_s / VALIDATIONS

    def _validate(self) -> None:
        state, begun = self.state, time.monotonic()
        dice = validate(state.averaged, self.validation, state.plan)
        self.validation_s = time.monotonic() - begun
        state.validated_s = self.elapsed()
        state.curve.append({"step": state.step, "dice": dice})
        self._emit({"event": "validation", "step": state.step, "dice": dice})
        if (dice or 0.0) >= state.best_dice:
            state.best_dice, state.best_step = dice or 0.0, state.step
            save_tensors(self.out / BEST, state.averaged.state_dict(), {"step": state.step})
        self._save()

    def _save(self) -> None:
        state = self.state
        facts = {
            "plan": state.plan.model_dump(mode="json"), "step": state.step,
            "seconds": self.elapsed(), "best_dice": state.best_dice,
            "best_step": state.best_step, "validated_s": state.validated_s,
            "curve": state.curve,
        }  # fmt: skip
        tensors = training_state(state.net, state.averaged, state.optimizer)
        save_tensors(self.out / LAST, tensors, facts)
        self.saved_at = time.monotonic()
        self.save_every_s = min(2 * self.save_every_s, SAVE_EVERY_S)

    def _close(self) -> None:
        state = self.state
        if not state.curve or state.curve[-1]["step"] != state.step:
            self._validate()
        # What was done, so that the plan replays this very run.
        done = {"steps": state.step, "validate_at": tuple(item["step"] for item in state.curve)}
        state.plan = state.plan.model_copy(update=done)
        chosen, scores = self._choice()
        write_json(self.out / PLAN, state.plan.model_dump(mode="json"))
        write_json(
            self.out / RUN,
            {"seed": state.plan.seed, "steps": state.step, "best_step": state.best_step,
             "curve": state.curve, "rules": rules_document(self.rules), **chosen,
             "scores": scores, "validated_on": self.validation.description},
        )  # fmt: skip
        self._emit(
            {"event": "done", "step": state.step, "seconds": round(self.elapsed(), 1), **scores}
        )

    def _choice(self) -> tuple[dict[str, Any], dict[str, float | None]]:
        """How objects are split and what is reached so, by the best weights; or the last as are."""
        state = self.state
        if not self.part.chooses:
            state.best_step = state.step
            save_tensors(self.out / BEST, state.averaged.state_dict(), {"step": state.step})
            return {}, {"val_dice": state.curve[-1]["dice"], "val_object_f1": None}
        weights, _ = load_tensors(self.out / BEST)
        state.averaged.load_state_dict(weights)
        split, scores = self.validation.choose_split(state.averaged, state.plan, self.facts)
        return {"split": split.model_dump()}, scores

    def _emit_step(self, loss: float) -> None:
        state = self.state
        left = (state.plan.steps - state.step) * self.step_s
        self._emit(
            {"event": "step", "step": state.step, "steps": state.plan.steps,
             "loss": round(loss, 4), "rate": round(state.plan.rate(state.step - 1), 7),
             "patches_per_s": round(state.plan.batch / self.step_s, 2),
             "seconds": round(self.elapsed(), 1), "seconds_left": round(left, 1)}
        )  # fmt: skip

    def _emit(self, event: dict[str, Any]) -> None:
        event = {**event, **self.part.marks}
        with (self.out / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        if self.on_event:
            self.on_event(event)


def _facts(out: Path, datasets: Sequence[Path]) -> Fingerprint:
    """The fingerprint; taken once and kept, so that resuming starts at once."""
    path = out / FINGERPRINT
    if path.exists():
        return Fingerprint.model_validate_json(path.read_bytes())
    facts = fingerprint(datasets)
    write_json(path, facts.model_dump(mode="json"))
    return facts


def _refuse_foreign_plan(plan: Plan, facts: Fingerprint) -> None:
    if plan.classes != facts.classes:
        raise UnetError(
            "the plan is for another dataset", expected=_names(facts.classes),
            found=_names(plan.classes), remedy="make a plan for this dataset: unetops plan",
        )  # fmt: skip


def _names(classes: Sequence[Any]) -> str:
    return "classes " + ", ".join(f"{c.id} {c.name}" for c in classes)
