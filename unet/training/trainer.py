"""The training loop: step, validate, save, resume."""

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
from unet.training.assignment import Assignment
from unet.training.followers import Broadcast
from unet.training.out_of_memory import (
    OUT_OF_MEMORY_MARKER,
    group_out_of_memory,
    is_out_of_memory,
    release_memory,
    shrink_plan,
)
from unet.training.patches import Batch, Patches, split_samples
from unet.training.precision import Decision, switch_precision
from unet.training.prefetch import Prefetch, workers_for
from unet.training.preflight import preflight_warnings, refuse_foreign_plan, refuse_full_disk
from unet.training.process_group import SINGLE_PROCESS, ProcessGroup
from unet.training.state import (
    BEST,
    LAST,
    TrainingState,
    append_event,
    initial_state,
    load_state,
    save_hold,
    seconds_spent,
)
from unet.training.step import train_step, update_average
from unet.training.throughput import (
    is_remeasurement_due,
    plan_for_budget,
    remeasure_speed,
    try_measure_throughput,
)
from unet.training.time_budget import TimeBudget, stop_early
from unet.training.validation import Validation, validate

Event = Callable[[dict[str, Any]], None]
T = TypeVar("T")

PLAN = "plan.json"
FINGERPRINT = "fingerprint.json"
RUN = "run.json"
OUT_OF_MEMORY_IN_VALIDATION = "out of memory in validation"
SAVE_EVERY_S = 20.0  # maximum loss if the process is killed; saving takes 0.2 s
FIRST_SAVE_S = 1.0  # doubled up to SAVE_EVERY_S: a process killed often still progresses


