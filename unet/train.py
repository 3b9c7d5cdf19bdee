"""The training loop: step, validate, save, resume; reads like a list of what happens.

Shape suffixes: B batch, K classes, H height, W width.
"""

import copy
import fcntl
import json
import os
import shutil
import statistics
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dataset_rules.dataset import Sample, Split, read_dataset
from dataset_rules.manifest import (
    Ancestor,
    Step,
    begin,
    finish,
    read_artifact,
    write_json,
)
from unet.checkpoint import load_tensors, restore_training, save_tensors, training_state
from unet.data import Batch, Patches
from unet.errors import UnetError
from unet.fingerprint import Fingerprint, common_classes, fingerprint
from unet.losses import distance_loss, segmentation_loss
from unet.model import UNet
from unet.plan import Plan, make_plan, make_schedule
from unet.predict import MODEL, WEIGHTS, ModelCard, make_net
from unet.validate import Validation, validate

Event = Callable[[dict[str, Any]], None]
Precision = Literal["bfloat16", "float32"]
PRECISIONS: tuple[Precision, Precision] = ("bfloat16", "float32")

PLAN = "plan.json"
FINGERPRINT = "fingerprint.json"
RUN = "run.json"
EVENTS = "events.jsonl"
LAST = "last.safetensors"
BEST = "best.safetensors"
SAVE_EVERY_S = 20.0  # work that a kill can cost; saving takes a fifth of a second
VALIDATIONS = 8  # in a time limit; one costs about a hundredth of it
HOLD_SHARE = 0.6  # of the time, before the learning rate falls
MEASURE_STEPS = 3  # timed steps a precision, after one that warms up


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


def train(
    datasets: Sequence[Path],
    out: Path,
    *,
    time_limit_s: float | None = None,
    plan: Plan | None = None,
    seed: int = 0,
    resume: bool = False,
    on_event: Event | None = None,
) -> Path:
    """Train a network on formatted datasets; returns the run, whose `model/` is the model.

    Args:
        datasets: folders of formatted datasets with equal classes.
        out: the run's folder; new, or with `resume` one that was begun by the same call.
        time_limit_s: wall time of the whole call; the learning rate is fitted to it. Without it
            the plan's steps are done, bit-equal from call to call.
        plan: decisions; made from the fingerprint where absent.
        seed: of weights, patches and augmentation; the plan's own where one is given.
        resume: go on from the last checkpoint.
        on_event: gets each event as a dict: plan, step, validation, done.

    Raises:
        UnetError: if the datasets or the plan cannot be trained on, if another process writes
            the same run, or if `out` holds a begun run and `resume` is off.
    """
    started, clock = datetime.now(UTC), time.monotonic()
    inputs = tuple(read_artifact(folder, "dataset") for folder in datasets)
    stated = plan.model_dump(mode="json") if plan else None
    step = Step("run", 1, inputs, {"seed": seed, "plan": stated})
    with _only_writer(out):
        if not begin(out, step):
            _refuse_unasked_resume(out, resume)
            session = Session(datasets, out, plan=plan, seed=seed, limit_s=time_limit_s,
                              clock=clock, on_event=on_event)  # fmt: skip
            session.run()
            finish(
                out, step, started=started, content=dict.fromkeys([PLAN, FINGERPRINT, RUN, BEST])
            )
        _make_model(out, read_artifact(out, "run"), started)
    return out


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
    ) -> None:
        self.out = out
        self.limit_s = limit_s
        self.clock = clock
        self.on_event = on_event
        torch.set_flush_denormal(True)  # else steps slow down late in training
        self.facts = _facts(out, datasets)
        common_classes(datasets, [read_dataset(folder) for folder in datasets])
        training, held_out = split_samples(datasets)
        self.is_own_plan = plan is None
        self.state = self._begin_or_resume(plan, seed)
        self.patches = Patches(training, self.state.plan)
        self.validation = Validation(held_out, self.state.plan)
        self.saved_at = time.monotonic()
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
            if time.monotonic() - self.saved_at > SAVE_EVERY_S:
                self._save()
        self._close()

    def elapsed(self) -> float:
        """Seconds spent on this training, over all processes."""
        return self.state.seconds + time.monotonic() - self.clock

    def _begin_or_resume(self, plan: Plan | None, seed: int) -> Training:
        saved = self.out / LAST
        if not saved.exists():
            plan = plan or make_plan(self.facts, seed=seed)
            _refuse_foreign_plan(plan, self.facts)
            net = make_net(plan)
            return Training(plan, net, copy.deepcopy(net).eval(), _optimizer(net, plan))
        tensors, facts = load_tensors(saved)
        plan = Plan.model_validate(facts.pop("plan"))
        net = make_net(plan)
        state = Training(plan, net, copy.deepcopy(net).eval(), _optimizer(net, plan), **facts)
        restore_training(tensors, net, state.averaged, state.optimizer)
        return state

    def _fitted(self, plan: Plan) -> Plan:
        """The plan with the precision, batch and steps that this machine and the limit allow."""
        precision, speed = fastest(plan, self.patches)
        patches = max(8, int(0.93 * max(1.0, self._limit() - self.elapsed()) * speed))
        if self.is_own_plan:
            plan = make_plan(self.facts, patches=patches, seed=plan.seed)
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
        _average(state.averaged, state.net, state.plan.ema_decay, state.step)
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

    def _close(self) -> None:
        state = self.state
        if not state.curve or state.curve[-1]["step"] != state.step:
            self._validate()
        # What was done, so that the plan replays this very run.
        done = {"steps": state.step, "validate_at": tuple(item["step"] for item in state.curve)}
        state.plan = state.plan.model_copy(update=done)
        weights, _ = load_tensors(self.out / BEST)
        state.averaged.load_state_dict(weights)
        split, scores = self.validation.choose_split(state.averaged, state.plan, self.facts)
        write_json(self.out / PLAN, state.plan.model_dump(mode="json"))
        write_json(
            self.out / RUN,
            {"seed": state.plan.seed, "steps": state.step, "best_step": state.best_step,
             "curve": state.curve, "split": split.model_dump(), "scores": scores,
             "validated_on": self.validation.description},
        )  # fmt: skip
        self._emit(
            {"event": "done", "step": state.step, "seconds": round(self.elapsed(), 1), **scores}
        )

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
        with (self.out / EVENTS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(event) + "\n")
        if self.on_event:
            self.on_event(event)


