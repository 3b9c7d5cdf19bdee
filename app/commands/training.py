"""Commands that plan and train a model."""

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.console import (
    AsJson,
    duration,
    new_folder,
    note,
    number,
    out,
    print_json,
    print_json_line,
    progress,
    seconds,
    table,
)
from app.commands.training_events import part_event, show_folds, show_results

if TYPE_CHECKING:
    from unet.planning.budget import Budget, Device
    from unet.planning.plan import Plan

Datasets = Annotated[list[Path], typer.Argument(metavar="DATASET...", help="Formatted datasets")]
TimeLimit = Annotated[
    str | None, typer.Option(metavar="10m", help="Wall-clock limit for the whole command")
]
Memory = Annotated[
    str | None,
    typer.Option(metavar="8GiB", help="Memory limit for training. Default: all of the machine's"),
]
DeviceName = Annotated[
    str, typer.Option("--device", metavar="auto|cpu|cuda", help="auto: a GPU if available")
]
FoldsText = Annotated[
    str | None,
    typer.Option(
        "--folds",
        metavar="K|FILE",
        help="K-fold cross-validation by group; a file may specify which groups belong together",
    ),
]
MIN_STEPS = 50  # below this a network has hardly learned anything
Seed = Annotated[int, typer.Option(min=0, help="Random seed")]


def plan(
    datasets: Datasets,
    to: Annotated[Path | None, typer.Option("--out", help="Write plan.json here")] = None,
    time_limit: TimeLimit = None,
    memory: Memory = None,
    device: DeviceName = "auto",
    seed: Seed = 0,
    folds: FoldsText = None,
    as_json: AsJson = False,
) -> None:
    """Print a dataset's fingerprint and the resulting plan, with a reason for each number.

    With a time limit, the machine's speed is measured for a few seconds.
    """
    from dataset_rules.ground.disk import write_json
    from unet.planning.budget import Budget, machine_bytes, parse_memory_size
    from unet.planning.fingerprint import fingerprint
    from unet.planning.plan import make_plan
    from unet.runs.folds import make_folds, read_fold_rule, refuse_unseen_classes_in_folds

    facts = fingerprint(datasets)
    dealt = make_folds(datasets, read_fold_rule(folds)) if folds else None
    if dealt:
        refuse_unseen_classes_in_folds(dealt, facts.classes)
    limit = seconds(time_limit)
    budget = Budget(memory_bytes=parse_memory_size(memory) or machine_bytes())
    if limit or device != "auto":  # otherwise torch is not needed
        budget = budget.model_copy(update={"device": _device(device)})
    made = make_plan(facts, budget, seed=seed)
    if limit:
        budget = _measured(datasets, made, budget, limit_s=limit)
        made = make_plan(facts, budget, seed=seed)
    if to is not None:
        write_json(to, made.model_dump(mode="json"))
        note(f"plan: {to}")
    if as_json:
        print_json({"fingerprint": facts.model_dump(mode="json"),
                    "plan": made.model_dump(mode="json"),
                    **({"folds": dealt.document()} if dealt else {})})  # fmt: skip
        return
    table("Fingerprint", ["", ""], [[k, str(v)] for k, v in facts.model_dump(mode="json").items()])
    rows = [[k, str(v), made.reasons.get(k, "")] for k, v in made.model_dump(mode="json").items()
            if k != "reasons"]  # fmt: skip
    table("Plan", ["", "", "why"], rows)
    if dealt:
        show_folds(dealt, datasets)
    note(
        f"expected duration: {duration(limit)} for the whole command"
        if limit
        else "expected duration: `unetops train` measures the machine and prints it at the start"
    )


