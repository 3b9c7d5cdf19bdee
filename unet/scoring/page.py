"""Scores as one self-contained HTML page; computes no scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np

from dataset_rules.artifacts.dataset import read_dataset, read_sample
from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.ground.disk import write_file
from dataset_rules.pixels.images import Pixels
from unet.measurement.overlays import DISPLAY_PX, MAX_ENLARGED, data_uri, draw_overlay, resize
from unet.measurement.report import STYLE, UNDEFINED, Array, table_head, table_row
from unet.network.preprocessing import normalized
from unet.objects.targets import objects_of
from unet.prediction.predictor import Predictor
from unet.scoring.metrics import matched_numbers
from unet.scoring.scores import Scores

PAGE = Path(__file__).with_suffix(".html")
EXAMPLES = 8  # worst images that are shown
SIDE, LEFT, TOP = 260, 60, 8  # of the reliability diagram, in SVG units
TITLES = {
    "dice_mean": "Dice, mean over the images", "dice_pooled": "Dice, over all pixels",
    "iou_mean": "IoU, mean over the images", "precision_pooled": "Precision, over all pixels",
    "recall_pooled": "Recall, over all pixels", "object_f1_50": "Object F1 at IoU 0.5",
    "object_precision_50": "Object precision at IoU 0.5",
    "object_recall_50": "Object recall at IoU 0.5",
    "ap_50_95": "Average precision, IoU 0.50 to 0.95", "panoptic_quality": "Panoptic quality",
    "segmentation_quality": "Segmentation quality (outlines)",
    "recognition_quality": "Recognition quality (objects)",
    "count_error_mean": "Absolute count error per image",
    "count_bias_mean": "Count bias per image (+ too many)",
}  # fmt: skip
CARDS = {"dice_mean": "Dice", "object_f1_50": "Object F1", "ap_50_95": "Average precision",
         "panoptic_quality": "Panoptic quality"}  # fmt: skip


@dataclass(frozen=True)
class Example:
    """One image on the page, uint8 RGB: plain, with true outlines, with predicted outlines."""

    name: str
    image: Array
    truth: Array
    found: Array


def write_scores_page(path: Path, scores: Scores, dataset: Path, *, predictor: Predictor) -> None:
    """Write the page of a model's scores on a dataset; predicts the worst images again."""
    worst = [image.name for image in scores.worst_first()[:EXAMPLES]]
    samples = {sample.name: sample for sample in read_dataset(dataset).of(scores.split)}
    examples = []
    for name in worst:
        image, mask, instances = read_sample(dataset, samples[name])
        found = predictor.predict(image).instances
        examples.append(draw_example(name, image, objects_of(mask, instances), found=found))
    facts = {
        "Model": predictor.artifact.id, "Dataset": read_artifact(dataset).id,
        "Split": str(scores.split),
    }  # fmt: skip
    page = scores_page(scores.document(), examples, facts=facts)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, page.encode())


def draw_example(name: str, image: Pixels, truth: Array, *, found: Array) -> Example:
    """The pictures of one image (HW or HW3) with its true and predicted instance maps (HW)."""
    shown = _as_rgb8(image)
    in_truth, in_found = matched_numbers(truth, found)
    factor = min(MAX_ENLARGED, DISPLAY_PX / max(truth.shape))
    return Example(name, resize(shown, factor),
                   draw_overlay(shown, truth, _is_unmatched(truth, in_truth)),
                   draw_overlay(shown, found, _is_unmatched(found, in_found)))  # fmt: skip


def scores_page(
    document: Mapping[str, Any], examples: Sequence[Example], *, facts: Mapping[str, str]
) -> str:
    """The page: score cards, intervals, classes, reliability, worst images, all images.

    Args:
        document: from `Scores.document`.
        examples: the worst images, in the order of the page.
        facts: what was scored, one line each.
    """
    images, groups, undefined = (document[name] for name in ("n", "groups", "undefined"))
    rows = {row["name"]: row for row in document["images"]}
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(f"Scores on the {document['split']} split"),
        style=STYLE.read_text(encoding="utf-8"),
        lead=f"{images} images in {groups} groups"
        + (f", {undefined} of them empty, without a Dice" if undefined else ""),
        cards="".join(_card(name, document) for name in CARDS),
        caption=f"95 % intervals: {document['bootstrap']['resamples']} bootstrap resamples of the "
        "groups" + (". Few groups: the true intervals are wider" if groups < 10 else ""),
        scores=_scores(document),
        classes=_classes(document["classes"]),
        reliability=_reliability(document["calibration"]),
        figures="".join(_figure(e, rows[e.name]) for e in examples),
        images=_images(document["images"]),
        facts="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()),
    )  # fmt: skip


def _as_rgb8(image: Pixels) -> Array:
    """The image as HW3, uint8; more than 8 bits are normalised to the image's range."""
    if image.dtype != np.uint8:
        return np.round(255 * normalized(image, channels=3).clip(0, 1)).astype(np.uint8)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _is_unmatched(objects: Array, matched: frozenset[int]) -> dict[int, bool]:
    """Number of each object -> True if it has no match."""
    return {int(n): int(n) not in matched for n in np.unique(objects) if n}


