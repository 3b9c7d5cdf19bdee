"""A training on its way: step, validate, save, resume; reads like a list of what happens."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from dataset_rules.artifacts.dataset import read_dataset
from dataset_rules.ground.disk import write_json
from dataset_rules.rules.rules import rules_document
from unet.errors import Stopped, UnetError
from unet.network.checkpoint import load_tensors, save_tensors
from unet.planning.budget import Budget
from unet.planning.fingerprint import cached_fingerprint, common_classes, common_rules
from unet.planning.plan import Plan
from unet.training.assignment import Part
from unet.training.followers import Orders
from unet.training.out_of_memory import NOTE, give_back, is_out_of_memory, refused_in_group, shrunk
from unet.training.patches import Batch, Patches, split_samples
from unet.training.precision import Decision, switched
from unet.training.prefetch import Prefetch, workers_for
from unet.training.preflight import concerns, refuse_foreign_plan, refuse_full_disk
from unet.training.process_group import ALONE, Group
from unet.training.state import (
    BEST,
    LAST,
    Training,
    append_event,
    begin_training,
    load_training,
    save_hold,
    spent_s,
)
from unet.training.step import average, train_step
from unet.training.throughput import is_look_due, looked_at_again, measured_in_memory, planned
from unet.training.time_budget import Pace, stopped_early
from unet.training.validation import Validation, validate

Event = Callable[[dict[str, Any]], None]
Found = TypeVar("Found")

PLAN = "plan.json"
FINGERPRINT = "fingerprint.json"
RUN = "run.json"
REFUSED_LATER = "memory was refused in validation"
SAVE_EVERY_S = 20.0  # work that a kill can cost; saving takes a fifth of a second
FIRST_SAVE_S = 1.0  # of a process; doubled up to the above, so that killed often it gets on


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
        budget: Budget | None = None,
        group: Group = ALONE,
    ) -> None:
        self.part = part or Part()
        self.out = out
        self.on_event = on_event
        self.is_to_stop = is_to_stop
        self.budget = budget or Budget()
        self.group = group
        self.facts = cached_fingerprint(out / FINGERPRINT, datasets)
        common_classes(datasets, [read_dataset(folder) for folder in datasets])
        self.rules = common_rules(datasets)
        self.samples = self.part.samples or split_samples(datasets)
        self.is_own_plan = plan is None
        self.limit_s = limit_s
        self.state = self._begin_or_resume(plan, seed)
        spent = max(self.state.seconds, spent_s(out)) if self.state.step else 0.0
        self.pace = Pace(limit_s, clock, spent_s=spent, lost_s=self.state.lost_s)
        plan = self.state.plan
        cache_bytes = self.budget.cache_bytes(plan.widths, *plan.sizes(0))
        self.patches = Patches(self.samples[0], plan, cache_bytes=cache_bytes)
        self.saved_at = time.monotonic()
        self.save_every_s = FIRST_SAVE_S

    def run(self) -> None:
        """Train to the end and leave the run's files in its folder."""
        self._prepare()
        state, pace = self.state, self.pace
        try:
            while state.step < state.plan.steps and not (state.step and pace.is_up()):
                if not self._step_in_memory():
                    state = self.state  # that of the last checkpoint
                    continue
                self._look_again()
                self._fit_schedule()
                if self._validation_is_due():
                    self._validate()
                if time.monotonic() - self.saved_at > self.save_every_s:
                    self._save()
                if self.is_to_stop():  # after a step: however often it is stopped, it gets on
                    self._save()
                    raise Stopped
        finally:
            self.batches.close()
        self._close()

    def _prepare(self) -> None:
        """All that is done before the first step of this process."""
        if (self.out / NOTE).exists():
            self._shrink()
            self._save()
            (self.out / NOTE).unlink()
        if self.state.step == 0:
            self._measure()
        plan, step = self.state.plan, self.state.step
        self.validation = Validation(self.samples[1], plan)
        self.batches = Prefetch(self._draw, plan, workers=workers_for(self.budget.device))
        if self.pace.is_limited:
            rehearsal = self._with_room(
                lambda: self.validation.rehearsed(self.state.averaged, plan.at(step), self.facts)
            )
            expected = self.validation.expected_s(rehearsal, plan)
            self.pace.expect(*expected, is_chosen=self.part.chooses)
        self.orders = Orders(self.group, self.state, device=self.budget.device)
        for text in concerns(self.facts, plan, validated=len(self.validation.samples)):
            self._emit({"event": "warning", "text": text})
        self._emit(
            {"event": "plan", "steps": plan.steps, "step": step,
             "precision": plan.at(step).precision, "patches": len(self.samples[0]),
             "device": self.budget.device,
             "expected_s": self.pace.expected_s(plan.steps - step)}
        )  # fmt: skip

    def _begin_or_resume(self, plan: Plan | None, seed: int) -> Training:
        """The training as it was last saved, or before its first step; in this process's limit."""
        state = self._loaded_or_begun(plan, seed)
        state.limit_s = self.limit_s
        return state

    def _loaded_or_begun(self, plan: Plan | None, seed: int) -> Training:
        if (self.out / LAST).exists():
            return load_training(self.out / LAST, device=self.budget.device, group=self.group)
        plan = plan or self.part.make_plan(self.facts, self.budget, seed=seed)
        refuse_foreign_plan(plan, self.facts)
        refuse_full_disk(self.out, plan)
        return begin_training(
            plan, start=self.part.start, device=self.budget.device, group=self.group
        )

    def _measure(self) -> None:
        """The machine's speed, and within a time limit the plan that follows from it."""
        plan, pace = self.state.plan, self.pace
        while (found := measured_in_memory(plan, self.patches, pace, self.budget)) is None:
            self._shrink()
            plan = self.state.plan
        self.budget = found
        if pace.is_limited:
            plan = planned(plan, self.budget, self.part, facts=self.facts, is_own=self.is_own_plan)
            self.state.plan = self.patches.plan = plan
            self.state.validated_s = pace.elapsed()
        speed = self.budget.patches_per_s or 1.0
        if pace.is_limited:  # else only one precision was measured
            self.state.patches_per_s, self.state.is_doubtful = speed, self.budget.is_doubtful
        pace.add_step(plan.batch / speed)

    def _look_again(self) -> None:
        """Measure both precisions again where that is due, and go on in the faster one.

        Only within a time limit: without one the plan decides alone. Processes that train
        together keep the precision that they were told.
        """
        state, pace = self.state, self.pace
        if not pace.is_limited or self.group.size > 1 or not is_look_due(state, pace):
            return
        speed = looked_at_again(state.plan, self.patches, pace, self.budget, step=state.step)
        state.looks, state.looked_s = state.looks + 1, pace.elapsed()
        if speed is None:
            give_back()
            return
        decision, used = speed.decision, state.plan.at(state.step).precision
        if decision.is_clear and decision.precision != used:
            self._switch(decision)
            used = decision.precision
        state.patches_per_s, state.is_doubtful = speed.patches_per_s[used], decision.is_doubtful
        pace.begin_anew(state.plan.sizes(state.step)[0] / state.patches_per_s)
        self._save()

    def _switch(self, decision: Decision) -> None:
        """Go on in another precision."""
        state = self.state
        state.plan = self.patches.plan = switched(
            state.plan, state.step, decision.precision, reason=decision.reason
        )
        self._emit({"event": "switch", "step": state.step, "precision": decision.precision,
                    "text": decision.reason})  # fmt: skip

    def _draw(self, step: int) -> Batch:
        share = self.group.share(self.state.plan.sizes(step)[0])
        return self.patches.batch(step, share).to(self.budget.device)

    def _step_in_memory(self) -> bool:
        """Do a step; where memory does not suffice, shrink the plan instead and say no."""
        try:
            self._one_step()
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.group.size > 1:
                raise refused_in_group(self.out) from error
        # Out of the handler: what the error held is free again.
        self.batches.drop()
        self.patches.forget()
        self._shrink()
        return False

    def _with_room(self, validated: Callable[[], Found]) -> Found:
        """What a validation finds; where memory is refused, with what training holds given back.

        Raises:
            UnetError: if that does not suffice.
        """
        try:
            return validated()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        text = f"{REFUSED_LATER}: batches and decoded images are given back"
        self._emit({"event": "warning", "text": text})
        self.batches.drop()
        self.patches.forget()
        give_back()
        try:
            return validated()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UnetError(
                REFUSED_LATER, where=str(self.out), found=f"tiles of {self.state.plan.tile_px} px",
                remedy="end other programs, then go on with --resume",
            ) from error  # fmt: skip

    def _shrink(self) -> None:
        """Go back to the last checkpoint, and on from there in smaller batches."""
        give_back()
        # Memory was refused in the midst of a step: nothing of it may stay.
        limit_s = self.state.limit_s
        self.state = self._begin_or_resume(self.state.plan, self.state.plan.seed)
        self.state.limit_s = limit_s
        plan = self.state.plan = self.patches.plan = shrunk(self.state.plan, self.state.step)
        batch, patch_px = plan.sizes(self.state.step)
        self.budget = self.budget.bounded(plan.widths, batch, patch_px)
        self._emit({"event": "shrink", "step": self.state.step, "batch": batch,
                    "patch_px": patch_px})  # fmt: skip
        if self.state.step:
            self._save()

    def _one_step(self) -> None:
        state, begun = self.state, time.monotonic()
        rate = state.plan.rate(state.step)
        self.orders.step(state.step, rate)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        batch = self.batches.take(state.step)
        loss = train_step(
            state.net, state.optimizer, batch, state.plan.at(state.step), group=self.group
        )
        if not np.isfinite(loss):
            raise UnetError(
                "the loss is no longer a number", where=f"step {state.step}", found=str(loss),
                remedy="look for broken pixels in the images or lower learning_rate in the plan",
            )  # fmt: skip
        average(state.averaged, state.net, state.plan.ema_decay, state.step)
        state.step += 1
        self.pace.add_step(time.monotonic() - begun)
        if state.step % 10 == 0 or state.step == state.plan.steps:
            self._emit_step(loss)

    def _fit_schedule(self) -> None:
        """Set the rest of the schedule by the time that is left; keep where the fall begins."""
        state = self.state
        state.plan = self.pace.fitted(state.plan, state.step, validated_s=state.validated_s)
        self.batches.plan = self.patches.plan = state.plan
        if self.pace.is_limited and state.step == state.plan.decay_from:
            save_hold(self.out, state, seconds=self.pace.elapsed())

    def _validation_is_due(self) -> bool:
        """By the plan's steps, or by the clock within a time limit; the last comes later."""
        state = self.state
        if state.step >= state.plan.steps:
            return False
        if not self.pace.is_limited:
            return state.step in state.plan.validate_at
        return self.pace.validation_is_due(state.validated_s)

    def _validate(self) -> None:
        state, begun = self.state, time.monotonic()
        dice = self._with_room(
            lambda: validate(state.averaged, self.validation, state.plan.at(state.step))
        )
        self.pace.add_validation(time.monotonic() - begun)
        state.validated_s = self.pace.elapsed()
        state.curve.append({"step": state.step, "dice": dice})
        self._emit({"event": "validation", "step": state.step, "dice": dice,
                    "seconds": round(state.validated_s, 1)})  # fmt: skip
        if (dice or 0.0) >= state.best_dice:
            state.best_dice, state.best_step = dice or 0.0, state.step
            save_tensors(self.out / BEST, state.averaged.state_dict(), {"step": state.step})
        self._stop_early()
        self._save()

    def _stop_early(self) -> None:
        """Let the rate fall at once where the last validations gained nothing."""
        dices = [item["dice"] or 0.0 for item in self.state.curve]
        plan = stopped_early(self.state.plan, self.state.step, dices)
        if plan is not self.state.plan:
            self.state.plan = self.patches.plan = plan
            self._emit({"event": "early stop", "step": self.state.step, "steps": plan.steps})

    def _save(self) -> None:
        begun = time.monotonic()
        save_tensors(self.out / LAST, self.state.tensors(), self.state.facts(self.pace.elapsed()))
        self.saved_at = time.monotonic()
        self.pace.save_s = self.saved_at - begun
        self.save_every_s = min(2 * self.save_every_s, SAVE_EVERY_S)

    def _close(self) -> None:
        state = self.state
        if not state.curve or state.curve[-1]["step"] != state.step:
            self._validate()
        # What was done, so that the plan replays this very run.
        done = {"steps": state.step, "validate_at": tuple(item["step"] for item in state.curve)}
        state.plan = state.plan.model_copy(update=done)
        chosen, scores = self._with_room(self._choice)
        write_json(self.out / PLAN, state.plan.model_dump(mode="json"))
        write_json(
            self.out / RUN,
            {"seed": state.plan.seed, "steps": state.step, "best_step": state.best_step,
             "curve": state.curve, "rules": rules_document(self.rules), **chosen,
             "scores": scores, "validated_on": self.validation.description},
        )  # fmt: skip
        self._emit(
            {"event": "done", "step": state.step, "seconds": round(self.pace.elapsed(), 1),
             **scores}
        )  # fmt: skip

    def _choice(self) -> tuple[dict[str, Any], dict[str, float | None]]:
        """How objects are split and what is reached so, by the best weights; or the last as are."""
        state = self.state
        if not self.part.chooses:
            state.best_step = state.step
            save_tensors(self.out / BEST, state.averaged.state_dict(), {"step": state.step})
            return {}, {"val_dice": state.curve[-1]["dice"], "val_object_f1": None}
        is_last = state.best_step == state.step and bool(self.validation.found)
        if not is_last:
            state.averaged.load_state_dict(load_tensors(self.out / BEST)[0])
        split, scores = self.validation.choose_split(
            state.averaged, state.plan.at(state.step), self.facts, is_validated=is_last
        )
        return {"split": split.model_dump()}, scores

    def _emit_step(self, loss: float) -> None:
        state, pace = self.state, self.pace
        left = (state.plan.steps - state.step) * pace.step_s
        self._emit(
            {"event": "step", "step": state.step, "steps": state.plan.steps,
             "loss": round(loss, 4), "rate": round(state.plan.rate(state.step - 1), 7),
             "patches_per_s": round(state.plan.sizes(state.step)[0] / pace.step_s, 2),
             "waited_s": round(self.batches.waited_s, 2),
             "seconds": round(pace.elapsed(), 1), "seconds_left": round(left, 1)}
        )  # fmt: skip

    def _emit(self, event: dict[str, Any]) -> None:
        event = {**event, **self.part.marks}
        append_event(self.out, event)
        if self.on_event:
            self.on_event(event)
