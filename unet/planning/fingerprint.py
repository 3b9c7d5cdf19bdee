"""Facts of a dataset that the plan is made of; numpy and OpenCV only."""

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
    dataset_rules_of,
    read_dataset,
    read_sample,
)
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.documents import Document
from dataset_rules.ground.parallel import each
from dataset_rules.rules.rules import Rules
from unet.errors import UnetError
from unet.planning.sample_statistics import SampleFacts, sample_facts

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
    groups: int = 0  # of the training samples: tissues, patients, slides
    intensity: tuple[float, float, float] = (0.0, 0.5, 1.0)  # 0.5, 50, 99.8 %, of the full range
    light_spread: float = 1.0  # standard deviation, from image to image, of the normalised mean
    bright_share: float = 0.0  # images that are stained and on a light ground
    density: tuple[float, float, float] = (0.0, 0.0, 0.0)  # optical, of those, by channel
    density_spread: float = 0.0  # standard deviation of the same from image to image
    area_px: tuple[float, float, float] = (0.0, 0.0, 0.0)  # of an object: 10th, 50th, 90th percent.
    apart_px: tuple[float, float, float] = (0.0, 0.0, 0.0)  # centres of neighbours, the same


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
    seen = list(each(lambda item: sample_facts(*item), chosen))
    pixels = np.sum([facts.pixels for facts in seen], axis=0)
    refuse_unseen_classes(classes, pixels, train)
    heights, widths = np.array([facts.size for facts in seen]).T
    found = sum(len(facts.area_px) for facts in seen)
    labelled = max(1, int(pixels.sum() - pixels[IGNORE]))
    return Fingerprint(
        train=counts[Split.TRAIN],
        val=counts[Split.VAL],
        test=counts[Split.TEST],
        looked_at=len(chosen),
        channels=3 if any(facts.is_coloured for facts in seen) else 1,
        height_px=(int(heights.min()), int(np.median(heights)), int(heights.max())),
        width_px=(int(widths.min()), int(np.median(widths)), int(widths.max())),
        bit_depth=max(facts.bit_depth for facts in seen),
        classes=classes,
        class_share=tuple(round(float(pixels[c.id] / labelled), 6) for c in classes),
        ignored_share=round(float(pixels[IGNORE] / pixels.sum()), 6),
        objects_per_image=round(found / len(chosen), 2),
        thickness_px=_percentiles([facts.thickness_px for facts in seen]),
        touching_share=round(sum(facts.touching for facts in seen) / max(1, found), 4),
        has_instances=any(sample.instances for _, sample in chosen),
        groups=len({(str(folder.resolve()), sample.group) for folder, sample in train}),
        intensity=_rounded(np.median([facts.intensity for facts in seen], axis=0)),
        light_spread=round(float(np.std([facts.light for facts in seen], axis=0).mean()), 3),
        area_px=_percentiles([facts.area_px for facts in seen]),
        apart_px=_percentiles([facts.apart_px for facts in seen]),
        **_stain(seen),
    )


def kept_fingerprint(path: Path, folders: Sequence[Path]) -> Fingerprint:
    """The facts in a file; taken and written where there is none, so that resuming is quick."""
    if path.exists():
        return Fingerprint.model_validate_json(path.read_bytes())
    facts = fingerprint(folders)
    write_json(path, facts.model_dump(mode="json"))
    return facts


def _stain(seen: Sequence[SampleFacts]) -> dict[str, Any]:
    """Share of stained images on a light ground, and their optical density."""
    densities = np.array([facts.density for facts in seen if facts.is_bright])
    if not len(densities):
        return {}
    return {
        "bright_share": round(len(densities) / len(seen), 4),
        "density": _rounded(densities.mean(axis=0)),
        "density_spread": round(float(densities.std(axis=0).mean()), 4),
    }


def unseen_classes(
    classes: Sequence[DatasetClass],
    samples: Sequence[tuple[Path, Sample]],
    pixels: np.ndarray | None = None,
) -> tuple[DatasetClass, ...]:
    """Classes but background that no mask of the samples shows.

    Args:
        classes: of the datasets.
        samples: whose masks are read until each class is seen.
        pixels: by class, of masks that were read before.
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
    """A network would name such a class at random; all masks are read before it is said."""
    unseen = unseen_classes(classes, train, pixels)
    if not unseen:
        return
    where = ", ".join(sorted({str(folder) for folder, _ in train}))
    if len(unseen) == len(classes) - 1:
        raise UnetError(
            "every training mask is all background: there is nothing to learn", where=where,
            expected="pixels of " + ", ".join(c.name for c in classes[1:]),
            remedy="look at the masks and at source_values in the rules: `unetops doctor`",
        )  # fmt: skip
    raise UnetError(
        "a class has no pixel in the training split", where=where,
        found=", ".join(f"none of class {c.id} {c.name}" for c in unseen),
        remedy="bring a group that shows it into train (split.groups in the rules), or leave the "
        "class out of the rules",
    )  # fmt: skip


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


def _percentiles(values: Sequence[np.ndarray]) -> tuple[float, float, float]:
    """10th, 50th and 90th percentile of all values; zeros of none."""
    joined = np.concatenate([np.zeros(0), *values])
    low, middle, high = np.percentile(joined, [10, 50, 90]) if len(joined) else (0.0, 0.0, 0.0)
    return round(float(low), 2), round(float(middle), 2), round(float(high), 2)


def _rounded(values: np.ndarray) -> tuple[float, ...]:
    return tuple(round(float(value), 4) for value in values)
