"""The model card: what a model is for, what it was trained on and how good it is, for people.

Source: Mitchell et al. 2019, Model Cards for Model Reporting.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dataset_rules.artifacts.manifest import LINEAGE, PROVENANCE, Ancestor
from dataset_rules.ground.disk import write_file
from dataset_rules.rules.rules import Rules
from unet.errors import UnetError
from unet.planning.fingerprint import Fingerprint
from unet.prediction.model_files import ModelCard

CARD = "CARD.md"
FINGERPRINT = "fingerprint.json"
FEW_GROUPS, FEW_STEPS = 10, 300
RARE_SHARE = 0.01
TITLES = {"val_dice": "Dice of the foreground, mean over the images",
          "val_object_f1": "F1 of the objects at IoU 0.5"}  # fmt: skip


def write_card(folder: Path, card: ModelCard, *, run: Ancestor, record: Mapping[str, Any]) -> None:
    """Write the card of a run's model into the model's folder.

    Args:
        folder: of the model.
        card: of the model.
        run: the finished run, with its folder.
        record: content of `run.json`.
    """
    assert run.folder is not None
    facts = Fingerprint.model_validate_json((run.folder / FINGERPRINT).read_bytes())
    write_file(folder / CARD, card_text(card, facts, run=run, record=record).encode())


def card_text(
    card: ModelCard, facts: Fingerprint, *, run: Ancestor, record: Mapping[str, Any]
) -> str:
    """The card in Markdown.

    Args:
        card: of the model.
        facts: of the data that it was trained on.
        run: the finished run, with its folder.
        record: content of `run.json`.
    """
    names = [c.name for c in card.plan.classes[1:]]
    parts = (
        f"# Model that segments {' and '.join(names)}",
        "Written by `unetops train` from the run.",
        _intended(names, card.rules),
        _data(run, facts),
        _rules(card.rules),
        _scores(card.scores, str(record.get("validated_on", "nothing"))),
        _limits(card, facts, record),
        _plan(card, record),
        _lineage(run),
    )
    return "\n\n".join(parts) + "\n"


def read_card_text(model: Path) -> str:
    """The card of a model folder.

    Raises:
        UnetError: if it has none.
    """
    try:
        return (model / CARD).read_text("utf-8")
    except FileNotFoundError as error:
        raise UnetError(
            "the model has no card", where=str(model), expected=CARD,
            remedy="train it again: older versions wrote none",
        ) from error  # fmt: skip


def with_scores(text: str, document: Mapping[str, Any], dataset: str) -> str:
    """A card with scores of `unetops evaluate` inserted before its limits.

    Args:
        text: the card.
        document: from `Scores.document`.
        dataset: id of the dataset.
    """
    titles = {
        "dice_mean": TITLES["val_dice"], "dice_pooled": "Dice of the foreground, over all pixels",
        "object_f1_50": TITLES["val_object_f1"], "ap_50_95": "average precision, IoU 0.50 to 0.95",
        "panoptic_quality": "panoptic quality",
    }  # fmt: skip
    intervals = document["intervals"]
    rows = [(title, document[name], intervals[name]) for name, title in titles.items()]
    split, groups = document["split"], document["groups"]
    section = (
        f"## Scores on the {split} split\n\n"
        f"{document['n']} images in {groups} groups of the dataset `{dataset[:12]}`.\n\n"
        f"{_score_table(rows)}\n\n"
    )
    head, mark, tail = text.partition("## Limits")
    return head + section + mark + tail if mark else f"{text.rstrip()}\n\n{section}".rstrip() + "\n"


def _intended(names: Sequence[str], rules: Rules) -> str:
    colours = {"rgb": "colour images", "grayscale": "grey images"}.get(
        str(rules.color_model), "black-and-white images"
    )
    return (
        "## What it is for\n\n"
        f"It segments {', '.join(names)} in {colours} like those it was trained on: of the same "
        "tissue, stain, magnification and microscope. It marks the pixels of each class and "
        "separates the objects, for research: for counting and measuring, supervised by somebody "
        "who knows the tissue. It is not a medical device and makes no diagnosis."
    )


def _data(run: Ancestor, facts: Fingerprint) -> str:
    rows = [
        f"| dataset | `{item['id']}`{_origin(run.folder, item['id'])} |"
        for item in json.loads(run.manifest)["inputs"]
        if item["kind"] == "dataset"
    ]
    shares = ", ".join(
        f"{c.name} {100 * share:.1f} %"
        for c, share in zip(facts.classes, facts.class_share, strict=True)
    )
    small, middle, large = facts.thickness_px
    return "\n".join((
        "## What it was trained on\n",
        "| | |", "|---|---|", *rows,
        f"| images | {facts.train} training, {facts.val} validation, {facts.test} test |",
        f"| size | {_span(facts.height_px)} px high, {_span(facts.width_px)} px wide, "
        f"{facts.bit_depth} bits |",
        f"| pixels | {shares} |",
        f"| objects | {facts.objects_per_image:g} per image, {middle:g} px thick "
        f"(most {small:g} to {large:g}), {100 * facts.touching_share:.0f} % touch another |",
    ))  # fmt: skip


def _origin(run: Path | None, dataset: str) -> str:
    """Names of the sources of a dataset; empty if the run's lineage is not available."""
    path = (run or Path()) / LINEAGE / dataset / PROVENANCE
    if run is None or not path.is_file():
        return ""
    names = []
    for item in json.loads(path.read_bytes()).get("inputs", ()):
        source = run / LINEAGE / str(item["id"]) / PROVENANCE
        location = json.loads(source.read_bytes()).get("location") if source.is_file() else None
        names += [PurePosixPath(location).name] if location else []
    return f" of {', '.join(names)}" if names else ""