def train(
    datasets: Datasets,
    to: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder for the run")],
    time_limit: TimeLimit = None,
    plan: Annotated[Path | None, typer.Option(help="Use this plan.json")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed; default: the plan's, else 0")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Fine-tune this model: keep its weights, scale and network; new classes get a "
            "new head",
        ),
    ] = None,
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Resume from the checkpoint; a finished run continues with a longer time limit",
        ),
    ] = False,
    folds: FoldsText = None,
    search: Annotated[
        int,
        typer.Option(
            "--search",
            metavar="N",
            min=0,
            help="Hyper-parameter search: N trials in half of the time, then train the best",
        ),
    ] = 0,
    memory: Memory = None,
    device: DeviceName = "auto",
    as_json: AsJson = False,
) -> None:
    """Train within the time limit; the best model is saved to RUN/model.

    With --folds, train an ensemble of one network per fold, scored on its held-out groups.

    Under `torchrun`, several processes share every batch.
    """
    from unet.training.time_budget import process_start

    clock = process_start()  # loading torch counts towards the time limit
    from dataset_rules.artifacts.manifest import read_artifact
    from unet.planning.budget import Budget, machine_bytes, parse_memory_size
    from unet.planning.plan import read_plan
    from unet.runs.folds import read_fold_rule
    from unet.runs.protocol import TrainingProtocol
    from unet.runs.train import train as train_run
    from unet.training.process_group import join_process_group

    chosen = read_plan(plan) if plan else None
    protocol = TrainingProtocol(folds=read_fold_rule(folds) if folds else None, trials=search)
    limit = seconds(time_limit)
    budget = Budget(
        device=_device(device), memory_bytes=parse_memory_size(memory) or machine_bytes()
    )
    with (
        progress("training", quiet=as_json) as show,
        join_process_group(os.environ, budget.device) as group,
    ):
        run = train_run(
            datasets, new_folder(to), time_limit_s=limit, plan=chosen, seed=seed, start=start,
            resume=resume, clock=clock, budget=budget, group=group, protocol=protocol,
            on_event=lambda event: _training_event(event, show, as_json=as_json),
        )  # fmt: skip
    if not group.is_leader:
        return
    model = read_artifact(run / "model", "model")
    if as_json:
        print_json_line({"event": "model", "id": model.id, "path": str(run / "model")})
    else:
        show_results(run, datasets)
        out.print(f"model: {run / 'model'}  {model.id}", markup=False, soft_wrap=True)


def _measured(datasets: list[Path], made: "Plan", budget: "Budget", *, limit_s: float) -> "Budget":
    """The budget with this machine's training speed, measured for a few seconds."""
    from unet.training.patches import Patches, split_samples
    from unet.training.throughput import measure_throughput
    from unet.training.time_budget import TimeBudget

    patches = Patches(split_samples(datasets)[0], made)
    found = measure_throughput(made, patches, TimeBudget(limit_s, time.monotonic()), budget)
    note(f"this machine trains {found.patches_per_s or 0:.1f} patches of {made.patch_px} px per "
         f"second in {found.precision}")  # fmt: skip
    return found.model_copy(update={"seconds": limit_s})


def _device(name: str) -> "Device":
    from unet.training.step import resolve_device  # loads torch

    return resolve_device(name)


def _training_event(event: dict[str, Any], show: Any, *, as_json: bool) -> None:
    if as_json:
        print_json_line(event)
        return
    if part_event(event, show):
        return
    match event["event"]:
        case "plan":
            note(f"training on {event['patches']} images, about {event['steps']} steps, "
                 f"{event['precision']} on {event['device']}; expected duration "
                 f"{duration(event['expected_s'])}")  # fmt: skip
        case "warning":
            note(f"warning: {event['text']}")
        case "shrink":
            note(f"out of memory: from step {event['step']} on, {event['batch']} patches "
                 f"of {event['patch_px']} px per step")  # fmt: skip
        case "switch":
            note(f"step {event['step']}: switching to {event['precision']}: {event['text']}")
        case "early stop":
            note(f"step {event['step']}: no further improvement; the learning rate decays until "
                 f"step {event['steps']}, the last")  # fmt: skip
        case "step":
            show(event["step"], event["steps"])
        case "validation":
            note(f"step {event['step']}: validation Dice {number(event['dice'])}")
        case "finished before":
            note("this run is already finished; use another folder to train again")
        case "done":
            if event["step"] < MIN_STEPS:
                note(f"only {event['step']} steps: hardly trained, increase the time limit")
            dice, f1 = number(event["val_dice"]), number(event["val_object_f1"])
            note(f"done after {event['step']} steps in {event['seconds']:.0f} s: "
                 f"Dice {dice}, object F1 {f1} on the validation split")  # fmt: skip
