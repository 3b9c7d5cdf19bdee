"""Commands that plan, train, score, predict and measure."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.console import (
    AsJson,
    new_folder,
    note,
    out,
    print_json,
    progress,
    seconds,
    table,
)
from dataset_rules.dataset import Split

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
            datasets, new_folder(to), time_limit_s=limit, plan=chosen, seed=seed, resume=resume,
            clock=clock, on_event=lambda event: _training_event(event, show, as_json=as_json),
        )  # fmt: skip
    model = read_artifact(run / "model", "model")
    if as_json:
        print_json_line({"event": "model", "id": model.id, "path": str(run / "model")})
    else:
        out.print(f"model: {run / 'model'}  {model.id}", markup=False, soft_wrap=True)


def evaluate(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model or a run")],
    dataset: Annotated[Path, typer.Argument(metavar="DATASET")],
    split: Annotated[Split, typer.Option()] = Split.TEST,
    as_json: AsJson = False,
) -> None:
    """Dice, IoU, object F1 and average precision on a split, worst images first."""
    from unet.evaluate import evaluate as evaluate_model

    with progress("scoring", quiet=as_json) as show:
        scores = evaluate_model(
            model, dataset, split, on_event=lambda event: show(event["done"], event["of"])
        )
    document = scores.document()
    if as_json:
        print_json(document)
        return
    names = ("n", "undefined", "dice_mean", "dice_pooled", "iou_mean", "object_f1_50", "ap_50_95")
    table(f"Scores on '{split}' (foreground: all classes but {scores.classes[0].name})",
          ["score", "value"], [[name, _number(document[name])] for name in names])  # fmt: skip
    table("Classes", ["class", "Dice (mean)", "Dice (pooled)", "IoU (mean)"],
          [[c["name"], _number(c["dice"]), _number(c["dice_pooled"]), _number(c["iou"])]
           for c in document["classes"]])  # fmt: skip
    table("Worst images", ["image", "Dice", "object F1", "objects", "found"],
          [[i["name"], _number(i["dice"]), _number(i["object_f1_50"]), str(i["objects"]),
            str(i["objects_found"])] for i in document["images"][:8]])  # fmt: skip


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model or a run")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR")],
    as_json: AsJson = False,
) -> None:
    """Write label mask and instance map of images of any size, at each image's own size."""
    from unet.predict import PREDICTIONS, predict_files

    with progress("predicting", quiet=as_json) as show:
        folder = predict_files(
            model, images, new_folder(to), on_event=lambda event: show(event["done"], event["of"])
        )
    document = _read(folder / PREDICTIONS)
    if as_json:
        print_json(document)
        return
    table("Predictions", ["image", "objects", "mask"],
          [[i["image"], str(i["objects"]), str(folder / i["mask"])]
           for i in document["images"]])  # fmt: skip


def measure(
    image: Annotated[list[Path], typer.Argument(metavar="IMAGE... MASK...",
        help="Images, then as many masks; or images, then the folder of a prediction")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR")],
    pixel_size: Annotated[
        float | None, typer.Option(min=0.001, max=50, help="Micrometres per pixel")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Measure every object of images: shape, stain, IHC scores; writes CSV, JSON and a page."""
    from unet.measure import DOCUMENT, REPORT, measure_files

    images, masks = _images_and_masks(image)
    with progress("measuring", quiet=as_json) as show:
        folder = measure_files(
            images, masks, new_folder(to), pixel_size_um=pixel_size,
            on_event=lambda event: show(event["done"], event["of"]),
        )  # fmt: skip
    if as_json:
        print_json(_read(folder / DOCUMENT))
    else:
        out.print(f"report: {folder / REPORT}", markup=False, soft_wrap=True)


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


def _images_and_masks(paths: list[Path]) -> tuple[list[Path], Path | list[Path]]:
    from dataset_rules.errors import UserError

    if len(paths) > 1 and paths[-1].is_dir():
        return paths[:-1], paths[-1]
    half, odd = divmod(len(paths), 2)
    if odd or not half:
        raise UserError(
            "images and masks do not come in equal numbers", found=f"{len(paths)} paths",
            remedy="give the images, then as many masks, or the folder of a prediction",
        )  # fmt: skip
    return paths[:half], paths[half:]


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
            note(f"step {event['step']}: validation Dice {_number(event['dice'])}")
        case "finished before":
            note("this run was finished before; another folder trains anew")
        case "done":
            if event["step"] < FEW_STEPS:
                note(f"only {event['step']} steps: hardly trained, give it more time")
            dice, f1 = _number(event["val_dice"]), _number(event["val_object_f1"])
            note(f"done after {event['step']} steps in {event['seconds']:.0f} s: "
                 f"Dice {dice}, object F1 {f1} on the validation split")  # fmt: skip


def print_json_line(value: Any) -> None:
    """One line of JSON on standard output."""
    import json
    import sys

    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


def _read(path: Path) -> Any:
    import json

    return json.loads(path.read_bytes())


def _number(value: float | None) -> str:
    if value is None:
        return "undefined"
    return f"{value:.4f}" if isinstance(value, float) else str(value)
