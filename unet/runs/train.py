"""The step `train`: formatted datasets -> run, with its model inside."""

import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from dataset_rules.artifacts.manifest import (
    MANIFEST,
    MODEL_FOLDER,
    Ancestor,
    Step,
    begin,
    finish,
    is_artifact,
    read_artifact,
    read_intact,
)
from dataset_rules.artifacts.seal import SEAL, UNFINISHED
from dataset_rules.ground.disk import write_file, write_json
from dataset_rules.ground.documents import canonical_json
from unet.errors import UnetError
from unet.planning.budget import Budget, machine_bytes
from unet.planning.plan import RUN_VERSION, Plan
from unet.prediction.model_card import write_card
from unet.prediction.model_files import MODEL, ModelCard, weights_name
from unet.runs.cross_validation import fold_folder
from unet.runs.protocol import TrainingProtocol, is_started, remove_unless_started, run_protocol
from unet.runs.trainers import Trainers
from unet.training.assignment import Assignment
from unet.training.followers import follow, release_followers
from unet.training.patches import split_samples
from unet.training.preflight import report_full_disk
from unet.training.process_group import SINGLE_PROCESS, ProcessGroup
from unet.training.state import BEST, return_to_hold, saved_time_limit, seconds_spent
from unet.training.trainer import FINGERPRINT, PLAN, RUN, Event, Trainer
from unet.training.transfer import read_pretrained

MIN_EXTENSION = 1.1  # times the time: for less, the way back to where the rate fell is not worth it


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
    budget: Budget | None = None,
    group: ProcessGroup = SINGLE_PROCESS,
    protocol: TrainingProtocol | None = None,
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
        resume: go on from the last checkpoint. A finished run whose time was limited goes on
            where a longer limit is given: from the step at which its learning rate began to
            fall, as if it had been given the longer limit at first.
        clock: `time.monotonic()` from which the limit counts; now where absent.
        on_event: gets each event as a dict: plan, step, validation, done.
        is_to_stop: asked after each step; if true the training saves and ends by `Stopped`.
        budget: device and memory; the processor and what the machine has where absent.
        group: the processes of `torchrun` that train together; all of them call this.
        protocol: folds, or a search for hyper-parameters before the training.

    Raises:
        Stopped: if it was asked to end; `resume` goes on from there.
        UnetError: if the datasets or the plan cannot be trained on, if another process writes
            the same run, or if `out` holds a begun run and `resume` is off.
    """
    budget, protocol = (
        budget or Budget(memory_bytes=machine_bytes()),
        protocol or TrainingProtocol(),
    )
    protocol.refuse_process_group(group)
    if not group.is_leader:
        follow(split_samples(datasets)[0], group, device=budget.device, out=out)
        return out
    started, clock = datetime.now(UTC), clock or time.monotonic()
    inputs = tuple(read_intact(folder, "dataset") for folder in datasets)
    assignment = Assignment(start=read_pretrained(start) if start else None)
    inputs += (assignment.start.artifact,) if assignment.start else ()
    seed = seed if seed is not None else (plan.seed if plan else 0)
    plan = plan and plan.model_copy(update={"seed": seed})
    stated = plan.model_dump(mode="json") if plan else None
    step = Step("run", RUN_VERSION, inputs, {"seed": seed, "plan": stated, **protocol.parameters()})
    with (
        release_followers(group, device=budget.device),
        _only_writer(out),
        _flushed_denormals(),
        report_full_disk(out),
    ):
        if resume and protocol.is_single and is_artifact(out) and _is_longer(time_limit_s, out):
            _reopen(out, step)
        if not begin(out, step):
            _refuse_unasked_resume(out, resume)
            opening: dict[str, Any] = {
                "limit_s": time_limit_s, "clock": clock, "on_event": on_event,
                "is_to_stop": is_to_stop, "budget": budget,
            }  # fmt: skip
            with remove_unless_started(out):
                if protocol.is_single:
                    Trainer(datasets, out, plan=plan, seed=seed, assignment=assignment, group=group,
                            **opening).run()  # fmt: skip
                    kept = [PLAN, FINGERPRINT, RUN, BEST]
                else:
                    trainers = Trainers(datasets, out, start=assignment.start, **opening)
                    kept = run_protocol(protocol, trainers, plan=plan, seed=seed)
            finish(out, step, started=started, content=dict.fromkeys(kept))
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


def _is_longer(limit_s: float | None, run: Path) -> bool:
    """True if a finished run was limited, and by less."""
    former = saved_time_limit(run)
    return limit_s is not None and former is not None and limit_s >= MIN_EXTENSION * former


def _reopen(run: Path, step: Step) -> None:
    """Make a finished run an unfinished one whose rate has not fallen yet.

    Whatever was made of it carries its lineage along. A kill in between leaves a run that is
    unfinished, or one that is still finished.
    """
    if begin(run, step):  # it is the run of the same call
        write_file(run / UNFINISHED, canonical_json({"key": step.key(), "kind": step.kind}))
        (run / SEAL).unlink()
    return_to_hold(run, spent_s=seconds_spent(run))


def _refuse_unasked_resume(out: Path, resume: bool) -> None:
    if is_started(out) and not resume:
        raise UnetError(
            "the run was begun before and not finished", where=str(out),
            remedy="go on with --resume, or name another folder",
        )  # fmt: skip


def _inputs_of(folder: Path) -> set[str]:
    return {str(each["id"]) for each in json.loads((folder / MANIFEST).read_bytes())["inputs"]}


def _make_model(run: Path, artifact: Ancestor, started: datetime) -> None:
    """The model folder inside a finished run; made again if a kill came in between."""
    folder = run / MODEL_FOLDER
    step = Step("model", 1, (artifact,))
    if is_artifact(folder) and artifact.id not in _inputs_of(folder):
        shutil.rmtree(folder)  # of the run before it went on
    if begin(folder, step):
        return
    facts = json.loads((run / RUN).read_bytes())
    plan = Plan.model_validate_json((run / PLAN).read_bytes())
    members = facts.get("members", 1)
    card = ModelCard.model_validate(
        {"plan": plan, "members": members,
         **{name: facts[name] for name in ("rules", "split", "scores")}}
    )  # fmt: skip
    names = [weights_name(member) for member in range(members)]
    for member, name in enumerate(names):
        trained = fold_folder(run, member) if "members" in facts else run
        shutil.copyfile(trained / BEST, folder / name)
    write_json(folder / MODEL, card.model_dump(mode="json", by_alias=True))
    write_card(folder, card, run=artifact, record=facts)
    finish(folder, step, started=started, content=dict.fromkeys([*names, MODEL]))
