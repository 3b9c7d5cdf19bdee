"""Scores of a model on a split of a dataset, worst images first."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_rules.dataset import IGNORE, DatasetClass, Split, read_dataset, read_sample
from dataset_rules.manifest import read_intact
from unet.errors import UnetError
from unet.metrics import AP_THRESHOLDS, Counts, mean, object_counts, pixel_counts, total
from unet.predict import Prediction, Predictor
from unet.targets import foreground_of, objects_of


@dataclass(frozen=True)
class ImageScores:
    """Counts of one image: foreground, each class but background, objects at each IoU."""

    name: str
    foreground: Counts
    classes: tuple[Counts, ...]
    objects: tuple[Counts, ...]


@dataclass(frozen=True)
class Scores:
    """Scores of a split; foreground is the union of all classes but background."""

    split: Split
    classes: tuple[DatasetClass, ...]
    images: tuple[ImageScores, ...]

    def document(self) -> dict[str, Any]:
        """The machine-readable form.

        `_mean` is a mean over images, `_pooled` is over all pixels. Images without foreground in
        truth and prediction have no Dice; they are left out and counted as `undefined`. Object
        scores pool tp, fp and fn over the images; AP = tp / (tp + fp + fn), its mean over IoU
        0.50 to 0.95 in steps of 0.05.
        """
        foreground = [image.foreground for image in self.images]
        objects = [
            total(image.objects[i] for image in self.images) for i in range(len(AP_THRESHOLDS))
        ]
        return {
            "split": str(self.split),
            "n": len(self.images),
            "undefined": sum(counts.dice is None for counts in foreground),
            "dice_mean": mean(counts.dice for counts in foreground),
            "dice_pooled": total(foreground).dice,
            "iou_mean": mean(counts.iou for counts in foreground),
            "object_f1_50": objects[0].dice,
            "ap_50_95": mean(counts.iou for counts in objects),
            "classes": [self._class(i, c) for i, c in enumerate(self.classes[1:])],
            "images": [_image(image) for image in self.worst_first()],
        }

    def worst_first(self) -> list[ImageScores]:
        """Images by rising Dice; those without one at the end."""
        return sorted(
            self.images,
            key=lambda image: (image.foreground.dice is None, image.foreground.dice or 0),
        )

    def _class(self, index: int, which: DatasetClass) -> dict[str, Any]:
        counts = [image.classes[index] for image in self.images]
        return {
            "id": which.id, "name": which.name,
            "dice": mean(c.dice for c in counts), "iou": mean(c.iou for c in counts),
            "dice_pooled": total(counts).dice,
        }  # fmt: skip


def evaluate(
    model: Path,
    dataset: Path,
    split: Split = Split.TEST,
    *,
    predictor: Predictor | None = None,
    on_event: Callable[[dict[str, Any]], None] | None = None,
) -> Scores:
    """Scores of a model (or run) on one split, on the pixels of the dataset.

    Raises:
        UnetError: if the split is empty or the model knows other classes.
    """
    read_intact(dataset, "dataset")
    content = read_dataset(dataset)
    samples = content.of(split)
    if not samples:
        raise UnetError(
            f"the split '{split}' is empty", where=str(dataset),
            found=", ".join(f"{len(content.of(s))} in {s}" for s in Split),
            remedy="evaluate another split, or change split in the rules and format again",
        )  # fmt: skip
    predictor = predictor or Predictor(model)
    if predictor.classes != content.classes:
        raise UnetError(
            "the model knows other classes than the dataset", where=str(dataset),
            expected=", ".join(c.name for c in predictor.classes),
            found=", ".join(c.name for c in content.classes),
        )  # fmt: skip
    images = []
    for done, sample in enumerate(samples, 1):
        image, mask, instances = read_sample(dataset, sample)
        found = predictor.predict(image)
        truth = objects_of(mask, instances)
        images.append(image_scores(sample.name, mask, truth, found, classes=content.classes))
        if on_event:
            on_event({"event": "image", "image": sample.name, "done": done, "of": len(samples)})
    return Scores(split, content.classes, tuple(images))


def image_scores(
    name: str,
    mask: NDArray[np.uint8],
    objects: NDArray[np.int32],
    found: Prediction,
    *,
    classes: tuple[DatasetClass, ...],
) -> ImageScores:
    """Counts of one image against its label mask and instance map (HW)."""
    known = mask != IGNORE
    return ImageScores(
        name,
        pixel_counts(foreground_of(mask), found.mask > 0, known),
        tuple(pixel_counts(mask == c.id, found.mask == c.id, known) for c in classes[1:]),
        object_counts(objects, np.where(known, found.instances, 0)),
    )


def _image(image: ImageScores) -> dict[str, Any]:
    counts = image.objects[0]
    return {
        "name": image.name, "dice": image.foreground.dice, "iou": image.foreground.iou,
        "object_f1_50": counts.dice, "objects": counts.tp + counts.fn,
        "objects_found": counts.tp + counts.fp,
    }  # fmt: skip
