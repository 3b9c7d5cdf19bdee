"""nnU-Net v2: `imagesTr|Ts/CASE_0000.png`, `labelsTr|Ts/CASE.png`, dataset.json, splits_final.json.

Labels are 0, 1, 2, ... without gaps; ignored pixels have the label after the last class. An RGB
PNG is a single file, `_0000`, for all three channels.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

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
from dataset_rules.exchange.sidecars import exported_classes, read_json
from dataset_rules.ground.documents import json_bytes
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.decode import DecodedMask
from dataset_rules.pixels.images import Pixels, encode, read_image, read_mask

DATASET = "dataset.json"
SPLITS = "splits_final.json"
NAMED_IGNORE = "ignore"
CHANNELS = {1: {"0": "grey"}, 3: {"0": "R", "1": "G", "2": "B"}}
ENDINGS = (".png", ".bmp", ".tif")


class NnunetExporter:
    """Files of an nnU-Net export."""

    def __init__(self, dataset: Dataset) -> None:
        self.summary = ExportSummary()
        self._classes = foreground(dataset.classes)
        self._cases: dict[Split, list[str]] = {split: [] for split in Split}
        self._channels = 0
        self._table = np.zeros(256, np.uint8)
        for index, c in enumerate(self._classes, start=1):
            self._table[c.id] = index
        self._table[IGNORE] = len(self._classes) + 1
        self._check_class_names()

    def _check_class_names(self) -> None:
        names = [c.name for c in self._classes]
        wrong = {n for n in names if names.count(n) > 1 or n in {NAMED_IGNORE, "background"}}
        if wrong:
            raise RulesError(
                "nnU-Net identifies classes by name", where=f"classes {', '.join(sorted(wrong))}",
                expected=f"unique names other than 'background' and '{NAMED_IGNORE}'",
                remedy="rename the classes in the rules and format the dataset again",
            )  # fmt: skip

    def sample(self, exported: ExportedSample) -> Iterator[ExportFile]:
        """Image and label mask, both PNG."""
        name, split = exported.sample.name, exported.sample.split
        part = "Ts" if split is Split.TEST else "Tr"
        image = read_image(exported.image)
        channels = 1 if image.ndim == 2 else 3
        if self._channels not in {0, channels}:
            raise RulesError(
                "grey and coloured images in one dataset", where=name,
                expected=f"{self._channels} channels as in the other images", found=str(channels),
                remedy="format the dataset with color_model 'rgb'",
            )  # fmt: skip
        self._channels = channels
        self._cases[split].append(name)
        is_png = exported.image.suffix == ".png"
        content = exported.image if is_png else encode(image, ".png")
        yield ExportFile(f"images{part}/{name}_0000.png", content)
        label = self._table[exported.label]
        yield ExportFile(f"labels{part}/{name}.png", encode(label, ".png"))
        self.summary.add("ignored_px", np.count_nonzero(exported.label == IGNORE))
        self.summary.add("reencoded_images", not is_png)
        self.summary.add("instance_maps_left_out", exported.instances is not None)

    def final_files(self) -> Iterator[ExportFile]:
        """The two JSON documents."""
        labels = {"background": 0}
        labels |= {c.name: index for index, c in enumerate(self._classes, start=1)}
        if self.summary.facts.get("ignored_px"):
            labels[NAMED_IGNORE] = len(self._classes) + 1
        train, val = self._cases[Split.TRAIN], self._cases[Split.VAL]
        document = {
            "channel_names": CHANNELS[self._channels or 3], "labels": labels,
            "numTraining": len(train) + len(val), "file_ending": ".png",
        }  # fmt: skip
        yield ExportFile(DATASET, json_bytes(document))
        self._add_notes(has_val=bool(train and val))
        if train and val:
            yield ExportFile(SPLITS, json_bytes([{"train": train, "val": val}]))

    def _add_notes(self, *, has_val: bool) -> None:
        self.summary.note("give the folder a name such as Dataset501_NAME in nnUNet_raw")
        if has_val:
            self.summary.note(f"{SPLITS} belongs into nnUNet_preprocessed/Dataset501_NAME: fold 0")
        else:
            self.summary.note(f"no {SPLITS}: nnU-Net cross-validates as it likes")
        self.summary.note(
            "the format holds no objects: instance maps are left out",
            where="instance_maps_left_out",
        )
        self.summary.note("images that were no PNG are PNG now, of equal pixels",
                         where="reencoded_images")  # fmt: skip


def read_nnunet(folder: Path, paths: Sequence[str]) -> ForeignDataset:
    """All cases of a raw dataset that have labels.

    Raises:
        RulesError: if it is not a 2-D dataset of nnU-Net v2.
    """
    document = _document(folder)
    ending = document["file_ending"]
    labels, classes = _classes(folder, document["labels"])
    splits = _splits(folder)
    available, samples, unlabelled = frozenset(paths), [], []
    for path in paths:
        place, _, file = path.rpartition("/")
        if place not in {"imagesTr", "imagesTs"} or not file.endswith(f"_0000{ending}"):
            continue
        case = file.removesuffix(f"_0000{ending}")
        mask = f"labels{place[-2:]}/{case}{ending}"
        _check_channels(available, f"{place}/{case}", ending)
        if mask not in available:
            unlabelled.append(path)
            continue
        split = Split.TEST if place == "imagesTs" else splits.get(case, Split.TRAIN)
        samples.append(ImportedSample(
            title=mask, image=path, masks=(mask,), split=split,
            decode=partial(_decode, path=folder / mask, table=labels),
        ))  # fmt: skip
    metadata_files = tuple(name for name in (DATASET, SPLITS) if name in available)
    return ForeignDataset(tuple(samples), classes, metadata_files, tuple(_findings(unlabelled)))


def _document(folder: Path) -> Mapping[str, Any]:
    if not (folder / DATASET).is_file():
        raise RulesError(
            "not an nnU-Net dataset", where=str(folder), expected=f"{DATASET} next to imagesTr",
            remedy="specify the folder DatasetNNN_NAME itself",
        )  # fmt: skip
    document = read_json(folder, DATASET)
    if isinstance(document, dict) and "modality" in document:
        raise RulesError(
            "this is a dataset of nnU-Net v1", where=str(folder / DATASET), expected="v2",
            remedy="convert it with nnUNetv2_convert_old_nnUNet_dataset",
        )  # fmt: skip
    wanted = {"labels": dict, "file_ending": str}
    if not isinstance(document, dict) or not all(
        isinstance(document.get(key), kind) for key, kind in wanted.items()
    ):
        raise RulesError(
            "the document is not in nnU-Net format", where=str(folder / DATASET),
            expected='an object with "labels" and "file_ending"',
        )  # fmt: skip
    if document["file_ending"] not in ENDINGS:
        raise RulesError(
            "volumes cannot be read", where=str(folder / DATASET), expected=", ".join(ENDINGS),
            found=document["file_ending"], remedy="export the slices as single images",
        )  # fmt: skip
    return document


def _classes(folder: Path, labels: Mapping[str, Any]) -> tuple[Pixels, tuple[DatasetClass, ...]]:
    """A table from 256 label values to class ids (`_UNKNOWN` if not listed), and the classes."""
    wrong = {name: value for name, value in labels.items() if not _is_label(value)}
    if wrong:
        raise RulesError(
            "region-based labels (several values per label) cannot be read",
            where=str(folder / DATASET), expected="one value below 255 per label",
            found=str(wrong)[:200], remedy="give each value a separate label",
        )  # fmt: skip
    exported = exported_classes(folder) or ()
    ids = [c.id for c in foreground(exported)]
    table = np.full(256, _UNKNOWN, np.int64)
    table[0] = 0
    classes = []
    for name, value in labels.items():
        if name == NAMED_IGNORE or value == 0:
            table[value] = IGNORE if value else 0
            continue
        table[value] = ids[value - 1] if value <= len(ids) else value
        classes.append(DatasetClass(id=int(table[value]), name=name))
    return table, with_background(classes)


_UNKNOWN = -1


def _is_label(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < IGNORE


def _splits(folder: Path) -> dict[str, Split]:
    """The validation cases of fold 0."""
    if not (folder / SPLITS).is_file():
        return {}
    document = read_json(folder, SPLITS)
    try:
        return {str(case): Split.VAL for case in document[0]["val"]}
    except (IndexError, KeyError, TypeError) as error:
        raise RulesError(
            "the folds are invalid", where=str(folder / SPLITS),
            expected='a list of {"train": [...], "val": [...]}',
        ) from error  # fmt: skip


def _check_channels(available: frozenset[str], case: str, ending: str) -> None:
    if f"{case}_0001{ending}" in available:
        raise RulesError(
            "channels in separate files cannot be read", where=f"{case}_0001{ending}",
            expected="one image per case, _0000", remedy="merge the channels into one RGB image",
        )  # fmt: skip


def _decode(height: int, width: int, *, path: Path, table: Pixels) -> DecodedMask:
    values = read_mask(path)
    if values.ndim != 2 or values.max(initial=0) > IGNORE:
        raise RulesError("the label mask is not an 8-bit grey image", where=str(path))
    label = table[values]
    if (label == _UNKNOWN).any():
        unknown = np.unique(values[label == _UNKNOWN])[:10].tolist()
        raise RulesError(
            "the mask contains values of no label", where=str(path), found=str(unknown),
            remedy=f"add them to the labels in {DATASET}",
        )  # fmt: skip
    return DecodedMask(label.astype(np.uint8))


def _findings(unlabelled: Sequence[str]) -> Iterator[Finding]:
    if unlabelled:
        yield Finding(
            code="unlabelled", severity=Severity.WARNING, paths=tuple(unlabelled),
            message=f"{counted(len(unlabelled), 'image')} without labels left out",
        )  # fmt: skip
