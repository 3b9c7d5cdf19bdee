"""Commands that score."""

from pathlib import Path
from typing import Annotated

import typer

from app.commands.console import AsJson, number, print_json, progress, table
from dataset_rules.dataset import Split


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
          ["score", "value"], [[name, number(document[name])] for name in names])  # fmt: skip
    table("Classes", ["class", "Dice (mean)", "Dice (pooled)", "IoU (mean)"],
          [[c["name"], number(c["dice"]), number(c["dice_pooled"]), number(c["iou"])]
           for c in document["classes"]])  # fmt: skip
    table("Worst images", ["image", "Dice", "object F1", "objects", "found"],
          [[i["name"], number(i["dice"]), number(i["object_f1_50"]), str(i["objects"]),
            str(i["objects_found"])] for i in document["images"][:8]])  # fmt: skip
