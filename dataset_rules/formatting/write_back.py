"""Label masks -> masks with the source's values, if the rules can be inverted."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from dataset_rules.artifacts.dataset import IGNORE, read_dataset
from dataset_rules.artifacts.manifest import (
    LINEAGE,
    MANIFEST,
    Step,
    begin,
    finish,
    read_artifact,
    read_intact,
    remove_on_error,
)
from dataset_rules.ground.disk import write_file
from dataset_rules.ground.errors import ArtifactError, RulesError
from dataset_rules.pixels.images import Pixels, encode, read_mask
from dataset_rules.rules.fields import MaskKind, SourceValue
from dataset_rules.rules.rules import Rules, rules_document, rules_from_mapping

VERSION = 1  # raised by hand when the same masks and rules give different files
PREDICTIONS = "predictions.json"


@dataclass(frozen=True)
class ImageMasks:
    """The masks of one image: name, label mask and instance map, if any."""

    name: str
    label: Path
    instances: Path | None


def write_back(artifact: Path, out: Path, *, rules: Rules | None = None) -> Path:
    """Write the masks of a dataset or prediction with the source's values as an artifact.

    Masks are PNG files at their present size: `NAME.png`, `CLASS/NAME.png` if each class has
    separate files, `NAME/00001.png` if each object has.

    Args:
        artifact: a dataset or a prediction.
        out: a new folder, or one in which this same step was started or finished.
        rules: by which the source was read; None uses those of the underlying dataset.

    Raises:
        RulesError: if the rules cannot be inverted, or do not cover a mask value.
        ArtifactError: if there is no intact dataset or prediction.
    """
    started = datetime.now(UTC)
    top = read_artifact(artifact)
    if top.kind not in {"dataset", "prediction"}:
        raise ArtifactError("the artifact contains no label masks", where=str(artifact),
                            expected="a dataset or a prediction", found=top.kind)  # fmt: skip
    rules = rules or _rules_of_dataset(artifact, top.kind)
    writer = _mask_writer(rules, str(artifact))
    step = Step("masks", VERSION, (read_intact(artifact, top.kind),),
                {"rules": rules_document(rules)})  # fmt: skip
    if begin(out, step):
        return out
    content = []
    with remove_on_error(out):
        for masks in _masks_in(artifact, top.kind):
            for path, pixels in writer.files(masks):
                (out / path).parent.mkdir(parents=True, exist_ok=True)
                write_file(out / path, encode(pixels, ".png"))
                content.append(path)
    finish(out, step, content=dict.fromkeys(content), started=started, stamped=content)
    return out


def _rules_of_dataset(artifact: Path, kind: str) -> Rules:
    """The rules in the manifest of the one dataset that the artifact is or was derived from."""
    manifests = [artifact / MANIFEST] if kind == "dataset" else _ancestor_manifests(artifact)
    documents = [json.loads(path.read_bytes()) for path in manifests]
    recorded = [d["parameters"]["rules"] for d in documents if d["kind"] == "dataset"]
    different = {json.dumps(rules, sort_keys=True): rules for rules in recorded}
    if len(different) != 1:
        raise RulesError(
            "no single dataset defines the values of the source", where=str(artifact),
            found=f"{len(different)} rules documents in the lineage",
            remedy="specify the rules: --rules rules.json",
        )  # fmt: skip
    return rules_from_mapping(next(iter(different.values())), where=str(artifact))


def _ancestor_manifests(artifact: Path) -> list[Path]:
    return sorted((artifact / LINEAGE).glob(f"*/{MANIFEST}"))


def _masks_in(artifact: Path, kind: str) -> Iterator[ImageMasks]:
    if kind == "dataset":
        for sample in read_dataset(artifact).samples:
            instances = artifact / sample.instances if sample.instances else None
            yield ImageMasks(sample.name, artifact / sample.mask.path, instances)
        return
    for row in json.loads((artifact / PREDICTIONS).read_bytes())["images"]:
        name = str(row["mask"]).removesuffix("_mask.png")
        yield ImageMasks(name, artifact / row["mask"], artifact / row["instances"])


@dataclass(frozen=True)
class MaskWriter:
    """How label masks become masks with the source's values."""

    kind: MaskKind
    values: Mapping[int, SourceValue]  # by class id; includes ignored pixels
    folders: Mapping[int, str]  # by class id, if classes have separate files

    def files(self, masks: ImageMasks) -> Iterator[tuple[str, Pixels]]:
        """Path and pixels of each file of an image."""
        label = read_mask(masks.label)
        if self.kind is MaskKind.INSTANCES:
            yield f"{masks.name}.png", self._instances(masks)
            return
        unknown = set(np.unique(label).tolist()) - self.values.keys()
        if unknown:
            raise RulesError(
                "the mask contains class ids without a unique source value", where=str(masks.label),
                found=", ".join(map(str, sorted(unknown))),
                remedy="set one value each in classes or ignore_values and pass these --rules",
            )  # fmt: skip
        if self.kind is MaskKind.INSTANCE_FILES:
            yield from self._object_files(masks, label)
        elif self.folders:
            for class_id, folder in self.folders.items():
                only = np.where(label == class_id, class_id, 0)
                yield f"{folder}/{masks.name}.png", self._valued(only)
        else:
            yield f"{masks.name}.png", self._valued(label)

    def _object_files(self, masks: ImageMasks, label: Pixels) -> Iterator[tuple[str, Pixels]]:
        instances = self._instances(masks)
        for number in np.unique(instances[instances > 0]).tolist():
            own = np.where(instances == number, label, 0)
            class_id = int(own.max())
            folder = f"{self.folders[class_id]}/" if class_id in self.folders else ""
            yield f"{folder}{masks.name}/{number:05}.png", self._valued(own)

    def _instances(self, masks: ImageMasks) -> Pixels:
        if masks.instances is None:
            raise RulesError("there are no objects to number", where=str(masks.label),
                             expected="an instance map next to the label mask")  # fmt: skip
        return read_mask(masks.instances)

    def _valued(self, label: Pixels) -> Pixels:
        if all(isinstance(value, int) for value in self.values.values()):
            highest = max(value for value in self.values.values() if isinstance(value, int))
            table = np.zeros(256, np.uint8 if highest < 256 else np.uint16)
        else:
            table = np.zeros((256, 3), np.uint8)
        for class_id, value in self.values.items():
            table[class_id] = value
        valued: Pixels = table[label]
        return valued


