"""YOLO segmentation: `images/SPLIT/NAME.png`, `labels/SPLIT/NAME.txt`, data.yaml.

Each line of a label file is one object: its class and one outline, as fractions of width and
height. A corner is written as the centre of its pixel, so that rounding down gives the pixel.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import yaml

from dataset_rules.artifacts.dataset import IGNORE, Dataset, DatasetClass, Split
from dataset_rules.exchange.layout import (
    ExportedSample,
    ExportFile,
    ExportSummary,
    ForeignDataset,
    ImportedSample,
    foreground,
    with_background,
)
from dataset_rules.exchange.objects import Canvas, Object, objects_in
from dataset_rules.exchange.polygons import filled, outline_of
from dataset_rules.exchange.sidecars import exported_classes, is_image
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.decode import DecodedMask

DATA = "data.yaml"
DIGITS = 7  # of a fraction: a hundredth of a pixel on the largest image
KEYS = {Split.TRAIN: ("train",), Split.VAL: ("val", "valid"), Split.TEST: ("test",)}
TOLERANCE = 1e-3  # for fractions outside 0 to 1: rounding errors


class YoloExporter:
    """Files of a YOLO export; every outline is rasterised and compared with its object."""

    def __init__(self, dataset: Dataset) -> None:
        self.summary = ExportSummary()
        self._classes = foreground(dataset.classes)
        self._index = {c.id: index for index, c in enumerate(self._classes)}
        self._splits = [split for split in Split if dataset.of(split)]
        self._iou: list[float] = []

    def sample(self, exported: ExportedSample) -> Iterator[ExportFile]:
        """The unchanged image, and the outlines of its objects."""
        place = f"{exported.sample.split}/{exported.sample.name}"
        yield ExportFile(f"images/{place}{exported.image.suffix}", exported.image)
        self.summary.add("parts_as_objects", exported.instances is None)
        lines = "".join(f"{line}\n" for line in self._lines(exported))
        yield ExportFile(f"labels/{place}.txt", lines.encode())

    def _lines(self, exported: ExportedSample) -> Iterator[str]:
        height, width = exported.label.shape
        for item in objects_in(exported.label, exported.instances):
            if item.class_id == IGNORE:
                self.summary.add("ignored_px", len(item.rows))
                continue
            outline = outline_of(item.rows, item.columns)
            covered = len(filled(outline)[0])
            self._iou.append(len(item.rows) / covered)  # an outline covers its whole object
            fractions = (outline + 0.5) / (width, height)
            numbers = " ".join(f"{fraction:.{DIGITS}f}" for fraction in fractions.ravel())
            yield f"{self._index[item.class_id]} {numbers}"

    def final_files(self) -> Iterator[ExportFile]:
        """`data.yaml` without `path`: the dataset is the folder of the file."""
        document: dict[str, Any] = {str(split): f"images/{split}" for split in self._splits}
        document["names"] = {index: c.name for index, c in enumerate(self._classes)}
        text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
        yield ExportFile(DATA, text.encode())
        facts, exact = self.summary.facts, sum(iou == 1 for iou in self._iou)
        facts |= {"objects": len(self._iou), "exact_objects": exact}
        if self._iou:
            facts |= {"iou_mean": round(float(np.mean(self._iou)), 6),
                      "iou_min": round(min(self._iou), 6)}  # fmt: skip
            self.summary.note(
                f"{exact} of {counted(len(self._iou), 'object')} come back exactly; IoU of all: "
                f"mean {facts['iou_mean']}, least {facts['iou_min']} (parts of one object are "
                "joined by a line)"
            )
        self.summary.note(
            "the dataset holds no objects: connected parts of each class became objects",
            where="parts_as_objects",
        )
        self.summary.note("ignored pixels became background", where="ignored_px")
        for split in (Split.TRAIN, Split.VAL):
            if split not in self._splits:
                self.summary.note(f"no sample is in {split}, which a training asks for")


def read_yolo(folder: Path, paths: Sequence[str]) -> ForeignDataset:
    """All images referenced by data.yaml; an image without a label file has no objects.

    Raises:
        RulesError: if the document is invalid or refers to paths outside the folder.
    """
    yaml_file, document = _document(folder, paths)
    classes = _classes(folder, document, yaml_file)
    available, samples, unlabelled = frozenset(paths), [], []
    for split, keys in KEYS.items():
        for path in _images(folder, paths, document, keys=keys, yaml_file=yaml_file):
            labels = _labels_of(path)
            if labels not in available:
                unlabelled.append(path)
            samples.append(ImportedSample(
                title=path, image=path, masks=(labels,) if labels in available else (), split=split,
                decode=partial(_decode, folder=folder, path=labels if labels in available else None,
                               classes=classes),
            ))  # fmt: skip
    return ForeignDataset(
        tuple(samples), with_background(list(classes)), (yaml_file,), tuple(_findings(unlabelled))
    )


def _document(folder: Path, paths: Sequence[str]) -> tuple[str, Mapping[str, Any]]:
    yaml_files = [path for path in paths if "/" not in path and path.endswith((".yaml", ".yml"))]
    if len(yaml_files) != 1:
        raise RulesError(
            "not a YOLO dataset" if not yaml_files else "several files may describe the dataset",
            where=str(folder), expected=f"{DATA} next to images and labels",
            found=", ".join(yaml_files) or None, remedy="specify the folder that contains it",
        )  # fmt: skip
    try:
        document = yaml.safe_load((folder / yaml_files[0]).read_bytes())
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise RulesError("the file is not valid YAML", where=str(folder / yaml_files[0]),
                         found=str(error)[:200]) from error  # fmt: skip
    if not isinstance(document, dict) or "names" not in document:
        raise RulesError("the document defines no classes", where=str(folder / yaml_files[0]),
                         expected='"names" and "train"')  # fmt: skip
    return yaml_files[0], document


def _classes(folder: Path, document: Mapping[str, Any], yaml_file: str) -> tuple[DatasetClass, ...]:
    """The class of each index; ids from export.json in our own exports, else from 1."""
    names = document["names"]
    listed = dict(enumerate(names)) if isinstance(names, list) else names
    # Other types are not converted: a few lines of YAML can expand into any number of lists.
    is_named = isinstance(listed, dict) and all(isinstance(n, str | int) for n in listed.values())
    if not is_named or listed.keys() != set(range(len(listed))):
        raise RulesError(
            "the class names are invalid", where=str(folder / yaml_file),
            expected="a list, or a mapping from 0, 1, ... to names", found=type(names).__name__,
        )  # fmt: skip
    if not 1 <= len(listed) < IGNORE:
        raise RulesError("no classes, or too many", where=str(folder / yaml_file),
                         expected=f"1 to {IGNORE - 1}", found=str(len(listed)))  # fmt: skip
    exported = foreground(exported_classes(folder) or ())
    ids = [c.id for c in exported] if len(exported) == len(listed) else []
    return tuple(
        DatasetClass(id=ids[index] if ids else index + 1, name=str(listed[index]))
        for index in range(len(listed))
    )


def _images(
    folder: Path, paths: Sequence[str], document: Mapping[str, Any], *, keys: Sequence[str],
    yaml_file: str,
) -> list[str]:  # fmt: skip
    """Images of a split: folders or lists of files, relative to the document or to its `path`."""
    value: Any = next((document[key] for key in keys if document.get(key)), [])
    entries = value if isinstance(value, list) else [value]
    root = document.get("path") or "."
    if not all(isinstance(text, str) for text in [root, *entries]):
        raise RulesError("path and splits must be strings", where=str(folder / yaml_file),
                         expected="folders, or lists of images")  # fmt: skip
    found: list[str] = []
    for entry in entries:
        place = _place(folder, root, entry)
        if place is None:
            raise RulesError(
                f"{keys[0]} refers to nothing inside the folder", where=str(folder / yaml_file),
                found=entry[:200], remedy="specify the folder that contains the whole dataset",
            )  # fmt: skip
        if (folder / place).is_dir():
            start = "" if place == "." else f"{place}/"
            found += [path for path in paths if path.startswith(start) and is_image(path)]
        elif place.endswith(".txt"):
            found += _listed(folder, paths, place)
        else:
            found.append(place)
    return sorted(set(found))


def _place(folder: Path, root: str, entry: str) -> str | None:
    """The path of an entry, resolved as trainers do; None if there is none inside the folder."""
    short = entry.removeprefix("../")  # written by some exports although the folder is the root
    for text in (f"{root}/{entry}", entry, short):
        target = (folder / text).resolve()
        if target.is_relative_to(folder.resolve()) and target.exists():
            return target.relative_to(folder.resolve()).as_posix()
    return None


def _listed(folder: Path, paths: Sequence[str], list_path: str) -> list[str]:
    available = frozenset(paths)
    lines = (folder / list_path).read_text("utf-8", "replace").splitlines()
    names = [line.strip().replace("\\", "/").removeprefix("./") for line in lines if line.strip()]
    absent = [name for name in names if name not in available]
    if absent:
        raise RulesError(
            f"{counted(len(absent), 'listed image')} missing from the folder",
            where=str(folder / list_path), found=", ".join(absent[:5])[:200],
            remedy="correct the list: paths are relative to the dataset's folder",
        )  # fmt: skip
    return names


def _labels_of(image: str) -> str:
    """The path with its last `images` replaced by `labels`, as trainers do."""
    parts = list(PurePosixPath(image).with_suffix(".txt").parts)
    at = len(parts) - 1 - parts[::-1].index("images") if "images" in parts else None
    if at is not None:
        parts[at] = "labels"
    return "/".join(parts)


def _decode(
    height: int, width: int, *, folder: Path, path: str | None, classes: Sequence[DatasetClass]
) -> DecodedMask:
    canvas = Canvas(height, width)
    text = (folder / path).read_text("utf-8", "replace") if path else ""
    lines = [line.split() for line in text.splitlines()]
    for number, words in enumerate(filter(None, lines), start=1):
        place = f"{folder / (path or '')}, object {number}"
        index, fractions = _parse(words, place)
        if index >= len(classes):
            raise RulesError("the class has no name", where=place, found=str(index),
                             expected=f"0 to {len(classes) - 1}")  # fmt: skip
        corners = np.floor(fractions * (width, height)).astype(np.int64)
        rows, columns = filled(corners.clip(0, (width - 1, height - 1)))
        canvas.paint(Object(number, classes[index].id, rows, columns))
    return canvas.decoded()


def _parse(words: Sequence[str], where: str) -> tuple[int, np.ndarray]:
    """The class index and the corners (n, 2) in a line."""
    try:
        index, fractions = int(words[0]), np.array([float(word) for word in words[1:]])
    except ValueError as error:
        raise RulesError("not a number", where=where, found=str(error)[:80]) from error
    if len(fractions) == 4:
        raise RulesError("the label is a box", where=where, expected="an outline",
                         remedy="masks cannot be made from boxes")  # fmt: skip
    if index < 0 or len(fractions) < 6 or len(fractions) % 2:
        raise RulesError("the outline is invalid", where=where, found=" ".join(words)[:80],
                         expected="class x1 y1 x2 y2 x3 y3 ...")  # fmt: skip
    if not ((fractions >= -TOLERANCE) & (fractions <= 1 + TOLERANCE)).all():
        raise RulesError("a corner is outside the image", where=where,
                         expected="fractions from 0 to 1",
                         found=f"{fractions.min():g} to {fractions.max():g}")  # fmt: skip
    return index, fractions.reshape(-1, 2)


def _findings(unlabelled: Sequence[str]) -> Iterator[Finding]:
    if unlabelled:
        yield Finding(
            code="no_label_file", severity=Severity.INFO, paths=tuple(unlabelled),
            message=f"{counted(len(unlabelled), 'image')} without a label file, so without objects",
        )  # fmt: skip
