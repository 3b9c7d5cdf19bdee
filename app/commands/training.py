"""Commands that plan and train."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.console import (
    AsJson,
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

if TYPE_CHECKING:
    from unet.plan import Plan

Datasets = Annotated[list[Path], typer.Argument(metavar="DATASET...", help="Formatted datasets")]
TimeLimit = Annotated[
    str | None, typer.Option(metavar="10m", help="Wall time of the whole command")
]
FEW_STEPS = 50  # below which a network has hardly begun to learn
Seed = Annotated[int, typer.Option(min=0)]


def plan(
    datasets: Datasets,
    to: Annotated[Path | None, typer.Option("--out", help="Write plan.json here")] = None,
    time_limit: TimeLimit = None,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Print the facts of a dataset and the plan that follows, a reason for each number."""
    from dataset_rules.manifest import write_json
    from unet.fingerprint import fingerprint
    from unet.plan import make_plan

    facts = fingerprint(datasets)
    made = make_plan(facts, seed=seed)
    if limit := seconds(time_limit):
        made = _for_this_machine(datasets, made, limit_s=limit)
    if to is not None:
        write_json(to, made.model_dump(mode="json"))
        note(f"plan: {to}")
    if as_json:
        print_json({"fingerprint": facts.model_dump(mode="json"),
                    "plan": made.model_dump(mode="json")})  # fmt: skip
        return
    table("Fingerprint", ["", ""], [[k, str(v)] for k, v in facts.model_dump(mode="json").items()])
    rows = [[k, str(v), made.reasons.get(k, "")] for k, v in made.model_dump(mode="json").items()
            if k != "reasons"]  # fmt: skip
    table("Plan", ["", "", "why"], rows)


def train(
    datasets: Datasets,
    to: Annotated[Path, typer.Option("--out", metavar="RUN", help="Folder of the run")],
    time_limit: TimeLimit = None,
    plan: Annotated[Path | None, typer.Option(help="A plan.json to follow")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Default: the plan's, else 0")] = None,
    start: Annotated[
        Path | None,
        typer.Option(
            "--from",
            metavar="MODEL",
            help="Fine-tune this model: its weights, scale and network, a new head for new classes",
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the checkpoint")] = False,
    as_json: AsJson = False,
) -> None:
    """Train within the time given; the best model is kept in RUN/model."""
    clock = time.monotonic()  # loading torch is part of the time given
    from dataset_rules.manifest import read_artifact
    from unet.plan import read_plan
    from unet.train import train as train_run

    chosen = read_plan(plan) if plan else None
    limit = seconds(time_limit)
    with progress("training", quiet=as_json) as show:
        run = train_run(
            datasets, new_folder(to), time_limit_s=limit, plan=chosen, seed=seed, start=start,
            resume=resume, clock=clock,
            on_event=lambda event: _training_event(event, show, as_json=as_json),
        )  # fmt: skip
    model = read_artifact(run / "model", "model")
    if as_json:
        print_json_line({"event": "model", "id": model.id, "path": str(run / "model")})
    else:
        out.print(f"model: {run / 'model'}  {model.id}", markup=False, soft_wrap=True)


def _for_this_machine(datasets: list[Path], made: "Plan", *, limit_s: float) -> "Plan":
    """The plan for what this machine, measured for some seconds, trains within the limit."""
    from unet.data import Patches, split_samples
    from unet.fingerprint import fingerprint
    from unet.plan import make_plan
    from unet.step import fastest

    patches = Patches(split_samples(datasets)[0], made)
    precision, speed = fastest(made, patches, within_s=0.1 * limit_s)
    note(f"this machine trains {speed:.1f} patches of {made.patch_px} px a second in {precision}")
    seen = max(8, int(0.9 * limit_s * speed))  # the rest is for validation and writing
    fitted = make_plan(fingerprint(datasets), patches=seen, seed=made.seed)
    return fitted.model_copy(update={"precision": precision})


def _training_event(event: dict[str, Any], show: Any, *, as_json: bool) -> None:
    if as_json:
        print_json_line(event)
        return
    match event["event"]:
        case "plan":
            note(f"training on {event['patches']} images, about {event['steps']} steps, "
                 f"{event['precision']}")  # fmt: skip
        case "step":
            show(event["step"], event["steps"])
        case "validation":
            note(f"step {event['step']}: validation Dice {number(event['dice'])}")
        case "finished before":
            note("this run was finished before; another folder trains anew")
        case "done":
            if event["step"] < FEW_STEPS:
                note(f"only {event['step']} steps: hardly trained, give it more time")
            dice, f1 = number(event["val_dice"]), number(event["val_object_f1"])
            note(f"done after {event['step']} steps in {event['seconds']:.0f} s: "
                 f"Dice {dice}, object F1 {f1} on the validation split")  # fmt: skip
