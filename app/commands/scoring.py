"""Commands that score and compare models."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.console import AsJson, note, number, out, print_json, progress, table
from dataset_rules.artifacts.dataset import Split

Model = Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model or a run")]
Dataset = Annotated[Path, typer.Argument(metavar="DATASET", help="A formatted dataset")]
SplitOption = Annotated[Split, typer.Option(help="Split of the dataset to score")]
NAMES = (
    "dice_mean", "dice_pooled", "iou_mean", "precision_pooled", "recall_pooled", "object_f1_50",
    "ap_50_95", "panoptic_quality", "segmentation_quality", "recognition_quality",
    "count_error_mean", "count_bias_mean",
)  # fmt: skip


def evaluate(
    model: Model,
    dataset: Dataset,
    split: SplitOption = Split.TEST,
    html: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write an HTML page with pictures")
    ] = None,
    card: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write the model card with these scores")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute Dice, IoU, object F1 and average precision on a split; list the worst images."""
    from dataset_rules.artifacts.manifest import read_artifact
    from dataset_rules.ground.disk import write_file
    from unet.prediction.model_card import read_card_text, with_scores
    from unet.prediction.predictor import Predictor
    from unet.scoring.evaluate import evaluate as evaluate_model

    predictor = Predictor(model)
    text = read_card_text(predictor.folder) if card else ""
    for path in filter(None, (html, card)):  # fail before the work if a path is not writable
        path.parent.mkdir(parents=True, exist_ok=True)
    with progress("scoring", quiet=as_json) as show:
        scores = evaluate_model(
            model, dataset, split, predictor=predictor,
            on_event=lambda event: show(event["done"], event["of"]),
        )  # fmt: skip
    document = {"model": predictor.artifact.id, **scores.document()}
    if html is not None:
        from unet.scoring.page import write_scores_page

        write_scores_page(html, scores, dataset, predictor=predictor)
        note(f"page: {html}")
    if card is not None:
        scored = with_scores(text, document, read_artifact(dataset).id)
        write_file(card, scored.encode())
        note(f"card: {card}")
    print_json(document) if as_json else _print_scores(document, scores.classes[0].name)


def compare(
    model_a: Annotated[Path, typer.Argument(metavar="MODEL_A", help="A model or a run")],
    model_b: Annotated[Path, typer.Argument(metavar="MODEL_B", help="The other model or run")],
    dataset: Dataset,
    split: SplitOption = Split.TEST,
    as_json: AsJson = False,
) -> None:
    """Compare two models on the same images: score differences and their significance."""
    from unet.scoring.compare import compare as compare_models

    with progress("comparing", quiet=as_json) as show:
        comparison, (a, b) = compare_models(
            model_a, model_b, dataset, split=split,
            on_event=lambda event: show(event["done"], event["of"]),
        )  # fmt: skip
    document = comparison.document()
    if as_json:
        print_json({"model_a": a, "model_b": b, **document})
        return
    table(f"B minus A on '{split}', {document['n']} images in {document['groups']} groups",
          ["score", "A", "B", "difference", "95 % interval", "significant"],
          [[name, number(d["a"]), number(d["b"]), number(d["difference"]),
            _interval(d["interval"]), "yes" if d["told_apart"] else "no"]
           for name, d in document["differences"].items()])  # fmt: skip
    table("Images that differ most", ["image", "Dice of A", "Dice of B", "difference"],
          [[i["name"], number(i["dice_a"]), number(i["dice_b"]), number(i["difference"])]
           for i in document["images"][:8]])  # fmt: skip
    for sentence in document["sentences"]:
        out.print(sentence, markup=False)


def _print_scores(document: Mapping[str, Any], background: str) -> None:
    split, intervals = document["split"], document["intervals"]
    rows = [[name, str(document[name]), ""] for name in ("n", "groups", "undefined")]
    rows += [[name, number(document[name]), _interval(intervals[name])] for name in NAMES]
    error = document["calibration"]["expected_calibration_error"]
    table(f"Scores on '{split}' (foreground: all classes but {background})",
          ["score", "value", "95 % interval by group"],
          [*rows, ["calibration error", number(error), ""]])  # fmt: skip
    table("Classes", ["class", "Dice (mean)", "Dice (pooled)", "IoU (mean)", "precision", "recall",
                      "object F1", "PQ"],
          [[c["name"], *(number(c[k]) for k in ("dice", "dice_pooled", "iou", "precision",
                                                "recall", "object_f1_50", "panoptic_quality"))]
           for c in document["classes"]])  # fmt: skip
    table("Worst images", ["image", "Dice", "object F1", "objects", "found"],
          [[i["name"], number(i["dice"]), number(i["object_f1_50"]), str(i["objects"]),
            str(i["objects_found"])] for i in document["images"][:8]])  # fmt: skip


def _interval(ends: tuple[float, float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.4f} to {ends[1]:.4f}"
