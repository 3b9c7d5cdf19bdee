"""The step `measure`: images and masks -> table, JSON and report, per nucleus and per image."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.manifest import (
    Ancestor,
    Step,
    begin,
    finish,
    is_artifact,
    make_source,
    read_artifact,
    read_intact,
    remove_on_error,
)
from dataset_rules.ground.disk import write_file, write_json
from dataset_rules.ground.errors import UserError
from dataset_rules.pixels.images import encode, read_header, read_image
from unet.measurement.ihc import (
    Measurements,
    Nucleus,
    Thresholds,
    compare_counts,
    measure,
    pool_measurements,
)
from unet.measurement.mask_objects import MaskKind, read_instances
from unet.measurement.morphometry import Shape
from unet.measurement.overlays import draw_overlay, resize
from unet.measurement.report import Entry, report_page

Array = NDArray[Any]
OnEvent = Callable[[dict[str, Any]], None]
KnownCounts = Mapping[str, tuple[int, int]]  # stem of an image -> nuclei, positive nuclei

STEP_VERSION = 2  # 2: connected components of a class are objects, without ignored pixels
KIND = "measurements"
TABLE, DOCUMENT, REPORT = "measurements.csv", "measurements.json", "report.html"
OVERLAYS = "overlays"
PREDICTIONS = "predictions.json"  # of a prediction: masks by hash of the image
MASK_ENDINGS = tuple(  # in order of preference: instance maps first
    f"{keyword}{suffix}" for keyword in ("_instances", "_nuclei", "_mask", "")
    for suffix in (".png", ".tif", ".tiff")
)  # fmt: skip
ORIGINAL_PX = 768  # long side of the original images on the page


@dataclass(frozen=True)
class Pair:
    """An image and the file with its objects."""

    name: str
    image: Path
    mask: Path
    is_prediction: bool = False  # the mask is a prediction's instance map


def measure_files(
    images: Sequence[Path],
    masks: Path | Sequence[Path],
    out: Path,
    *,
    pixel_size_um: float | None = None,
    thresholds: Thresholds | None = None,
    known: KnownCounts | None = None,
    masks_are: MaskKind | None = None,
    on_event: OnEvent | None = None,
) -> Path:
    """Write an artifact of kind `measurements`; returns `out`.

    Args:
        images: RGB images with different stems.
        masks: a prediction, or a folder or list of masks named after the images
            (`STEM_instances.png`, `STEM_mask.png`, `STEM.png`). A prediction identifies its images
            by their hashes, so an image changed since is refused.
        out: a new folder, or one in which the same step was started.
        pixel_size_um: side of a pixel; by default the one stated in each image's file.
        thresholds: for mean DAB optical density.
        known: true counts, which the report compares with those found.
        masks_are: what the values of all masks mean; by default detected (`read_instances`).
        on_event: called with `{"event": "measured", "image", "count", "done", "of"}`.

    Raises:
        UserError: if an image has no mask, names are not unique, sizes differ, an image is grey, or
            a mask is ambiguous.
    """
    started = datetime.now(UTC)
    limits = thresholds or Thresholds()
    pairs = pair_masks(images, masks)
    step = _step(pairs, pixel_size_um, limits, known or {}, started, masks_are=masks_are)
    if begin(out, step):
        return out
    entries = []
    with remove_on_error(out):
        for done, pair in enumerate(pairs, start=1):
            entries.append(_measure_pair(pair, out, step, known or {}))
            if on_event:
                on_event({
                    "event": "measured", "image": pair.image.name,
                    "count": entries[-1].measurements.count, "done": done, "of": len(pairs),
                })  # fmt: skip
    _write_results(out, entries, step)
    overlays = [f"{OVERLAYS}/{pair.name}.png" for pair in pairs]
    # Table, JSON and page contain the masks' record, which includes times: sealed, not in the id.
    finish(out, step, content=dict.fromkeys(overlays), started=started, stamped=overlays)
    return out


def pair_masks(images: Sequence[Path], masks: Path | Sequence[Path]) -> tuple[Pair, ...]:
    """Each image with its mask; a single image is paired with a single mask of any name.

    Raises:
        UserError: if there is no image, names are not unique, or an image has no mask.
    """
    if isinstance(masks, Path) and is_artifact(masks):
        pairs = _predicted_pairs(images, masks)
    elif isinstance(masks, Path):
        pairs = _named_pairs(images, sorted(masks.iterdir()) if masks.is_dir() else [masks])
    else:
        pairs = _named_pairs(images, masks)
    _refuse_equal_names([pair.name for pair in pairs])
    return pairs


def _predicted_pairs(images: Sequence[Path], prediction: Path) -> tuple[Pair, ...]:
    read_intact(prediction, "prediction")
    rows = json.loads((prediction / PREDICTIONS).read_bytes())["images"]
    known = {row["image_sha256"]: prediction / row["instances"] for row in rows}
    pairs = []
    for image in images:
        mask = known.get(file_hash(image))
        if mask is None:
            raise UserError(
                "the image is not in this prediction or has changed since", where=str(image),
                expected=f"one of {len(rows)} images of {prediction}",
                remedy="predict this image first",
            )  # fmt: skip
        name = mask.stem.removesuffix("_instances")
        pairs.append(Pair(name, image, mask, is_prediction=True))
    return tuple(pairs)


def _named_pairs(images: Sequence[Path], masks: Sequence[Path]) -> tuple[Pair, ...]:
    if len(images) == len(masks) == 1:
        return (Pair(images[0].stem, images[0], masks[0]),)
    files = {path.name: path for path in masks}
    return tuple(Pair(image.stem, image, _mask_of(image, files)) for image in images)


def _refuse_equal_names(names: Sequence[str]) -> None:
    duplicates = sorted({name for name in names if names.count(name) > 1})
    if duplicates or not names:
        raise UserError(
            "the images' names are not unique" if duplicates else "no images were given",
            expected="one or more images with unique names", found=", ".join(duplicates) or "none",
            remedy="rename them, or measure them separately",
        )  # fmt: skip


def _mask_of(image: Path, files: Mapping[str, Path]) -> Path:
    for ending in MASK_ENDINGS:
        path = files.get(f"{image.stem}{ending}")
        if path is not None and path.resolve() != image.resolve():
            return path
    raise UserError(
        "the image has no mask", where=str(image),
        expected=f"a file named {image.stem}_instances.png or {image.stem}_mask.png",
        found=f"{len(files)} other files", remedy="predict this image first, or omit it",
    )  # fmt: skip


def _step(
    pairs: Sequence[Pair],
    pixel_size_um: float | None,
    limits: Thresholds,
    known: KnownCounts,
    started: datetime,
    *,
    masks_are: MaskKind | None,
) -> Step:
    """The step: the prediction or a source of masks as input, images by hash as parameters."""
    parameters: dict[str, Any] = {
        "images": {pair.name: file_hash(pair.image) for pair in pairs},
        "pixel_size_um": pixel_size_um,
        "thresholds": asdict(limits),
        "known": {name: list(counts) for name, counts in known.items()},
    }
    if masks_are:
        parameters["masks_are"] = masks_are.value
    return Step(KIND, STEP_VERSION, (_origin(pairs, started),), parameters)


def _origin(pairs: Sequence[Pair], started: datetime) -> Ancestor:
    folders = {pair.mask.parent for pair in pairs}
    folder = folders.pop()
    if not folders and is_artifact(folder):
        return read_artifact(folder, "prediction")
    files = {f"{pair.mask.parent.name}/{pair.mask.name}": file_hash(pair.mask) for pair in pairs}
    return make_source(files, location=str(folder), started=started)


def _measure_pair(pair: Pair, out: Path, step: Step, known: KnownCounts) -> Entry:
    kind = MaskKind(step.parameters["masks_are"]) if "masks_are" in step.parameters else None
    if pair.is_prediction:
        kind = MaskKind.INSTANCES
    image, instances = read_image(pair.image), read_instances(pair.mask, kind)
    size_um = step.parameters["pixel_size_um"] or read_header(pair.image).pixel_size_um
    limits = Thresholds(**step.parameters["thresholds"])
    try:
        found = measure(image, instances, pixel_size_um=size_um, thresholds=limits)
    except UserError as error:
        raise _with_path(error, pair.image) from error
    image = image if image.dtype == np.uint8 else (image >> 8).astype(np.uint8)
    positive = {nucleus.shape.label: nucleus.is_positive for nucleus in found.nuclei}
    overlay = draw_overlay(image, instances, positive)
    (out / OVERLAYS).mkdir(exist_ok=True)
    write_file(out / OVERLAYS / f"{pair.name}.png", encode(overlay, ".png"))
    original = resize(image, min(1.0, ORIGINAL_PX / max(image.shape[:2])))
    counts = known.get(pair.name)
    return Entry(
        pair.name, original, overlay, found, compare_counts(found, *counts) if counts else None,
        pixel_size_um=size_um,
    )  # fmt: skip


def _with_path(error: UserError, path: Path) -> UserError:
    return UserError(
        error.what, where=str(path), expected=error.expected, found=error.found,
        remedy=error.remedy,
    )  # fmt: skip


def _write_results(out: Path, entries: Sequence[Entry], step: Step) -> None:
    record = step.inputs[0].record
    total = pool_measurements(tuple(entry.measurements for entry in entries))
    found = {entry.name: entry.measurements for entry in entries}
    head = {key: step.parameters[key] for key in ("pixel_size_um", "thresholds")}
    images = [
        {
            "name": entry.name,
            "pixel_size_um": entry.pixel_size_um,
            **entry.measurements.summary(),
            "nuclei": [n.row() for n in entry.measurements.nuclei],
        }
        for entry in entries
    ]
    write_json(
        out / DOCUMENT,
        {"version": 1, "record": record, **head, **total.summary(), "images": images},
    )
    write_file(out / TABLE, _table(found, record).encode())
    page = report_page(entries, title="Nuclei measured", facts=_facts(step, entries), record=record)
    write_file(out / REPORT, page.encode())


def _table(found: Mapping[str, Measurements], record: str) -> str:
    """CSV with one row per nucleus; its image is the first column, its mask's record the last."""
    columns = [
        "image", *(f.name for f in fields(Shape)), *(f.name for f in fields(Nucleus)[1:]),
        "is_positive", "record",
    ]  # fmt: skip
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    for name, measurements in found.items():
        for nucleus in measurements.nuclei:
            writer.writerow({"image": name, **nucleus.row(), "record": record})
    return text.getvalue()


