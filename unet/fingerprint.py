"""Facts of a dataset that the plan is made of; numpy and OpenCV only."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from dataset_rules.dataset import (
    IGNORE,
    Dataset,
    DatasetClass,
    Split,
    dataset_rules_of,
    read_dataset,
    read_sample,
)
from dataset_rules.rules import Document, Rules
from unet.errors import UnetError
from unet.targets import depths, objects_of, touching

SAMPLES_LOOKED_AT = 200  # object sizes and class shares settle long before


class Fingerprint(Document):
    """Facts of one or several datasets with the same classes."""

    train: int
    val: int
    test: int
    looked_at: int
    channels: int
    height_px: tuple[int, int, int]  # smallest, median, largest
    width_px: tuple[int, int, int]
    bit_depth: int
    classes: tuple[DatasetClass, ...]
    class_share: tuple[float, ...]  # of the labelled pixels, by class
    ignored_share: float
    objects_per_image: float
    thickness_px: tuple[float, float, float]  # inscribed diameter: 10th, 50th, 90th percentile
    touching_share: float  # objects that touch another
    has_instances: bool


def fingerprint(folders: Sequence[Path]) -> Fingerprint:
    """The facts of the datasets in `folders`, from at most 200 of their training samples.

    Raises:
        UnetError: if they hold no training sample or differ in their classes.
    """
    datasets = [read_dataset(folder) for folder in folders]
    classes = common_classes(folders, datasets)
    counts = Counter(sample.split for dataset in datasets for sample in dataset.samples)
    train = [
        (folder, sample)
        for folder, dataset in zip(folders, datasets, strict=True)
        for sample in dataset.of(Split.TRAIN)
    ]
    if not train:
        raise UnetError(
            "the dataset has no training samples", where=", ".join(map(str, folders)),
            expected="at least one sample in split 'train'", found="none",
            remedy="raise split.train in the rules and format again",
        )  # fmt: skip
    chosen = train[:: max(1, len(train) // SAMPLES_LOOKED_AT)]
    sizes, pixels, radii, found = [], np.zeros(256, np.int64), [], 0
    touched, colours, depth = 0, False, 8
    for folder, sample in chosen:
        image, mask, instances = read_sample(folder, sample)
        sizes.append(mask.shape)
        pixels += np.bincount(mask.ravel(), minlength=256)
        objects = objects_of(mask, instances)
        _, radius = depths(objects)
        radii.append(radius[1:][radius[1:] > 0])
        found += len(np.unique(objects[objects > 0]))
        touched += len(np.unique(objects[touching(objects)]))
        colours = colours or (image.ndim == 3 and bool(np.ptp(image[::4, ::4], axis=2).any()))
        depth = max(depth, 8 * image.dtype.itemsize)
    labelled = max(1, int(pixels.sum() - pixels[IGNORE]))
    thickness = 2 * np.concatenate(radii) if found else np.zeros(1)
    heights, widths = np.array(sizes).T
    return Fingerprint(
        train=counts[Split.TRAIN],
        val=counts[Split.VAL],
        test=counts[Split.TEST],
        looked_at=len(chosen),
        channels=3 if colours else 1,
        height_px=(int(heights.min()), int(np.median(heights)), int(heights.max())),
        width_px=(int(widths.min()), int(np.median(widths)), int(widths.max())),
        bit_depth=depth,
        classes=classes,
        class_share=tuple(round(float(pixels[c.id] / labelled), 6) for c in classes),
        ignored_share=round(float(pixels[IGNORE] / pixels.sum()), 6),
        objects_per_image=round(found / len(chosen), 2),
        thickness_px=_percentiles(thickness),
        touching_share=round(touched / max(1, found), 4),
        has_instances=any(sample.instances for _, sample in chosen),
    )


def common_classes(
    folders: Sequence[Path], datasets: Sequence[Dataset]
) -> tuple[DatasetClass, ...]:
    """The classes that all datasets share; raises `UnetError` where they differ."""
    first = datasets[0].classes
    for folder, dataset in zip(folders, datasets, strict=True):
        if dataset.classes != first:
            raise UnetError(
                "the datasets differ in their classes", where=str(folder),
                expected=", ".join(f"{c.id} {c.name}" for c in first),
                found=", ".join(f"{c.id} {c.name}" for c in dataset.classes),
                remedy="give both the same classes in their rules",
            )  # fmt: skip
    if len(first) < 2:
        raise UnetError(
            "the dataset has no class but background", where=str(folders[0]),
            remedy="name the classes and their source values in the rules",
        )  # fmt: skip
    return first


def common_rules(folders: Sequence[Path]) -> Rules:
    """The rules of the first dataset; raises `UnetError` where another's images look otherwise."""
    rules = [dataset_rules_of(folder) for folder in folders]
    for folder, other in zip(folders, rules, strict=True):
        if _look(other) != _look(rules[0]):
            raise UnetError(
                "the datasets differ in the form of their images", where=str(folder),
                expected=_look(rules[0]), found=_look(other),
                remedy="format both by rules with equal fit, size and colour model",
            )  # fmt: skip
    return rules[0]


def _look(rules: Rules) -> str:
    size = f" {rules.height} x {rules.width}" if rules.height else ""
    return f"{rules.fit}{size}, {rules.color_model}"


def _percentiles(values: np.ndarray) -> tuple[float, float, float]:
    low, middle, high = np.percentile(values, [10, 50, 90])
    return round(float(low), 2), round(float(middle), 2), round(float(high), 2)
