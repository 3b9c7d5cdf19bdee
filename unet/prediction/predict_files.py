"""The step `predict`: image files -> label masks and instance maps of the same size."""

import errno
import math
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.dataset import DatasetClass
from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.manifest import Step, begin, finish, make_source, remove_on_error
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import read_header
from dataset_rules.pixels.rows import MAX_STREAMED_PIXELS, Rows, open_rows
from unet.errors import UnetError
from unet.objects.object_rows import LabelRows
from unet.prediction.map_files import GrayFile, Spool, write_instances, write_tiff
from unet.prediction.predictor import Predictor

PREDICTIONS = "predictions.json"
# 2: connected components are split separately, so that rows can be written before the last ones
# are known; grey levels come from a histogram of all values.
STEP_VERSION = 2

Event = Callable[[dict[str, Any]], None]
Floats = NDArray[np.float32]


@dataclass(frozen=True)
class OptionalMaps:
    """What is written in addition to mask and instance map."""

    probabilities: bool = False  # of each class, 0 to 255
    uncertainty: bool = False  # entropy of the class probabilities, 0 to 255


def predict_files(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    predictor: Predictor | None = None,
    maps: OptionalMaps | None = None,
    on_event: Event | None = None,
    location: str | None = None,
) -> Path:
    """Masks and instance maps of image files as a prediction artifact in `out`.

    Writes `STEM_mask.png` (class ids, uint8), `STEM_instances.png` (uint16; `.tif`, uint32,
    above 65,535 objects) and `predictions.json`; on request `STEM_probabilities.tif` (uint8, one
    sample per class) and `STEM_uncertainty.png`. Every PNG has the record of the prediction in a
    text chunk. TIFFs of any size are read, and all files are written, row by row. The provenance
    gives `location`, by default the images' folder, as the source.

    Raises:
        RulesError: listing the files that are not images.
        UnetError: if the disk is full; nothing is left behind.
    """
    started, maps = datetime.now(UTC), maps or OptionalMaps()
    names = _names(images)
    _refuse_unreadable(images)
    hashes = {f"{name}{path.suffix}": file_hash(path) for name, path in names.items()}
    predictor = predictor or Predictor(model)
    folders = {path.resolve().parent for path in images}
    if location is None:
        location = str(folders.pop()) if len(folders) == 1 else "images given to predict"
    source = make_source(hashes, location=location, started=started)
    options = {"backend": str(predictor.backend), "turned": predictor.tta, **asdict(maps)}
    step = Step("prediction", STEP_VERSION, (predictor.artifact, source), options)
    if begin(out, step):
        return out
    rows: list[dict[str, Any]] = []
    content: dict[str, str | None] = {}
    with remove_on_error(out), _full_disk_as_user_error(out):
        for done, (name, path) in enumerate(names.items(), 1):
            report = _reporter(on_event, image=path.name, done=done, of=len(images))
            row, files = _predict_one(path, out / name, predictor, maps=maps, report=report)
            rows.append({"image": path.name, "image_sha256": hashes[f"{name}{path.suffix}"], **row})
            content |= files
        write_json(
            out / PREDICTIONS,
            {"model": predictor.artifact.id, **options,
             "classes": [c.model_dump() for c in predictor.classes], "images": rows},
        )  # fmt: skip
        finish(
            out, step, started=started, content=content | {PREDICTIONS: None},
            stamped=[name for name in content if name.endswith(".png")],
        )  # fmt: skip
    return out


def _reporter(
    on_event: Event | None, *, image: str, done: int, of: int
) -> Callable[[int, int], None]:
    """Reports progress after each block of rows, and when the image is done."""

    def report(rows: int, height: int) -> None:
        if on_event and rows < height:
            on_event({"event": "rows", "image": image, "done": rows, "of": height})
        elif on_event:
            on_event({"event": "prediction", "image": image, "done": done, "of": of})

    return report


def _predict_one(
    path: Path,
    stem: Path,
    predictor: Predictor,
    *,
    maps: OptionalMaps,
    report: Callable[[int, int], None],
) -> tuple[dict[str, Any], dict[str, str]]:
    """Predict one image; returns its entry in the list and the content hash of each file."""
    image = open_rows(path)
    with _Files(stem, image, predictor.classes, maps) as files:
        for found in predictor.predict_rows(image, on_planes=files.add_planes if any(
                asdict(maps).values()) else None):  # fmt: skip
            files.add(found)
            if files.rows < image.height_px:
                report(files.rows, image.height_px)
        row, hashes = files.finish()
    report(image.height_px, image.height_px)
    return row, hashes