def _mask_writer(rules: Rules, where: str) -> MaskWriter:
    """Invert the rules; an error lists every reason at once."""
    kind = rules.source.mask_kind
    if kind is None or kind is MaskKind.TEXT or not rules.classes:
        raise RulesError(
            "the rules do not say what the values of the source's masks are", where=where,
            found=f"mask_kind {kind.value if kind else 'null'}",
            remedy="for a dataset of another tool use unetops export-dataset",
        )  # fmt: skip
    values = {c.id: v[0] for c in rules.classes if len(v := c.source_values) == 1}
    if len(rules.ignore_values) == 1:
        values[IGNORE] = rules.ignore_values[0]
    wrong = [
        f"class {c.id} {c.name!r} has {_listed(c.source_values)}"
        for c in rules.classes
        if c.id not in values
    ]
    if wrong and kind is not MaskKind.INSTANCES:
        raise RulesError(
            "the rules cannot be inverted", where=where, found="; ".join(wrong),
            remedy="give each class one value in a separate rules file: --rules rules.json",
        )  # fmt: skip
    return MaskWriter(kind, values, _folders(rules))


def _listed(values: Sequence[SourceValue]) -> str:
    return f"{len(values)} values ({', '.join(map(str, values))})" if values else "no value"


def _folders(rules: Rules) -> dict[int, str]:
    if rules.source.mask is None or isinstance(rules.source.mask, str):
        return {}
    names: dict[int, Any] = {known.id: known.name for known in rules.classes or ()}
    return {
        mask.class_id: f"{mask.class_id}_{_safe(str(names.get(mask.class_id, 'class')))}"
        for mask in rules.source.mask
    }


def _safe(name: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in name)
