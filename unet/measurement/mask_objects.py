"""The objects of a mask file, whose values are classes or instances.

In a label mask values are classes: each connected component of a class is an object, and 255 is
ignored. In an instance map each value is an object, even if it has several components.
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

INSTANCE_NAMES, CLASS_NAMES = ("_instances", "_nuclei"), ("_mask",)  # endings of stems
DATASET_DEPTH = 3  # number of parent folders of a mask to search for its dataset
MAX_SPLIT_SHARE = 0.1  # maximum share of an instance map's objects with several components


class MaskKind(StrEnum):
    """What the values of a mask mean."""

    CLASSES = "classes"
    INSTANCES = "instances"


def read_instances(path: Path, kind: MaskKind | None = None) -> Array:
    """Instance map (HW, integers) from a mask file.

    Args:
        path: the mask.
        kind: what its values mean. By default from the list of the mask's dataset, else from the
            name (`STEM_instances`, `STEM_nuclei`, `STEM_mask`), else from the content: a single
            value is a class; values with one component each are instances, even if one in ten is
            split; values with more than two components on average, half of them with several,
            are classes.

    Raises:
        UserError: if the mask is a colour image or ambiguous.
    """
    values = read_numbers(path)
    if values.ndim != 2:
        raise UserError(
            "the mask is a colour image", where=str(path),
            expected="an instance map, one number per pixel",
            found=f"shape {values.shape}", remedy="format the masks first, or predict",
        )  # fmt: skip
    kind = (
        kind
        or _kind_from_dataset(path)
        or _kind_from_name(path, values)
        or _kind_from_content(values, path)
    )
    if kind is MaskKind.INSTANCES:
        return values
    return connected_components(values)


def connected_components(mask: Array) -> Array:
    """Number the connected components of each class of a label mask from 1 (8-connectivity).

    255 is ignored, unless it is the only value: then it is the white of a black and white mask.
    """
    is_white = not ((mask > 0) & (mask != IGNORE)).any()
    classes = mask if is_white else np.where(mask == IGNORE, 0, mask)
    found: Array = label(classes, background=0, connectivity=2)
    return found


def _kind_from_dataset(path: Path) -> MaskKind | None:
    """The kind listed in the mask's dataset."""
    for folder in path.resolve().parents[:DATASET_DEPTH]:
        if is_artifact(folder) and (folder / DATASET).is_file():
            samples = read_dataset(folder).samples
            name = path.resolve().relative_to(folder).as_posix()
            if name in {sample.instances for sample in samples}:
                return MaskKind.INSTANCES
            if name in {sample.mask.path for sample in samples}:
                return MaskKind.CLASSES
    return None


def _kind_from_name(path: Path, values: Array) -> MaskKind | None:
    if path.stem.endswith(INSTANCE_NAMES):
        return MaskKind.INSTANCES
    is_label_mask = values.dtype == np.uint8  # wider types come from other programs
    return MaskKind.CLASSES if path.stem.endswith(CLASS_NAMES) and is_label_mask else None


def _kind_from_content(values: Array, path: Path) -> MaskKind:
    """Detect the kind from the number of components per value."""
    components: Array = label(values, background=0, connectivity=2)
    _, first = np.unique(components[components > 0], return_index=True)
    numbers, counts = np.unique(values[components > 0][first], return_counts=True)
    split_count = int((counts > 1).sum())
    may_ignore = values.dtype == np.uint8 and IGNORE in numbers and IGNORE - 1 not in numbers
    if len(numbers) <= 1 or (counts.sum() > 2 * len(numbers) and 2 * split_count >= len(numbers)):
        return MaskKind.CLASSES
    if split_count <= MAX_SPLIT_SHARE * len(numbers) and not may_ignore:
        return MaskKind.INSTANCES
    raise UserError(
        "the mask is ambiguous", where=str(path),
        expected="classes, whose connected components are objects, or one value per object",
        found=f"{len(numbers)} values in {counts.sum()} connected components"
        + (", including 255, which label masks ignore" if may_ignore else ""),
        remedy="specify --masks classes or --masks instances",
    )  # fmt: skip