def fastest(plan: Plan, patches: Patches) -> tuple[Precision, float]:
    """The precision in which this machine trains the plan's network fastest; patches a second.

    bfloat16 is slower than float32 on some processors that have it, so both are measured, on
    networks that are thrown away.
    """
    speeds = {name: _speed(plan, name, patches) for name in PRECISIONS}
    precision = max(PRECISIONS, key=lambda name: speeds[name])
    return precision, speeds[precision]


def _speed(plan: Plan, precision: Precision, patches: Patches) -> float:
    plan = plan.model_copy(update={"precision": precision})
    net = make_net(plan)
    optimizer = _optimizer(net, plan)
    for index in range(1 + MEASURE_STEPS):
        if index == 1:
            begun = time.monotonic()
        train_step(net, optimizer, patches.batch(index), plan)
    return MEASURE_STEPS * plan.batch / (time.monotonic() - begun)


def train_step(net: UNet, optimizer: torch.optim.Optimizer, batch: Batch, plan: Plan) -> float:
    """One step of gradient descent; returns the loss."""
    net.train()
    weights_K = torch.tensor(plan.class_weights)
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bfloat16"):
        logits_BKHW, distance_B1HW = net(batch.image_BCHW)
    loss: Tensor = segmentation_loss(logits_BKHW.float(), batch.mask_BHW, weights_K)
    loss = loss + plan.distance_weight * distance_loss(
        distance_B1HW.float(), batch.distance_B1HW, batch.mask_BHW
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def split_samples(
    folders: Sequence[Path],
) -> tuple[list[tuple[Path, Sample]], list[tuple[Path, Sample]]]:
    """Samples to train on and to validate on; without 'val' one group of 'train' is held out."""
    samples = [(folder, s) for folder in folders for s in read_dataset(folder).samples]
    training = [item for item in samples if item[1].split is Split.TRAIN]
    held_out = [item for item in samples if item[1].split is Split.VAL]
    if held_out:
        return training, held_out
    groups = sorted({(str(folder.resolve()), s.group) for folder, s in training})
    if len(groups) < 2:
        return training, []
    last = groups[-1]
    inside = [item for item in training if (str(item[0].resolve()), item[1].group) == last]
    return [item for item in training if item not in inside], inside


def _facts(out: Path, datasets: Sequence[Path]) -> Fingerprint:
    """The fingerprint; taken once and kept, so that resuming starts at once."""
    path = out / FINGERPRINT
    if path.exists():
        return Fingerprint.model_validate_json(path.read_bytes())
    facts = fingerprint(datasets)
    write_json(path, facts.model_dump(mode="json"))
    return facts


def _optimizer(net: UNet, plan: Plan) -> torch.optim.Optimizer:
    return torch.optim.AdamW(
        net.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
    )


@torch.no_grad()
def _average(averaged: UNet, net: UNet, decay: float, step: int) -> None:
    """Exponential moving average of weights and batch-norm statistics, shorter at the start."""
    keep = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


@contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    """Hold the folder's lock; it goes with the process, however that ends."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UnetError(
            "another process is writing this run", where=str(folder),
            remedy="wait for it, or end it first",
        ) from error  # fmt: skip
    try:
        yield
    finally:
        os.close(handle)


def _refuse_unasked_resume(out: Path, resume: bool) -> None:
    if (out / LAST).exists() and not resume:
        raise UnetError(
            "the run was begun before and not finished", where=str(out),
            remedy="go on with --resume, or name another folder",
        )  # fmt: skip


def _refuse_foreign_plan(plan: Plan, facts: Fingerprint) -> None:
    if plan.classes != facts.classes:
        raise UnetError(
            "the plan is for another dataset", expected=_names(facts.classes),
            found=_names(plan.classes), remedy="make a plan for this dataset: unetops plan",
        )  # fmt: skip


def _names(classes: Sequence[Any]) -> str:
    return "classes " + ", ".join(f"{c.id} {c.name}" for c in classes)


def _make_model(run: Path, artifact: Ancestor, started: datetime) -> None:
    """The model folder inside a finished run; made again if a kill came in between."""
    folder = run / "model"
    step = Step("model", 1, (artifact,))
    if begin(folder, step):
        return
    facts = json.loads((run / RUN).read_bytes())
    plan = Plan.model_validate_json((run / PLAN).read_bytes())
    card = ModelCard(plan=plan, split=facts["split"], scores=facts["scores"])
    shutil.copyfile(run / BEST, folder / WEIGHTS)
    write_json(folder / MODEL, card.model_dump(mode="json"))
    finish(folder, step, started=started, content=dict.fromkeys([WEIGHTS, MODEL]))
