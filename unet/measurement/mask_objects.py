"""The objects of a mask file: what its values mean, by what is said of it or by its content.

A label mask holds classes: each connected piece of a class is an object, and 255 is ignored. An
instance map holds objects: each value is the number of one, in however many pieces.
"""

from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from skimage.measure import label

from dataset_rules.artifacts.dataset import DATASET, IGNORE, read_dataset
from dataset_rules.artifacts.manifest import is_artifact
from dataset_rules.ground.errors import UserError
from dataset_rules.pixels.rows import read_numbers

Array = NDArray[Any]

INSTANCE_NAMES, CLASS_NAMES = ("_instances", "_nuclei"), ("_mask",)  # ends of stems
DATASET_DEPTH = 3  # folders up from a mask in which its dataset's list may lie
MAX_SPLIT_SHARE = 0.1  # of the objects of an instance map, at most, lie in several pieces


class MaskKind(StrEnum):
    """What the values of a mask are."""

    CLASSES = "classes"
    INSTANCES = "instances"


def read_instances(path: Path, kind: MaskKind | None = None) -> Array:
    """Instance map (HW, integers) from a mask file.

    Args:
        path: the mask.
        kind: of its values, as stated. Where absent, the list of the dataset that the mask lies
            in says it, else the name (`STEM_instances`, `STEM_nuclei`, `STEM_mask`), else the
            content: a lone value is a class; values of one piece each are numbers of objects, also
            where one in ten is cut; values that lie in more than two pieces each, and half of
            them in several, are classes.

    Raises:
        UserError: if the mask has colours, or can be read in both ways.
    """
    values = read_numbers(path)
    if values.ndim != 2:
        raise UserError(
            "the mask has colours", where=str(path), expected="an instance map, one number a pixel",
            found=f"shape {values.shape}", remedy="format the masks first, or predict",
        )  # fmt: skip
    kind = kind or _listed_kind(path) or _named_kind(path, values) or _kind_of(values, path)
    if kind is MaskKind.INSTANCES:
        return values
    return connected_components(values)


def connected_components(mask: Array) -> Array:
    """The connected pieces of each class of a label mask, numbered from 1; sides or corners touch.

    255 is ignored, unless it is the only value: then it is the white of a mask in black and white.
    """
    is_white = not ((mask > 0) & (mask != IGNORE)).any()
    classes = mask if is_white else np.where(mask == IGNORE, 0, mask)
    found: Array = label(classes, background=0, connectivity=2)
    return found


def _listed_kind(path: Path) -> MaskKind | None:
    """As the dataset lists the file."""
    for folder in path.resolve().parents[:DATASET_DEPTH]:
        if is_artifact(folder) and (folder / DATASET).is_file():
            samples = read_dataset(folder).samples
            name = path.resolve().relative_to(folder).as_posix()
            if name in {sample.instances for sample in samples}:
                return MaskKind.INSTANCES
            if name in {sample.mask.path for sample in samples}:
                return MaskKind.CLASSES
    return None


def _named_kind(path: Path, values: Array) -> MaskKind | None:
    if path.stem.endswith(INSTANCE_NAMES):
        return MaskKind.INSTANCES
    is_label_mask = values.dtype == np.uint8  # wider ones are other programs' own
    return MaskKind.CLASSES if path.stem.endswith(CLASS_NAMES) and is_label_mask else None


def _kind_of(values: Array, path: Path) -> MaskKind:
    """By the pieces that each value lies in."""
    pieces: Array = label(values, background=0, connectivity=2)
    _, first = np.unique(pieces[pieces > 0], return_index=True)
    numbers, counts = np.unique(values[pieces > 0][first], return_counts=True)
    several = int((counts > 1).sum())
    may_ignore = values.dtype == np.uint8 and IGNORE in numbers and IGNORE - 1 not in numbers
    if len(numbers) <= 1 or (counts.sum() > 2 * len(numbers) and 2 * several >= len(numbers)):
        return MaskKind.CLASSES
    if several <= MAX_SPLIT_SHARE * len(numbers) and not may_ignore:
        return MaskKind.INSTANCES
    raise UserError(
        "the mask can be read in two ways", where=str(path),
        expected="classes, whose pieces are objects, or a number for each object",
        found=f"{len(numbers)} values in {counts.sum()} pieces"
        + (", among them 255, which a label mask ignores" if may_ignore else ""),
        remedy="say which: --masks classes or --masks instances",
    )  # fmt: skip
