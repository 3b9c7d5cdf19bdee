"""Statistics of a dataset, from which the plan is computed; numpy and OpenCV only."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dataset_rules.artifacts.dataset import (
    IGNORE,
    Dataset,
    DatasetClass,
    Sample,
    Split,
    read_dataset,
    read_dataset_rules,
    read_sample,
)
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.documents import Document
from dataset_rules.ground.parallel import parallel_map
from dataset_rules.rules.rules import Rules
from unet.errors import UnetError
from unet.planning.sample_statistics import SampleFacts, sample_facts

MAX_SAMPLES = 200  # object sizes and class shares converge long before


class Fingerprint(Document):
    """Statistics of one or several datasets with the same classes."""

    train: int
    val: int
    test: int
    looked_at: int  # training samples that were read
    channels: int
    height_px: tuple[int, int, int]  # smallest, median, largest
    width_px: tuple[int, int, int]
    bit_depth: int
    classes: tuple[DatasetClass, ...]
    class_share: tuple[float, ...]  # of the labelled pixels, per class
    ignored_share: float
    objects_per_image: float
    thickness_px: tuple[float, float, float]  # inscribed diameter: 10th, 50th, 90th percentile
    touching_share: float  # of the objects
    has_instances: bool
    groups: int = 0  # of the training samples: tissues, patients, slides
    intensity: tuple[float, float, float] = (0.0, 0.5, 1.0)  # 0.5, 50, 99.8 %, of the full range
    light_spread: float = 1.0  # standard deviation of the normalised mean between images
    bright_share: float = 0.0  # of the images: stained, on a light background
    density: tuple[float, float, float] = (
        0.0,
        0.0,
        0.0,
    )  # mean optical density of those, by channel
    density_spread: float = 0.0  # its standard deviation between images
    area_px: tuple[float, float, float] = (0.0, 0.0, 0.0)  # per object: 10th, 50th, 90th percentile
    apart_px: tuple[float, float, float] = (0.0, 0.0, 0.0)  # between neighbours' centres, the same


def fingerprint(folders: Sequence[Path]) -> Fingerprint:
    """Statistics of the datasets in `folders`, from at most about 200 of their training samples.

    Raises:
        UnetError: if they have no training samples or differ in their classes.
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
    chosen = train[:: max(1, len(train) // MAX_SAMPLES)]
    stats = list(parallel_map(lambda item: sample_facts(*item), chosen))
    pixels = np.sum([facts.pixels for facts in stats], axis=0)
    refuse_unseen_classes(classes, pixels, train)
    heights, widths = np.array([facts.size for facts in stats]).T
    found = sum(len(facts.area_px) for facts in stats)
    labelled = max(1, int(pixels.sum() - pixels[IGNORE]))
    return Fingerprint(
        train=counts[Split.TRAIN],
        val=counts[Split.VAL],
        test=counts[Split.TEST],
        looked_at=len(chosen),
        channels=3 if any(facts.is_coloured for facts in stats) else 1,
        height_px=(int(heights.min()), int(np.median(heights)), int(heights.max())),
        width_px=(int(widths.min()), int(np.median(widths)), int(widths.max())),
        bit_depth=max(facts.bit_depth for facts in stats),
        classes=classes,
        class_share=tuple(round(float(pixels[c.id] / labelled), 6) for c in classes),
        ignored_share=round(float(pixels[IGNORE] / pixels.sum()), 6),
        objects_per_image=round(found / len(chosen), 2),
        thickness_px=_percentiles([facts.thickness_px for facts in stats]),
        touching_share=round(sum(facts.touching for facts in stats) / max(1, found), 4),
        has_instances=any(sample.instances for _, sample in chosen),
        groups=len({(str(folder.resolve()), sample.group) for folder, sample in train}),
        intensity=_rounded(np.median([facts.intensity for facts in stats], axis=0)),
        light_spread=round(float(np.std([facts.light for facts in stats], axis=0).mean()), 3),
        area_px=_percentiles([facts.area_px for facts in stats]),
        apart_px=_percentiles([facts.apart_px for facts in stats]),
        **_stain(stats),
    )


def cached_fingerprint(path: Path, folders: Sequence[Path]) -> Fingerprint:
    """The fingerprint in a file; computed and written if there is none, so resuming is quick."""
    if path.exists():
        return Fingerprint.model_validate_json(path.read_bytes())
    facts = fingerprint(folders)
    write_json(path, facts.model_dump(mode="json"))
    return facts


def _stain(stats: Sequence[SampleFacts]) -> dict[str, Any]:
    """Share of stained images on a light background, and their optical density."""
    densities = np.array([facts.density for facts in stats if facts.is_bright])
    if not len(densities):
        return {}
    return {
        "bright_share": round(len(densities) / len(stats), 4),
        "density": _rounded(densities.mean(axis=0)),
        "density_spread": round(float(densities.std(axis=0).mean()), 4),
    }


def unseen_classes(
    classes: Sequence[DatasetClass],
    samples: Sequence[tuple[Path, Sample]],
    pixels: np.ndarray | None = None,
) -> tuple[DatasetClass, ...]:
    """Classes except background that no mask of the samples contains.

    Args:
        classes: of the datasets.
        samples: their masks are read until each class is found.
        pixels: per class, in masks that were already read.
    """
    unseen = {c.id for c in classes[1:] if pixels is None or not pixels[c.id]}
    for folder, sample in samples:
        if not unseen:
            break
        unseen -= set(np.unique(read_sample(folder, sample)[1]).tolist())
    return tuple(c for c in classes if c.id in unseen)


def refuse_unseen_classes(
    classes: Sequence[DatasetClass], pixels: np.ndarray, train: Sequence[tuple[Path, Sample]]
) -> None:
    """Raise `UnetError` if the training split lacks a class, after reading all its masks.

    The network would predict such a class at random.
    """
    unseen = unseen_classes(classes, train, pixels)
    if not unseen:
        return
    where = ", ".join(sorted({str(folder) for folder, _ in train}))
    if len(unseen) == len(classes) - 1:
        raise UnetError(
            "every training mask is all background: there is nothing to learn", where=where,
            expected="pixels of " + ", ".join(c.name for c in classes[1:]),
            remedy="check the masks and source_values in the rules: `unetops doctor`",
        )  # fmt: skip
    raise UnetError(
        "a class has no pixels in the training split", where=where,
        found=", ".join(f"none of class {c.id} {c.name}" for c in unseen),
        remedy="move a group that contains it into train (split.groups in the rules), or remove "
        "the class from the rules",
    )  # fmt: skip


def common_classes(
    folders: Sequence[Path], datasets: Sequence[Dataset]
) -> tuple[DatasetClass, ...]:
    """The classes of all datasets; raises `UnetError` if they differ."""
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
            "the dataset has no class except background", where=str(folders[0]),
            remedy="list the classes and their source values in the rules",
        )  # fmt: skip
    return first


def common_rules(folders: Sequence[Path]) -> Rules:
    """The rules of the first dataset; raises `UnetError` if another's images have another form."""
    rules = [read_dataset_rules(folder) for folder in folders]
    for folder, other in zip(folders, rules, strict=True):
        if _form(other) != _form(rules[0]):
            raise UnetError(
                "the datasets differ in the form of their images", where=str(folder),
                expected=_form(rules[0]), found=_form(other),
                remedy="format both with the same fit, size and colour model",
            )  # fmt: skip
    return rules[0]


def _form(rules: Rules) -> str:
    size = f" {rules.height} x {rules.width}" if rules.height else ""
    return f"{rules.fit}{size}, {rules.color_model}"


def _percentiles(values: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """10th, 50th and 90th percentile of all values; zeros if there are none."""
    joined = np.concatenate([np.zeros(0), *values])
    low, middle, high = np.percentile(joined, [10, 50, 90]) if len(joined) else (0.0, 0.0, 0.0)
    return round(float(low), 2), round(float(middle), 2), round(float(high), 2)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
