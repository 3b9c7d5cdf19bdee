"""The step `train`: formatted datasets -> run, with its model inside."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path

import torch

from dataset_rules.manifest import (
    MODEL_FOLDER,
    Ancestor,
    Step,
    begin,
    finish,
    read_artifact,
    read_intact,
    removed_on_refusal,
    write_json,
)
from unet.errors import UnetError
from unet.part import Part
from unet.plan import Plan
from unet.predict import MODEL, WEIGHTS, ModelCard
from unet.session import BEST, FINGERPRINT, LAST, PLAN, RUN, Event, Session
from unet.transfer import read_start

RUN_VERSION = 2  # 2: each patch of a batch has a generator of its own; stains are augmented


def train(
    datasets: Sequence[Path],
    out: Path,
    *,
    time_limit_s: float | None = None,
    plan: Plan | None = None,
    seed: int | None = None,
    start: Path | None = None,
    resume: bool = False,
    clock: float | None = None,
    on_event: Event | None = None,
    is_to_stop: Callable[[], bool] = lambda: False,
) -> Path:
    """Train a network on formatted datasets; returns the run, whose `model/` is the model.

    Args:
        datasets: folders of formatted datasets with equal classes.
        out: the run's folder; new, or with `resume` one that was begun by the same call.
        time_limit_s: wall time of the whole call; the learning rate is fitted to it. Without it
            the plan's steps are done, bit-equal from call to call.
        plan: decisions; made from the fingerprint where absent.
        seed: of weights, patches and augmentation; where absent the plan's, else 0.
        start: a model (or run) whose weights and scale the training begins with: fine-tuning.
        resume: go on from the last checkpoint.
        clock: `time.monotonic()` from which the limit counts; now where absent.
        on_event: gets each event as a dict: plan, step, validation, done.
        is_to_stop: asked after each step; if true the training saves and ends by `Stopped`.

    Raises:
        Stopped: if it was asked to end; `resume` goes on from there.
        UnetError: if the datasets or the plan cannot be trained on, if another process writes
            the same run, or if `out` holds a begun run and `resume` is off.
    """
    started, clock = datetime.now(UTC), clock or time.monotonic()
    inputs = tuple(read_intact(folder, "dataset") for folder in datasets)
    part = Part(start=read_start(start) if start else None)
    inputs += (part.start.artifact,) if part.start else ()
    seed = seed if seed is not None else (plan.seed if plan else 0)
    plan = plan and plan.model_copy(update={"seed": seed})
    stated = plan.model_dump(mode="json") if plan else None
    step = Step("run", RUN_VERSION, inputs, {"seed": seed, "plan": stated})
    with _only_writer(out), _flushed_denormals():
        if not begin(out, step):
            _refuse_unasked_resume(out, resume)
            is_new = not (out / LAST).exists()
            with removed_on_refusal(out) if is_new else nullcontext():
                session = Session(datasets, out, plan=plan, seed=seed, limit_s=time_limit_s,
                                  clock=clock, on_event=on_event,
                                  is_to_stop=is_to_stop, part=part)  # fmt: skip
            session.run()
            finish(
                out, step, started=started, content=dict.fromkeys([PLAN, FINGERPRINT, RUN, BEST])
            )
        elif on_event:
            on_event({"event": "finished before", "run": str(out)})
        _make_model(out, read_artifact(out, "run"), started)
    return out


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


@contextmanager
def _flushed_denormals() -> Iterator[None]:
    """Numbers too small for full precision count as 0: else steps slow down late in training."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _refuse_unasked_resume(out: Path, resume: bool) -> None:
    if (out / LAST).exists() and not resume:
        raise UnetError(
            "the run was begun before and not finished", where=str(out),
            remedy="go on with --resume, or name another folder",
        )  # fmt: skip


def _make_model(run: Path, artifact: Ancestor, started: datetime) -> None:
    """The model folder inside a finished run; made again if a kill came in between."""
    folder = run / MODEL_FOLDER
    step = Step("model", 1, (artifact,))
    if begin(folder, step):
        return
    facts = json.loads((run / RUN).read_bytes())
    plan = Plan.model_validate_json((run / PLAN).read_bytes())
    card = ModelCard.model_validate(
        {"plan": plan, **{name: facts[name] for name in ("rules", "split", "scores")}}
    )
    shutil.copyfile(run / BEST, folder / WEIGHTS)
    write_json(folder / MODEL, card.model_dump(mode="json", by_alias=True))
    finish(folder, step, started=started, content=dict.fromkeys([WEIGHTS, MODEL]))
