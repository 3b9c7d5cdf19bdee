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

MIN_EXTENSION = 1.1  # minimum ratio of time limits for returning to the start of the decay


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
    """Train a network on formatted datasets; returns the run's folder, with the model in `model/`.

    Args:
        datasets: folders of formatted datasets with equal classes.
        out: the run's folder; new, or with `resume` one that the same call started.
        time_limit_s: wall time of the whole call; the learning rate schedule is fitted to it.
            Without it the plan's steps are run, bit-identical from call to call.
        plan: made from the fingerprint by default.
        seed: of weights, patches and augmentation; by default the plan's, else 0.
        start: a model (or run) to fine-tune: its weights and scale are used.
        resume: continue from the last checkpoint. A finished run with a time limit continues if
            a longer one is given: from the start of its learning rate decay, as if it had had
            the longer limit from the beginning.
        clock: `time.monotonic()` from which the limit counts; now by default.
        on_event: called with each event as a dict: plan, step, validation, done.
        is_to_stop: called after each step; if true, the training saves and raises `Stopped`.
        budget: device and memory; CPU and the machine's memory by default.
        group: the processes of `torchrun`; each of them calls this function.
        protocol: folds, or a hyper-parameter search before the training.

    Raises:
        Stopped: if a stop was requested; `resume` continues from there.
        UnetError: if the datasets or the plan are unsuitable, if another process writes the
            same run, or if `out` contains a started run and `resume` is off.
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
    given = plan.model_dump(mode="json") if plan else None
    step = Step("run", RUN_VERSION, inputs, {"seed": seed, "plan": given, **protocol.parameters()})
    with (
        release_followers(group, device=budget.device),
        _exclusive_writer(out),
        _flush_denormals(),
        report_full_disk(out),
    ):
        if resume and protocol.is_single and is_artifact(out) and _is_longer(time_limit_s, out):
            _reopen(out, step)
        if not begin(out, step):
            _refuse_implicit_resume(out, resume)
            options: dict[str, Any] = {
                "limit_s": time_limit_s, "clock": clock, "on_event": on_event,
                "is_to_stop": is_to_stop, "budget": budget,
            }  # fmt: skip
            with remove_unless_started(out):
                if protocol.is_single:
                    Trainer(datasets, out, plan=plan, seed=seed, assignment=assignment, group=group,
                            **options).run()  # fmt: skip
                    files = [PLAN, FINGERPRINT, RUN, BEST]
                else:
                    trainers = Trainers(datasets, out, start=assignment.start, **options)
                    files = run_protocol(protocol, trainers, plan=plan, seed=seed)
            finish(out, step, started=started, content=dict.fromkeys(files))
        elif on_event:
            on_event({"event": "finished before", "run": str(out)})
        _make_model(out, read_artifact(out, "run"), started)
    return out


@contextmanager
def _exclusive_writer(folder: Path) -> Iterator[None]:
    """Lock the folder; the lock ends with the process."""
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        os.close(handle)
        raise UnetError(
            "another process is writing this run", where=str(folder),
            remedy="wait for it to finish, or stop it",
        ) from error  # fmt: skip
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def _flush_denormals() -> Iterator[None]:
    """Flush denormals to zero; they slow down steps late in training."""
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(False)


def _is_longer(limit_s: float | None, run: Path) -> bool:
    """True if a finished run had a time limit and `limit_s` is sufficiently longer."""
    previous = saved_time_limit(run)
    return limit_s is not None and previous is not None and limit_s >= MIN_EXTENSION * previous


def _reopen(run: Path, step: Step) -> None:
    """Turn a finished run into an unfinished one at the start of its decay.

    Artifacts made from it keep a copy of its lineage. A kill in between leaves the run either
    unfinished or still finished.
    """
    if begin(run, step):  # the run was made by the same call
        write_file(run / UNFINISHED, canonical_json({"key": step.key(), "kind": step.kind}))
        (run / SEAL).unlink()
    return_to_hold(run, spent_s=seconds_spent(run))


def _refuse_implicit_resume(out: Path, resume: bool) -> None:
    if is_started(out) and not resume:
        raise UnetError(
            "the run was started before and not finished", where=str(out),
            remedy="continue with --resume, or choose another folder",
        )  # fmt: skip


def _inputs_of(folder: Path) -> set[str]:
    return {str(each["id"]) for each in json.loads((folder / MANIFEST).read_bytes())["inputs"]}


def _make_model(run: Path, artifact: Ancestor, started: datetime) -> None:
    """Write the model folder inside a finished run, again if a kill interrupted it."""
    folder = run / MODEL_FOLDER
    step = Step("model", 1, (artifact,))
    if is_artifact(folder) and artifact.id not in _inputs_of(folder):
        shutil.rmtree(folder)  # of the run before it was prolonged
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
