"""What all exchange formats share: samples on their way out, samples found on the way in."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, SupportsInt

from dataset_rules.artifacts.dataset import DatasetClass, Sample, Split
from dataset_rules.ground.findings import Finding
from dataset_rules.masks.decode import DecodedMask
from dataset_rules.pixels.images import Pixels

EXPORT = "export.json"  # what an export says of itself


class Layout(StrEnum):
    """A format in which other tools keep images and masks."""

    COCO = "coco"
    NNUNET = "nnunet"
    CELLPOSE = "cellpose"
    YOLO = "yolo"


@dataclass(frozen=True)
class ExportFile:
    """A file of an export: its bytes, or a file of the dataset that is taken as it is."""

    path: str
    content: bytes | Path


@dataclass(frozen=True)
class Leaving:
    """A sample on its way out."""

    sample: Sample
    image: Path  # the file
    label: Pixels  # HW, uint8: class ids, 255 ignore
    instances: Pixels | None  # HW, uint16: object numbers


@dataclass
class Account:
    """What became of that which a format cannot say; grows while the files are made."""

    facts: dict[str, Any] = field(default_factory=dict)
    said: list[str] = field(default_factory=list)

    def add(self, fact: str, number: SupportsInt) -> None:
        """Count something, pixels mostly."""
        self.facts[fact] = self.facts.get(fact, 0) + int(number)

    def say(self, sentence: str, *, where: str | None = None) -> None:
        """A sentence for the person; with `where`, only if that fact was counted above 0."""
        if where is None or self.facts.get(where):
            self.said.append(sentence)


class Exporter(Protocol):
    """Makes the files of one format, sample by sample, so that memory stays small."""

    account: Account

    def sample(self, leaving: Leaving) -> Iterator[ExportFile]:
        """The files of a sample."""

    def rest(self) -> Iterator[ExportFile]:
        """The files that can be written once all samples are known."""


@dataclass(frozen=True)
class Arriving:
    """A sample of another tool's folder; paths are relative to it."""

    title: str  # the path that the sample is named after
    image: str
    masks: tuple[str, ...]
    split: Split | None  # None where the format does not say
    decode: Callable[[int, int], DecodedMask]  # height and width of the image -> its mask
    group: str | None = None
    pixel_size_um: float | None = None


@dataclass(frozen=True)
class Collection:
    """All samples of another tool's folder."""

    samples: tuple[Arriving, ...]
    classes: tuple[DatasetClass, ...]
    papers: tuple[str, ...] = ()  # further files that decided what was read
    findings: tuple[Finding, ...] = ()


def foreground(classes: tuple[DatasetClass, ...]) -> tuple[DatasetClass, ...]:
    """The classes but background."""
    return tuple(known for known in classes if known.id != 0)


def with_background(classes: list[DatasetClass]) -> tuple[DatasetClass, ...]:
    """Background, and the classes by their id."""
    ordered = sorted(classes, key=lambda known: known.id)
    return (DatasetClass(id=0, name="background"), *ordered)
