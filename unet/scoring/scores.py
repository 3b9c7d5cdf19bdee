"""Scores of a split: counts per image, from which all numbers and intervals are derived."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from dataset_rules.artifacts.dataset import DatasetClass, Split
from unet.scoring.calibration import Reliability, total_reliability
from unet.scoring.intervals import (
    CONFIDENCE,
    RESAMPLES,
    SEED,
    Interval,
    Quotient,
    Resamples,
    mean_quotient,
    point_estimate,
    pooled_quotient,
)
from unet.scoring.metrics import Counts, Panoptic


@dataclass(frozen=True)
class ClassScores:
    """Counts of one image for one class, or for the foreground: all classes except background."""

    pixels: Counts
    objects: tuple[Counts, ...]  # at each of `AP_THRESHOLDS`
    panoptic: Panoptic
    reliability: Reliability

    @property
    def count_error(self) -> int:
        """Number of objects found minus number of true objects."""
        return self.objects[0].fp - self.objects[0].fn


@dataclass(frozen=True)
class ImageScores:
    """Counts of one image: the foreground, and each class except background."""

    name: str
    group: str
    foreground: ClassScores
    classes: tuple[ClassScores, ...]


@dataclass(frozen=True)
class Scores:
    """Scores of a split."""

    split: Split
    classes: tuple[DatasetClass, ...]
    images: tuple[ImageScores, ...]

    @cached_property
    def resamples(self) -> Resamples:
        """Resampled groups; the same for the same groups, so models are compared on equal draws."""
        return Resamples([image.group for image in self.images])

    def document(self) -> dict[str, Any]:
        """The machine-readable form.

        `_mean` is a mean over images, `_pooled` is over all pixels. Images without foreground in
        truth and prediction have no Dice; they are left out and counted as `undefined`. Object
        scores pool tp, fp and fn over the images; AP is the mean of tp / (tp + fp + fn) over IoU
        0.50 to 0.95 in steps of 0.05; panoptic quality counts pairs above IoU 0.5. Intervals
        contain 95 % of the bootstrap resamples of groups.
        """
        quotients = self.quotients()
        return {
            "split": str(self.split),
            "n": len(self.images),
            "groups": self.resamples.groups,
            "undefined": sum(image.foreground.pixels.dice is None for image in self.images),
            **{name: point_estimate(score) for name, score in quotients.items()},
            "intervals": self._intervals(quotients),
            "bootstrap": {"confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": SEED,
                          "unit": "group"},
            "calibration": self._reliability(lambda image: image.foreground).document(),
            "classes": [self._class(i, c) for i, c in enumerate(self.classes[1:])],
            "images": [_image(image) for image in self.worst_first()],
        }  # fmt: skip

    def worst_first(self) -> list[ImageScores]:
        """Images by ascending Dice; those without one come last."""
        return sorted(
            self.images,
            key=lambda image: (
                image.foreground.pixels.dice is None,
                image.foreground.pixels.dice or 0,
            ),
        )

    def quotients(self) -> dict[str, Quotient]:
        """Scores of the foreground and its objects, by their names in the document."""
        found = [image.foreground for image in self.images]
        pixels, objects = _pixel_quotients(found), _object_quotients(found)
        names = ("dice_mean", "dice_pooled", "iou_mean", "precision_mean", "recall_mean",
                 "precision_pooled", "recall_pooled")  # fmt: skip
        return {**dict(zip(names, pixels, strict=True)), **objects}

    def _class(self, index: int, of_class: DatasetClass) -> dict[str, Any]:
        found = [image.classes[index] for image in self.images]
        names = ("dice", "dice_pooled", "iou", "precision", "recall", "precision_pooled",
                 "recall_pooled")  # fmt: skip
        quotients = {
            **dict(zip(names, _pixel_quotients(found), strict=True)), **_object_quotients(found)
        }  # fmt: skip
        return {
            "id": of_class.id, "name": of_class.name,
            **{name: point_estimate(score) for name, score in quotients.items()},
            "intervals": self._intervals(quotients),
            "calibration": self._reliability(lambda image: image.classes[index]).document(),
        }  # fmt: skip

    def _intervals(self, quotients: Mapping[str, Quotient]) -> dict[str, Interval | None]:
        return {name: self.resamples.interval(score) for name, score in quotients.items()}

    def _reliability(self, of: Callable[[ImageScores], ClassScores]) -> Reliability:
        return total_reliability(of(image).reliability for image in self.images)


def _pixel_quotients(found: list[ClassScores]) -> tuple[Quotient, ...]:
    """Dice (mean, pooled), IoU, precision and recall (mean), precision and recall (pooled)."""
    counts = [scores.pixels for scores in found]
    return (
        mean_quotient([c.dice for c in counts]),
        pooled_quotient([(2 * c.tp, 2 * c.tp + c.fp + c.fn) for c in counts]),
        mean_quotient([c.iou for c in counts]),
        mean_quotient([c.precision for c in counts]),
        mean_quotient([c.recall for c in counts]),
        pooled_quotient([(c.tp, c.tp + c.fp) for c in counts]),
        pooled_quotient([(c.tp, c.tp + c.fn) for c in counts]),
    )


def _object_quotients(found: list[ClassScores]) -> dict[str, Quotient]:
    half = [scores.objects[0] for scores in found]
    every = np.array([[(c.tp, c.tp + c.fp + c.fn) for c in s.objects] for s in found], np.float64)
    matched = [scores.panoptic for scores in found]
    f1 = [(2 * m.counts.tp, 2 * m.counts.tp + m.counts.fp + m.counts.fn) for m in matched]
    return {
        "object_f1_50": pooled_quotient([(2 * c.tp, 2 * c.tp + c.fp + c.fn) for c in half]),
        "object_precision_50": pooled_quotient([(c.tp, c.tp + c.fp) for c in half]),
        "object_recall_50": pooled_quotient([(c.tp, c.tp + c.fn) for c in half]),
        "ap_50_95": Quotient(every[..., 0], every[..., 1]),
        "panoptic_quality": pooled_quotient(
            [(2 * m.iou_sum, bottom) for m, (_, bottom) in zip(matched, f1, strict=True)]
        ),
        "segmentation_quality": pooled_quotient([(m.iou_sum, m.counts.tp) for m in matched]),
        "recognition_quality": pooled_quotient(f1),
        "count_error_mean": mean_quotient([abs(scores.count_error) for scores in found]),
        "count_bias_mean": mean_quotient([scores.count_error for scores in found]),
    }


def _image(image: ImageScores) -> dict[str, Any]:
    found = image.foreground
    counts = found.objects[0]
    return {
        "name": image.name, "group": image.group,
        "dice": found.pixels.dice, "iou": found.pixels.iou,
        "precision": found.pixels.precision, "recall": found.pixels.recall,
        "object_f1_50": counts.dice, "panoptic_quality": found.panoptic.quality,
        "objects": counts.tp + counts.fn, "objects_found": counts.tp + counts.fp,
        "count_error": found.count_error,
        "calibration_error": found.reliability.error,
        "classes": [
            {"id": i, "dice": c.pixels.dice, "precision": c.pixels.precision,
             "recall": c.pixels.recall}
            for i, c in enumerate(image.classes, 1)
        ],
    }  # fmt: skip
