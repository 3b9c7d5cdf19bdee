"""Two models on the same images: their differences, and whether these are significant."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dataset_rules.artifacts.dataset import Split
from unet.prediction.predictor import Predictor
from unet.scoring.evaluate import Event, evaluate
from unet.scoring.intervals import Interval, point_estimate
from unet.scoring.scores import Scores

TITLES = {
    "dice_mean": "mean Dice", "object_f1_50": "object F1", "ap_50_95": "average precision",
    "panoptic_quality": "panoptic quality",
}  # fmt: skip


@dataclass(frozen=True)
class Difference:
    """One score of both models; the interval is of `second - first`, resampled by group."""

    name: str
    first: float | None
    second: float | None
    interval: Interval | None
    groups: int

    @property
    def amount(self) -> float | None:
        """Second minus first."""
        return None if self.first is None or self.second is None else self.second - self.first

    @property
    def is_significant(self) -> bool:
        """True if the interval excludes 0."""
        return self.interval is not None and (self.interval[0] > 0 or self.interval[1] < 0)

    def sentence(self) -> str:
        """The result in words."""
        title = TITLES.get(self.name, self.name)
        if self.amount is None:
            return f"{title}: undefined, there is nothing to find."
        amounts = f"{title} {self.second:.4f} for B, {self.first:.4f} for A"
        if self.interval is None:
            return f"{amounts}: not significant, one group of images gives no interval."
        low, high = self.interval
        spread = (
            f"difference {self.amount:+.4f}, 95 % interval {low:+.4f} to {high:+.4f} over "
            f"{self.groups} groups"
        )
        if not self.is_significant:
            return f"{amounts}: not significant ({spread})."
        return f"{amounts}: significant, {'B' if self.amount > 0 else 'A'} is higher ({spread})."

    def document(self) -> dict[str, Any]:
        """The machine-readable form."""
        return {
            "a": self.first, "b": self.second, "difference": self.amount,
            "interval": self.interval, "told_apart": self.is_significant,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparison:
    """Scores of two models on the same images, in the same order."""

    first: Scores
    second: Scores

    def differences(self) -> dict[str, Difference]:
        """Each score of both models, with the interval of the paired difference."""
        second, resamples = self.second.quotients(), self.first.resamples
        return {
            name: Difference(
                name, point_estimate(score), point_estimate(second[name]),
                resamples.interval_of_difference(score, second[name]), resamples.groups,
            )
            for name, score in self.first.quotients().items()
        }  # fmt: skip

    def document(self) -> dict[str, Any]:
        """The machine-readable form; images with the largest difference in Dice come first."""
        differences = self.differences()
        return {
            "split": str(self.first.split),
            "n": len(self.first.images),
            "groups": self.first.resamples.groups,
            "differences": {name: d.document() for name, d in differences.items()},
            "sentences": [differences[name].sentence() for name in TITLES],
            "images": self._images(),
        }

    def _images(self) -> list[dict[str, Any]]:
        rows = []
        for first, second in zip(self.first.images, self.second.images, strict=True):
            a, b = (image.foreground.pixels.dice for image in (first, second))
            difference = None if a is None or b is None else b - a
            rows.append({"name": first.name, "group": first.group, "dice_a": a, "dice_b": b,
                         "difference": difference})  # fmt: skip
        return sorted(rows, key=lambda row: -abs(row["difference"] or 0.0))


def compare(
    first: Path,
    second: Path,
    dataset: Path,
    *,
    split: Split = Split.TEST,
    on_event: Event | None = None,
) -> tuple[Comparison, tuple[str, str]]:
    """Evaluate two models (or runs) on one split; returns their comparison and their ids.

    Raises:
        UnetError: if the split is empty or a model has other classes.
    """
    predictors = [Predictor(folder) for folder in (first, second)]
    scores = [
        evaluate(predictor.folder, dataset, split, predictor=predictor,
                 on_event=on_event and _halves(on_event, half))
        for half, predictor in enumerate(predictors)
    ]  # fmt: skip
    ids = (predictors[0].artifact.id, predictors[1].artifact.id)
    return Comparison(scores[0], scores[1]), ids


def _halves(on_event: Event, half: int) -> Callable[[dict[str, Any]], None]:
    """Progress of one of the two models as overall progress."""
    return lambda event: on_event(
        {**event, "done": event["done"] + half * event["of"], "of": 2 * event["of"]}
    )
