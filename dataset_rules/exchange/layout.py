"""Common interface of the exchange formats: samples to export and imported samples."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Protocol, SupportsInt

from dataset_rules.artifacts.dataset import DatasetClass, Sample, Split
from dataset_rules.ground.findings import Finding
from dataset_rules.masks.decode import DecodedMask
from dataset_rules.pixels.images import Pixels

EXPORT = "export.json"  # describes an export


class Layout(StrEnum):
    """Another tool's layout of images and masks."""

    COCO = "coco"
    NNUNET = "nnunet"
    CELLPOSE = "cellpose"
    YOLO = "yolo"


@dataclass(frozen=True)
class ExportFile:
    """A file of an export: its bytes, or a file of the dataset to copy unchanged."""

    path: str
    content: bytes | Path


@dataclass(frozen=True)
class ExportedSample:
    """A sample to export."""

    sample: Sample
    image: Path  # the file
    label: Pixels  # HW, uint8: class ids, 255 ignore
    instances: Pixels | None  # HW, uint16: object numbers


@dataclass
class ExportSummary:
    """Record of what a format could not represent; filled while the files are made."""

    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def add(self, fact: str, number: SupportsInt) -> None:
        """Increase a count, mostly of pixels."""
        self.facts[fact] = self.facts.get(fact, 0) + int(number)

    def note(self, sentence: str, *, where: str | None = None) -> None:
        """Add a note for the user; with `where`, only if that count is above 0."""
        if where is None or self.facts.get(where):
            self.notes.append(sentence)


class Exporter(Protocol):
    """Makes the files of one format sample by sample, to limit memory use."""

    summary: ExportSummary

    def sample(self, exported: ExportedSample) -> Iterator[ExportFile]:
        """The files of a sample."""

    def final_files(self) -> Iterator[ExportFile]:
        """The files that depend on all samples."""


@dataclass(frozen=True)
class ImportedSample:
    """A sample of another tool's folder; paths are relative to it."""

    title: str  # the path from which the sample name is derived
    image: str
    masks: tuple[str, ...]
    split: Split | None  # None if the format does not specify one
    decode: Callable[[int, int], DecodedMask]  # height and width of the image -> its mask
    group: str | None = None
    pixel_size_um: float | None = None


@dataclass(frozen=True)
class ForeignDataset:
    """All samples of another tool's folder."""

    samples: tuple[ImportedSample, ...]
    classes: tuple[DatasetClass, ...]
    metadata_files: tuple[str, ...] = ()  # other files that determined what was read
    findings: tuple[Finding, ...] = ()


def foreground(classes: tuple[DatasetClass, ...]) -> tuple[DatasetClass, ...]:
    """The classes without background."""
    return tuple(c for c in classes if c.id != 0)


def with_background(classes: list[DatasetClass]) -> tuple[DatasetClass, ...]:
    """Background, followed by the classes in the order of their ids."""
    ordered = sorted(classes, key=lambda c: c.id)
    return (DatasetClass(id=0, name="background"), *ordered)