class Trainer:
    """Runs a training in one process, from the start or a checkpoint to the end."""

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
        assignment: Assignment | None = None,
        budget: Budget | None = None,
        group: ProcessGroup = SINGLE_PROCESS,
    ) -> None:
        self.assignment = assignment or Assignment()
        self.out = out
        self.on_event = on_event
        self.is_to_stop = is_to_stop
        self.budget = budget or Budget()
        self.group = group
        self.facts = cached_fingerprint(out / FINGERPRINT, datasets)
        common_classes(datasets, [read_dataset(folder) for folder in datasets])
        self.rules = common_rules(datasets)
        self.samples = self.assignment.samples or split_samples(datasets)
        self.is_own_plan = plan is None
        self.limit_s = limit_s
        self.state = self._initial_state(plan, seed)
        spent = max(self.state.seconds, seconds_spent(out)) if self.state.step else 0.0
        self.time_budget = TimeBudget(limit_s, clock, spent_s=spent, lost_s=self.state.lost_s)
        plan = self.state.plan
        cache_bytes = self.budget.cache_bytes(plan.widths, *plan.sizes(0))
        self.patches = Patches(self.samples[0], plan, cache_bytes=cache_bytes)
        self.saved_at = time.monotonic()
        self.save_every_s = FIRST_SAVE_S

    def run(self) -> None:
        """Train to the end and write the run's files to its folder."""
        self._prepare()
        state, time_budget = self.state, self.time_budget
        try:
            while state.step < state.plan.steps and not (state.step and time_budget.is_exhausted()):
                if not self._try_step():
                    state = self.state  # that of the last checkpoint
                    continue
                self._remeasure()
                self._fit_schedule()
                if self._validation_is_due():
                    self._validate()
                if time.monotonic() - self.saved_at > self.save_every_s:
                    self._save()
                if self.is_to_stop():  # after a step: even if stopped often, it progresses
                    self._save()
                    raise Stopped
        finally:
            self.batches.close()
        self._close()

    def _prepare(self) -> None:
        """Everything before the first step of this process."""
        if (self.out / OUT_OF_MEMORY_MARKER).exists():
            self._shrink()
            self._save()
            (self.out / OUT_OF_MEMORY_MARKER).unlink()
        if self.state.step == 0:
            self._measure()
        plan, step = self.state.plan, self.state.step
        self.validation = Validation(self.samples[1], plan)
        self.batches = Prefetch(self._draw, plan, workers=workers_for(self.budget.device))
        if self.time_budget.is_limited:
            rehearsal = self._retry_in_memory(
                lambda: self.validation.rehearse(self.state.averaged, plan.at(step), self.facts)
            )
            expected = self.validation.expected_s(rehearsal, plan)
            self.time_budget.expect(*expected, is_chosen=self.assignment.selects_best)
        self.broadcast = Broadcast(self.group, self.state, device=self.budget.device)
        for text in preflight_warnings(self.facts, plan, validated=len(self.validation.samples)):
            self._emit({"event": "warning", "text": text})
        self._emit(
            {"event": "plan", "steps": plan.steps, "step": step,
             "precision": plan.at(step).precision, "patches": len(self.samples[0]),
             "device": self.budget.device,
             "expected_s": self.time_budget.expected_s(plan.steps - step)}
        )  # fmt: skip

    def _initial_state(self, plan: Plan | None, seed: int) -> TrainingState:
        """The last saved state or a new one, with this process's time limit."""
        state = self._load_or_create(plan, seed)
        state.limit_s = self.limit_s
        return state

    def _load_or_create(self, plan: Plan | None, seed: int) -> TrainingState:
        if (self.out / LAST).exists():
            return load_state(self.out / LAST, device=self.budget.device, group=self.group)
        plan = plan or self.assignment.make_plan(self.facts, self.budget, seed=seed)
        refuse_foreign_plan(plan, self.facts)
        refuse_full_disk(self.out, plan)
        return initial_state(
            plan, start=self.assignment.start, device=self.budget.device, group=self.group
        )

    def _measure(self) -> None:
        """Measure the machine's speed; with a time limit, plan accordingly."""
        plan, time_budget = self.state.plan, self.time_budget
        while (
            found := try_measure_throughput(plan, self.patches, time_budget, self.budget)
        ) is None:
            self._shrink()
            plan = self.state.plan
        self.budget = found
        if time_budget.is_limited:
            plan = plan_for_budget(
                plan, self.budget, self.assignment, facts=self.facts, is_own=self.is_own_plan
            )
            self.state.plan = self.patches.plan = plan
            self.state.validated_s = time_budget.elapsed()
        speed = self.budget.patches_per_s or 1.0
        if time_budget.is_limited:  # otherwise only one precision was measured
            self.state.patches_per_s, self.state.is_doubtful = speed, self.budget.is_doubtful
        time_budget.add_step(plan.batch / speed)

    def _remeasure(self) -> None:
        """Remeasure both precisions if due, and continue in the faster one.

        Only with a time limit; without one the plan alone decides. A process group keeps
        its precision.
        """
        state, time_budget = self.state, self.time_budget
        if (
            not time_budget.is_limited
            or self.group.size > 1
            or not is_remeasurement_due(state, time_budget)
        ):
            return
        speed = remeasure_speed(state.plan, self.patches, time_budget, self.budget, step=state.step)
        state.looks, state.looked_s = state.looks + 1, time_budget.elapsed()
        if speed is None:
            release_memory()
            return
        decision, used = speed.decision, state.plan.at(state.step).precision
        if decision.is_clear and decision.precision != used:
            self._switch(decision)
            used = decision.precision
        state.patches_per_s, state.is_doubtful = speed.patches_per_s[used], decision.is_doubtful
        time_budget.reset_steps(state.plan.sizes(state.step)[0] / state.patches_per_s)
        self._save()

    def _switch(self, decision: Decision) -> None:
        """Continue in another precision."""
        state = self.state
        state.plan = self.patches.plan = switch_precision(
            state.plan, state.step, decision.precision, reason=decision.reason
        )
        self._emit({"event": "switch", "step": state.step, "precision": decision.precision,
                    "text": decision.reason})  # fmt: skip

    def _draw(self, step: int) -> Batch:
        share = self.group.share(self.state.plan.sizes(step)[0])
        return self.patches.batch(step, share).to(self.budget.device)

    def _try_step(self) -> bool:
        """Run one step; if out of memory, shrink the plan instead and return False."""
        try:
            self._step()
            return True
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if self.group.size > 1:
                raise group_out_of_memory(self.out) from error
        # Outside the handler, memory referenced by the exception is free again.
        self.batches.drop()
        self.patches.clear_cache()
        self._shrink()
        return False

    def _retry_in_memory(self, action: Callable[[], T]) -> T:
        """Run a validation; if out of memory, free the memory held by training and retry.

        Raises:
            UnetError: if that is not enough.
        """
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
        text = f"{OUT_OF_MEMORY_IN_VALIDATION}: freeing batches and decoded images"
        self._emit({"event": "warning", "text": text})
        self.batches.drop()
        self.patches.clear_cache()
        release_memory()
        try:
            return action()
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise UnetError(
                OUT_OF_MEMORY_IN_VALIDATION, where=str(self.out),
                found=f"tiles of {self.state.plan.tile_px} px",
                remedy="end other programs, then continue with --resume",
            ) from error  # fmt: skip

    def _shrink(self) -> None:
        """Return to the last checkpoint and continue with smaller batches."""
        release_memory()
        # The step was interrupted: discard all its effects.
        limit_s = self.state.limit_s
        self.state = self._initial_state(self.state.plan, self.state.plan.seed)
        self.state.limit_s = limit_s
        plan = self.state.plan = self.patches.plan = shrink_plan(self.state.plan, self.state.step)
        batch, patch_px = plan.sizes(self.state.step)
        self.budget = self.budget.bounded(plan.widths, batch, patch_px)
        self._emit({"event": "shrink", "step": self.state.step, "batch": batch,
                    "patch_px": patch_px})  # fmt: skip
        if self.state.step:
            self._save()

    def _step(self) -> None:
        state, started = self.state, time.monotonic()
        rate = state.plan.rate(state.step)
        self.broadcast.step(state.step, rate)
        for group in state.optimizer.param_groups:
            group["lr"] = rate
        batch = self.batches.take(state.step)
        loss = train_step(
            state.net, state.optimizer, batch, state.plan.at(state.step), group=self.group
        )
        if not np.isfinite(loss):
            raise UnetError(
                "the loss is not finite", where=f"step {state.step}", found=str(loss),
                remedy="look for broken pixels in the images or lower learning_rate in the plan",
            )  # fmt: skip
        update_average(state.averaged, state.net, state.plan.ema_decay, state.step)
        state.step += 1
        self.time_budget.add_step(time.monotonic() - started)
        if state.step % 10 == 0 or state.step == state.plan.steps:
            self._emit_step(loss)

    def _fit_schedule(self) -> None:
        """Fit the rest of the schedule to the time left; save the state where the decay starts."""
        state = self.state
        state.plan = self.time_budget.fit(state.plan, state.step, validated_s=state.validated_s)
        self.batches.plan = self.patches.plan = state.plan
        if self.time_budget.is_limited and state.step == state.plan.decay_from:
            save_hold(self.out, state, seconds=self.time_budget.elapsed())

    def _validation_is_due(self) -> bool:
        """By the plan's steps, or by the clock with a time limit; `_close` runs the last one."""
        state = self.state
        if state.step >= state.plan.steps:
            return False
        if not self.time_budget.is_limited:
            return state.step in state.plan.validate_at
        return self.time_budget.validation_is_due(state.validated_s)

    def _validate(self) -> None:
        state, started = self.state, time.monotonic()
        dice = self._retry_in_memory(
            lambda: validate(state.averaged, self.validation, state.plan.at(state.step))
        )
        self.time_budget.add_validation(time.monotonic() - started)
        state.validated_s = self.time_budget.elapsed()
        state.curve.append({"step": state.step, "dice": dice})
        self._emit({"event": "validation", "step": state.step, "dice": dice,
                    "seconds": round(state.validated_s, 1)})  # fmt: skip
        if (dice or 0.0) >= state.best_dice:
            state.best_dice, state.best_step = dice or 0.0, state.step
            save_tensors(self.out / BEST, state.averaged.state_dict(), {"step": state.step})
        self._stop_early()
        self._save()

    def _stop_early(self) -> None:
        """Start the decay now if the last validations brought no gain."""
        dices = [item["dice"] or 0.0 for item in self.state.curve]
        plan = stop_early(self.state.plan, self.state.step, dices)
        if plan is not self.state.plan:
            self.state.plan = self.patches.plan = plan
            self._emit({"event": "early stop", "step": self.state.step, "steps": plan.steps})

    def _save(self) -> None:
        started = time.monotonic()
        save_tensors(
            self.out / LAST, self.state.tensors(), self.state.facts(self.time_budget.elapsed())
        )
        self.saved_at = time.monotonic()
        self.time_budget.save_s = self.saved_at - started
        self.save_every_s = min(2 * self.save_every_s, SAVE_EVERY_S)

    def _close(self) -> None:
        state = self.state
        if not state.curve or state.curve[-1]["step"] != state.step:
            self._validate()
        # What was actually done, so that the plan replays this run.
        done = {"steps": state.step, "validate_at": tuple(item["step"] for item in state.curve)}
        state.plan = state.plan.model_copy(update=done)
        chosen, scores = self._retry_in_memory(self._choose_split)
        write_json(self.out / PLAN, state.plan.model_dump(mode="json"))
        write_json(
            self.out / RUN,
            {"seed": state.plan.seed, "steps": state.step, "best_step": state.best_step,
             "curve": state.curve, "rules": rules_document(self.rules), **chosen,
             "scores": scores, "validated_on": self.validation.description},
        )  # fmt: skip
        self._emit(
            {"event": "done", "step": state.step, "seconds": round(self.time_budget.elapsed(), 1),
             **scores}
        )  # fmt: skip

    def _choose_split(self) -> tuple[dict[str, Any], dict[str, float | None]]:
        """Split settings and scores of the best weights; or the last weights, nothing chosen."""
        state = self.state
        if not self.assignment.selects_best:
            state.best_step = state.step
            save_tensors(self.out / BEST, state.averaged.state_dict(), {"step": state.step})
            return {}, {"val_dice": state.curve[-1]["dice"], "val_object_f1": None}
        is_last = state.best_step == state.step and bool(self.validation.probabilities)
        if not is_last:
            state.averaged.load_state_dict(load_tensors(self.out / BEST)[0])
        split, scores = self.validation.choose_split(
            state.averaged, state.plan.at(state.step), self.facts, is_validated=is_last
        )
        return {"split": split.model_dump()}, scores

    def _emit_step(self, loss: float) -> None:
        state, time_budget = self.state, self.time_budget
        left = (state.plan.steps - state.step) * time_budget.step_s
        self._emit(
            {"event": "step", "step": state.step, "steps": state.plan.steps,
             "loss": round(loss, 4), "rate": round(state.plan.rate(state.step - 1), 7),
             "patches_per_s": round(state.plan.sizes(state.step)[0] / time_budget.step_s, 2),
             "waited_s": round(self.batches.waited_s, 2),
             "seconds": round(time_budget.elapsed(), 1), "seconds_left": round(left, 1)}
        )  # fmt: skip

    def _emit(self, event: dict[str, Any]) -> None:
        event = {**event, **self.assignment.event_fields}
        append_event(self.out, event)
        if self.on_event:
            self.on_event(event)