def _facts(step: Step, entries: Sequence[Entry]) -> dict[str, str]:
    limits = Thresholds(**step.parameters["thresholds"])
    return {
        "Stains": "optical density relative to the background, separated into "
        "haematoxylin and DAB (Ruifrok & Johnston 2001)",
        "Positive": f"mean DAB optical density of the nucleus at least {limits.weak_od:g} (1+), "
        f"{limits.moderate_od:g} (2+), {limits.strong_od:g} (3+)",
        "H-score": "% of 1+, plus twice % of 2+, plus three times % of 3+ (McCarty et al. 1985)",
        "Pixel size": _describe_pixel_sizes(step.parameters["pixel_size_um"], entries),
        "Masks from": f"{step.inputs[0].kind} {step.inputs[0].id[:12]}",
    }


def _describe_pixel_sizes(given_um: float | None, entries: Sequence[Entry]) -> str:
    """The pixel size used and its origin; if sizes differ, each with its images."""
    if given_um:
        return f"{given_um:g} µm, as given"
    images: dict[float | None, list[str]] = {}
    for entry in entries:
        images.setdefault(entry.pixel_size_um, []).append(entry.name)
    if len(images) == 1:
        return _describe_pixel_size(next(iter(images)))
    return "; ".join(
        f"{', '.join(names)}: {_describe_pixel_size(um)}" for um, names in images.items()
    )


def _describe_pixel_size(size_um: float | None) -> str:
    if size_um is None:
        return "not given and not in the image's file; lengths are in pixels"
    return f"{size_um:.4g} µm, from the image's file"
