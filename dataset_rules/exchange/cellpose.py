"""Cellpose: `NAME.png`, `NAME_masks.png` (uint16, one number per object); a folder per split."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

import numpy as np

from dataset_rules.artifacts.dataset import IGNORE, Dataset, DatasetClass
from dataset_rules.exchange.layout import (
    ExportedSample,
    ExportFile,
    ExportSummary,
    ForeignDataset,
    ImportedSample,
    foreground,
    with_background,
)
from dataset_rules.exchange.objects import numbered
from dataset_rules.exchange.sidecars import exported_classes, is_image, split_in
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.decode import MAX_OBJECTS, DecodedMask
from dataset_rules.pixels.images import encode, read_image, read_mask
from dataset_rules.pixels.values import gray_if_equal

MASKS = "_masks"
READABLE = {".png", ".jpg", ".tiff"}  # our image formats that Cellpose can open
RESERVED = (MASKS, "_flows", "_seg", "_cp_output")  # suffixes of Cellpose's own results


class CellposeExporter:
    """Files of a Cellpose export."""

    def __init__(self, dataset: Dataset) -> None:
        self.summary = ExportSummary()
        self._classes = foreground(dataset.classes)
        names = [s.name for s in dataset.samples if s.name.endswith(RESERVED)]
        if names:
            raise RulesError(
                "Cellpose would mistake these images for its own results",
                where=", ".join(names[:5]), expected=f"no name ending in {', '.join(RESERVED)}",
                remedy="rename them in the source and format the dataset again",
            )  # fmt: skip

    def sample(self, exported: ExportedSample) -> Iterator[ExportFile]:
        """Image and numbered objects."""
        objects = self._objects(exported)
        place = f"{exported.sample.split}/{exported.sample.name}"
        suffix = exported.image.suffix
        if suffix in READABLE:
            yield ExportFile(f"{place}{suffix}", exported.image)
        else:
            yield ExportFile(f"{place}.png", encode(read_image(exported.image), ".png"))
        yield ExportFile(f"{place}{MASKS}.png", encode(objects.astype(np.uint16), ".png"))
        self.summary.add("reencoded_images", suffix not in READABLE)
        self.summary.add(
            "ignored_px", np.count_nonzero((exported.label == IGNORE) & (objects == 0))
        )
        if exported.instances is not None:
            loose = (objects == 0) & (exported.label != 0) & (exported.label != IGNORE)
            self.summary.add("outside_objects_px", loose.sum())

    def _objects(self, exported: ExportedSample) -> np.ndarray:
        self.summary.add("parts_as_objects", exported.instances is None)
        if exported.instances is not None:
            return exported.instances
        objects = numbered(exported.label)
        if objects.max(initial=0) > MAX_OBJECTS:
            raise RulesError(
                "too many objects in one image", where=exported.sample.name,
                expected=f"at most {MAX_OBJECTS}", found=str(objects.max()),
            )  # fmt: skip
        return objects

    def final_files(self) -> Iterator[ExportFile]:
        """Nothing: the format has no document."""
        if len(self._classes) > 1:
            names = ", ".join(c.name for c in self._classes)
            self.summary.note(f"the format holds no classes: objects of {names} are not told apart")
        self.summary.note(
            "the dataset holds no objects: connected parts of each class were numbered",
            where="parts_as_objects",
        )
        self.summary.note("ignored pixels became background", where="ignored_px")
        self.summary.note("pixels of a class outside of all objects became background",
                         where="outside_objects_px")  # fmt: skip
        self.summary.note("images that Cellpose cannot open are PNG now, of equal pixels",
                         where="reencoded_images")  # fmt: skip
        yield from ()


def read_cellpose(folder: Path, paths: Sequence[str]) -> ForeignDataset:
    """All images with a mask file next to them.

    Raises:
        RulesError: if there is none, or two images share one mask file.
    """
    images = [path for path in paths if is_image(path)]
    stems: dict[str, list[str]] = {}
    for path in images:
        stems.setdefault(str(PurePosixPath(path).with_suffix("")), []).append(path)
    classes = foreground(exported_classes(folder) or ())
    alone = classes[0] if len(classes) == 1 else DatasetClass(id=1, name="cell")
    samples, lone = [], []
    for mask in (path for path in images if PurePosixPath(path).stem.endswith(MASKS)):
        stem = str(PurePosixPath(mask).with_suffix("")).removesuffix(MASKS)
        image = [*stems.get(stem, ()), *stems.get(f"{stem}_img", ())]
        if len(image) > 1:
            raise RulesError("two images share one mask file", where=mask,
                             found=", ".join(image))  # fmt: skip
        if not image:
            lone.append(mask)
            continue
        samples.append(ImportedSample(
            title=f"{stem}.png", image=image[0], masks=(mask,), split=split_in(mask),
            decode=partial(_decode, path=folder / mask, class_id=alone.id),
        ))  # fmt: skip
    if not samples:
        raise RulesError(
            "not a Cellpose dataset", where=str(folder), expected=f"NAME.png and NAME{MASKS}.png",
            remedy="masks in _seg.npy: save them as PNG or TIFF in Cellpose first",
        )  # fmt: skip
    return ForeignDataset(tuple(samples), with_background([alone]), (), tuple(_findings(lone)))


def _decode(_height: int, _width: int, *, path: Path, class_id: int) -> DecodedMask:
    values = gray_if_equal(read_mask(path))
    if values.ndim == 3:
        raise RulesError("the masks are coloured", where=str(path), expected="one number per pixel")
    label = np.where(values > 0, class_id, 0).astype(np.uint8)
    return DecodedMask(label, values.astype(np.uint16))


def _findings(lone: Sequence[str]) -> Iterator[Finding]:
    if lone:
        yield Finding(
            code="lone_masks", severity=Severity.WARNING, paths=tuple(lone),
            message=f"{counted(len(lone), 'file')} of masks without an image left out",
        )  # fmt: skip