def _span(sizes: tuple[int, int, int]) -> str:
    return str(sizes[0]) if sizes[0] == sizes[2] else f"{sizes[0]} to {sizes[2]}"


def _rules(rules: Rules) -> str:
    sizes = {
        "keep": "Images keep their size",
        "stretch": f"Images are stretched to {rules.height} x {rules.width} px",
        "pad": f"Images are shrunk to fit {rules.height} x {rules.width} px and padded",
        "crop": f"The middle {rules.height} x {rules.width} px of each image are taken",
        "tile": f"Images are cut into tiles of {rules.height} x {rules.width} px",
    }  # fmt: skip
    classes = ", ".join(f"{c.id} {c.name}" for c in rules.classes or ())
    return (
        f"## Rules of the dataset\n\n{sizes[str(rules.fit)]}, read as {rules.color_model}. "
        f"Classes in the masks: {classes}; 255 is ignored. No group (patient, slide) is in two "
        f"splits. The complete rules are in `model.json`, and new images are converted to the "
        f"same form before prediction."
    )


def _scores(scores: Mapping[str, float | None], validated_on: str) -> str:
    rows = []
    for name, title in TITLES.items():
        low, high = scores.get(f"{name}_low"), scores.get(f"{name}_high")
        rows.append((title, scores.get(name), None if low is None or high is None else (low, high)))
    return (
        f"## Scores on the validation split\n\nMeasured on {validated_on}. The best weights and "
        f"the thresholds were chosen on these images, so expect slightly lower scores on new ones: "
        f"`unetops evaluate` scores the test split.\n\n{_score_table(rows)}"
    )


def _score_table(
    rows: Sequence[tuple[str, float | None, Sequence[float] | None]],
) -> str:
    lines = ["| score | value | 95 % interval, by group |", "|---|---|---|"]
    for title, value, ends in rows:
        shown = "undefined" if value is None else f"{value:.3f}"
        spread = "unknown" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
        lines.append(f"| {title} | {shown} | {spread} |")
    return "\n".join(lines)


def _limits(card: ModelCard, facts: Fingerprint, record: Mapping[str, Any]) -> str:
    small, _, large = facts.thickness_px
    limits = [
        "Its scores on another stain, tissue, scanner or magnification are unknown; a network may "
        "lose half of its Dice there. Evaluate it first on some labelled images of your own.",
        f"Objects much thinner than {small:g} px or thicker than {large:g} px were rare in "
        f"training; those below {card.split.min_area_px} px of area are removed.",
    ]
    groups = facts.groups or facts.train
    if groups < FEW_GROUPS:
        limits.append(f"It was trained on only {groups} groups (patients, slides): too few to "
                      "know how much they differ.")  # fmt: skip
    if facts.val == 0:
        limits.append("The dataset had no validation split: the scores are of one held-out group "
                      "of the training split.")  # fmt: skip
    if record.get("steps", FEW_STEPS) < FEW_STEPS:
        limits.append(
            f"It was trained for only {record['steps']} steps: longer training improves it."
        )
    for which, share in zip(facts.classes[1:], facts.class_share[1:], strict=True):
        if share < RARE_SHARE:
            limits.append(f"{which.name} is rare ({100 * share:.2f} % of the pixels): its scores "
                          "are based on few pixels.")  # fmt: skip
    return "## Limits\n\n" + "\n".join(f"- {limit}" for limit in limits)


def _plan(card: ModelCard, record: Mapping[str, Any]) -> str:
    plan = card.plan.model_dump(mode="json")
    lines = ["| decision | value | why |", "|---|---|---|"]
    for name, why in card.plan.reasons.items():
        lines.append(f"| {name} | {_shown(plan.get(name, ''))} | {why} |")
    networks = f"{card.members} networks, averaged" if card.members > 1 else "one network"
    seed, steps = record.get("seed", card.plan.seed), record.get("steps", card.plan.steps)
    return (
        f"## How it was trained\n\n{networks.capitalize()}, seed {seed}, {steps} steps. Foreground "
        f"from a probability of {card.split.foreground:g}; objects split by '{card.split.seeds}' "
        f"seeds at level {card.split.level:g}.\n\n" + "\n".join(lines)
    )


def _shown(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(_shown, value))
    if isinstance(value, dict):
        return " ".join(map(str, value.values()))
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _lineage(run: Ancestor) -> str:
    commit = json.loads(run.provenance).get("commit")
    inputs = json.loads(run.manifest)["inputs"]
    lines = [f"- run `{run.id}`", *(f"- {item['kind']} `{item['id']}`" for item in inputs)]
    if commit:
        lines.append(f"- code `{commit}`")
    return (
        "## Where it came from\n\n" + "\n".join(lines) + "\n\n`unetops lineage` on this folder "
        "follows the chain back to the source files and verifies it."
    )