class _Files:
    """The output files of one image, written as its rows arrive and deleted on failure."""

    def __init__(
        self, stem: Path, image: Rows, classes: Sequence[DatasetClass], maps: OptionalMaps
    ) -> None:
        self.rows = 0
        self._stem, self._size, self._classes = stem, image.size_px, classes
        self._pixels, self._objects = np.zeros(256, np.int64), 0
        self._mask = GrayFile(self._path("mask.png"), self._size, kind=np.uint8)
        self._instances = Spool(self._path("instances"), self._size, kind=np.uint32)
        shape = (*self._size, len(classes))
        path = self._path("probabilities")
        self._planes = Spool(path, shape, kind=np.uint8) if maps.probabilities else None
        path = self._path("uncertainty.png")
        self._uncertainty = (
            GrayFile(path, self._size, kind=np.uint8, is_flat=False) if maps.uncertainty else None
        )

    def __enter__(self) -> "_Files":
        return self

    def __exit__(self, *failure: object) -> None:
        for spool in (self._instances, self._planes):
            if spool:
                spool.remove()
        for file in (self._mask, self._uncertainty):
            if file:
                file.discard()

    def add(self, found: LabelRows) -> None:
        """Write the next rows of mask and objects."""
        self.rows += len(found.mask)
        if len(found.mask):
            self._mask.write(found.mask)
            self._instances.write(found.instances)
            self._pixels += np.bincount(found.mask.ravel(), minlength=256)
            self._objects = max(self._objects, int(found.instances.max()))

    def add_planes(self, prob_KHW: Floats) -> None:
        """Write the next rows of class probabilities."""
        if self._planes:
            bytes_KHW = np.rint(prob_KHW * 255).astype(np.uint8)
            self._planes.write(np.moveaxis(bytes_KHW, 0, 2))
        if self._uncertainty:
            self._uncertainty.write(np.rint(entropy(prob_KHW) * 255).astype(np.uint8))

    def finish(self) -> tuple[dict[str, Any], dict[str, str]]:
        """Move all files into place; returns the image's entry and the content hashes."""
        mask = self._path("mask.png")
        path, digest = write_instances(self._instances, self._path("instances"), self._objects)
        hashes = {mask.name: self._mask.close(), path.name: digest}
        row = {
            "height_px": self._size[0], "width_px": self._size[1], "mask": mask.name,
            "instances": path.name, "objects": self._objects,
            "class_share": {c.name: round(float(self._pixels[c.id] / math.prod(self._size)), 6)
                            for c in self._classes},
        }  # fmt: skip
        if self._planes:
            path = self._path("probabilities.tif")
            row["probabilities"], hashes[path.name] = path.name, write_tiff(self._planes, path)
        if self._uncertainty:
            row["uncertainty"] = self._uncertainty.path.name
            hashes[self._uncertainty.path.name] = self._uncertainty.close()
        return row, hashes

    def _path(self, ending: str) -> Path:
        return self._stem.with_name(f"{self._stem.name}_{ending}")


def entropy(prob_KHW: Floats) -> Floats:
    """Uncertainty of the class of each pixel (HW): 0 certain, 1 all classes equally probable.

    The Shannon entropy of the probabilities, divided by that of equal ones. Probabilities are
    first averaged over test-time augmentations and networks, so their disagreement counts too:
    the entropy of a mean is the mean entropy plus the mutual information.

    Source: Wang et al. 2019, Aleatoric uncertainty estimation with test-time augmentation,
        eq. 8; Lakshminarayanan et al. 2017, Deep ensembles, for several networks.
    """
    safe = np.maximum(prob_KHW, np.float32(1e-12))
    total = -(prob_KHW * np.log(safe)).sum(0) / np.float32(math.log(len(prob_KHW)))
    return np.asarray(np.clip(total, 0, 1), np.float32)


@contextmanager
def _full_disk_as_user_error(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if not _is_full(error):
            raise
        raise UnetError(
            "the disk is full", where=str(folder), remedy="free some space or choose a folder on "
            "another disk; nothing was left behind",
        ) from error  # fmt: skip


def _is_full(error: OSError) -> bool:
    """True if the disk was full; copying many files reports that in the error's text alone."""
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    is_copy = isinstance(error, shutil.Error)
    return error.errno in full or (is_copy and any(os.strerror(n) in str(error) for n in full))


def _names(images: Sequence[Path]) -> dict[str, Path]:
    """Output name -> image; images with the same stem are prefixed with their folder's name."""
    stems = [path.stem for path in images]
    names: dict[str, Path] = {}
    for path in images:
        name = path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}__{path.stem}"
        if name in names:
            raise RulesError(
                "two images would get the same output name", where=str(path),
                found=f"{name}, like {names[name]}", remedy="predict them into different folders",
            )  # fmt: skip
        names[name] = path
    return names


def _refuse_unreadable(images: Sequence[Path]) -> None:
    problems = []
    for path in images:
        try:
            read_header(path, max_pixels=MAX_STREAMED_PIXELS)
        except RulesError as error:
            problems.append(str(error))
    if not images:
        raise RulesError("no image was given", remedy="give at least one image file")
    if problems:
        raise RulesError("; ".join(problems) if len(problems) < 4 else
                         "; ".join(problems[:3]) + f"; and {len(problems) - 3} more")  # fmt: skip