def _number(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.3f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return UNDEFINED if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _card(name: str, document: Mapping[str, Any]) -> str:
    return (
        f'<div class="card"><dt>{CARDS[name]}</dt><dd>{_number(document[name])}</dd>'
        f'<dd class="note">95 %: {_interval(document["intervals"][name])}</dd></div>'
    )


def _scores(document: Mapping[str, Any]) -> str:
    rows = []
    for name, title in TITLES.items():
        value, ends = document[name], document["intervals"][name]
        bar = _interval_bar(value, ends) if not name.startswith("count") else ""
        rows.append(table_row(title, (_number(value), _interval(ends), bar)))
    return (
        f"{table_head('Score', 'value', '95 % interval', '0 to 1')}<tbody>{''.join(rows)}</tbody>"
    )


def _interval_bar(value: float | None, ends: tuple[float, float] | None) -> str:
    if value is None or ends is None:
        return ""
    left, width, mark = (f"{100 * share:.1f}%" for share in (ends[0], ends[1] - ends[0], value))
    return (
        f'<span class="range" aria-hidden="true"><i style="left:{left};width:{width}"></i>'
        f'<b style="left:{mark}"></b></span>'
    )


def _classes(classes: Sequence[Mapping[str, Any]]) -> str:
    names = ("dice", "iou", "precision", "recall", "object_f1_50", "panoptic_quality")
    head = table_head("Class", "Dice", "95 % interval", "IoU", "precision", "recall", "object F1",
                      "PQ")  # fmt: skip
    rows = []
    for c in classes:
        dice, *others = (_number(c[name]) for name in names)
        rows.append(table_row(c["name"], (dice, _interval(c["intervals"]["dice"]), *others)))
    return f"{head}<tbody>{''.join(rows)}</tbody>"


def _reliability(calibration: Mapping[str, Any]) -> str:
    error = calibration["expected_calibration_error"]
    bins = calibration["bins"]
    over = sum(b["pixels"] * (b["probability"] - b["share"]) for b in bins)
    bias = "overestimate" if over > 0 else "underestimate"
    text = (
        f"<p>Of the pixels predicted as foreground with probability 0.7, 70 % should be "
        f"foreground: dots on the line. Expected calibration error <b>{_number(error)}</b>; "
        f"overall, the probabilities {bias} the foreground. Larger dots stand for more "
        f"pixels.</p>"
    )
    return _diagram(bins) + text


def _diagram(bins: Sequence[Mapping[str, Any]]) -> str:
    max_pixels = max((b["pixels"] for b in bins), default=1)
    dots = "".join(_dot(b, max_pixels) for b in bins)
    ticks = "".join(
        f'<text x="{LEFT + SIDE * t:.0f}" y="{TOP + SIDE + 15}" text-anchor="middle">{t:g}</text>'
        f'<text x="{LEFT - 6}" y="{TOP + SIDE * (1 - t) + 4:.0f}" text-anchor="end">{t:g}</text>'
        for t in (0, 0.25, 0.5, 0.75, 1)
    )
    middle = TOP + SIDE // 2
    return (
        f'<svg viewBox="0 0 {LEFT + SIDE + 12} {TOP + SIDE + 36}" role="img" '
        'aria-label="Reliability diagram: share of true foreground by predicted probability">'
        f'<rect x="{LEFT}" y="{TOP}" width="{SIDE}" height="{SIDE}" fill="none" '
        'stroke="currentColor" stroke-opacity=".25"/>'
        f'<line x1="{LEFT}" y1="{TOP + SIDE}" x2="{LEFT + SIDE}" y2="{TOP}" stroke="currentColor" '
        f'stroke-opacity=".5" stroke-dasharray="4 4"/>{dots}{ticks}'
        f'<text x="{LEFT + SIDE // 2}" y="{TOP + SIDE + 31}" text-anchor="middle">'
        "predicted probability</text>"
        f'<text x="12" y="{middle}" text-anchor="middle" transform="rotate(-90 12 {middle})">'
        "true share of foreground</text></svg>"
    )


def _dot(row: Mapping[str, Any], max_pixels: int) -> str:
    predicted, true, pixels = row["probability"], row["share"], row["pixels"]
    return (
        f'<circle cx="{LEFT + SIDE * predicted:.1f}" cy="{TOP + SIDE * (1 - true):.1f}" '
        f'r="{3 + 7 * (pixels / max_pixels) ** 0.25:.1f}" fill="#0096ff" fill-opacity=".7">'
        f"<title>predicted {predicted:.3f}, true {true:.3f}, {pixels} pixels</title></circle>"
    )


def _figure(example: Example, row: Mapping[str, Any]) -> str:
    name = escape(example.name)
    panels = (
        (example.image, "image"), (example.truth, "with true outlines"),
        (example.found, "with predicted outlines"),
    )  # fmt: skip
    images = "".join(
        f'<img loading=lazy src="{data_uri(picture)}" alt="{name} {label}">'
        for picture, label in panels
    )
    text = (
        f"Dice {_number(row['dice'])} · object F1 {_number(row['object_f1_50'])} · "
        f"{row['objects']} objects, {row['objects_found']} found"
    )
    return (
        f'<figure><div class="pair triple">{images}</div><figcaption><b>{name}</b>'
        f"<span>image · truth · prediction</span><span>{text}</span></figcaption></figure>"
    )


def _images(rows: Sequence[Mapping[str, Any]]) -> str:
    head = table_head("Image", "Dice", "precision", "recall", "object F1", "PQ", "objects", "found")
    names = ("dice", "precision", "recall", "object_f1_50", "panoptic_quality")
    body = "".join(
        table_row(
            row["name"],
            (*(_number(row[n]) for n in names), str(row["objects"]), str(row["objects_found"])),
        )
        for row in rows
    )
    return f"{head}<tbody>{body}</tbody>"
