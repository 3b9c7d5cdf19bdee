"""Reading a formatted dataset: samples, splits, classes."""

import hashlib
import json
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.ground.documents import Document
from dataset_rules.ground.errors import ArtifactError
from dataset_rules.pixels.images import Pixels, read_image, read_mask
from dataset_rules.rules.fields import SplitRule
from dataset_rules.rules.rules import Rules, read_rules

DATASET = "dataset.json"
IGNORE = 255  # label value that is excluded from scores and losses


class Split(StrEnum):
    """The three parts of a dataset."""

    TRAIN = "train"
    VAL = "val"
    TEST = "test"


class SampleImage(Document):
    """An image of the dataset and its source file."""

    path: str
    source: str
    threshold: int | None = None  # Otsu threshold, if the rules specify binary images


class SampleMask(Document):
    """A label mask of the dataset and its source files."""

    path: str
    sources: tuple[str, ...]


class DatasetClass(Document):
    """A class of the label masks."""

    id: int
    name: str


class Sample(Document):
    """One image with its label mask; paths are relative to the dataset."""

    name: str
    split: Split
    group: str
    image: SampleImage
    mask: SampleMask
    instances: str | None = None
    pixel_size_um: float | None = None


class Dataset(Document):
    """The content of `dataset.json`."""

    samples: tuple[Sample, ...]
    classes: tuple[DatasetClass, ...]

    def of(self, split: Split) -> tuple[Sample, ...]:
        """Samples of one split, in dataset order."""
        return tuple(sample for sample in self.samples if sample.split is split)


def read_dataset(folder: Path) -> Dataset:
    """Read the dataset in `folder`; raises `ArtifactError` if there is none."""
    read_artifact(folder, "dataset")
    try:
        return Dataset.model_validate(json.loads((folder / DATASET).read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise ArtifactError(
            "the list of samples is damaged", where=str(folder / DATASET), found=str(error)[:200],
            remedy="format the dataset again",
        ) from error  # fmt: skip


def read_sample(folder: Path, sample: Sample) -> tuple[Pixels, Pixels, Pixels | None]:
    """Read image (HW or HW3), label mask (HW, uint8) and instance map (HW, uint16) or None."""
    instances = read_mask(folder / sample.instances) if sample.instances else None
    return read_image(folder / sample.image.path), read_mask(folder / sample.mask.path), instances


def read_dataset_rules(folder: Path) -> Rules:
    """The rules used to format the dataset."""
    return read_rules(folder / "rules.json")


def assign_split(group: str, rule: SplitRule) -> Split:
    """Split of a group, fixed by the rule or else by hash, so new samples never move others."""
    for split in Split:
        if group in rule.groups.get(split.value, ()):
            return split
    digest = hashlib.sha256(f"{rule.seed}:{group}".encode()).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < rule.train:
        return Split.TRAIN
    return Split.VAL if position < rule.train + rule.val else Split.TEST
