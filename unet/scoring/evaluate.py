"""Scores of a model on a split of a dataset, worst images first."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.dataset import (
    IGNORE,
    Dataset,
    DatasetClass,
    Sample,
    Split,
    read_dataset,
    read_sample,
)
from dataset_rules.artifacts.manifest import read_intact
from unet.errors import UnetError
from unet.objects.targets import foreground_of, objects_of
from unet.prediction.decoding import Prediction
from unet.prediction.predictor import Predictor
from unet.scoring.calibration import reliability
from unet.scoring.metrics import object_counts, panoptic, pixel_counts
from unet.scoring.scores import ClassScores, ImageScores, Scores

Event = Callable[[dict[str, Any]], None]


def evaluate(
    model: Path,
    dataset: Path,
    split: Split = Split.TEST,
    *,
    predictor: Predictor | None = None,
    on_event: Event | None = None,
) -> Scores:
    """Scores of a model (or run) on one split, on the pixels of the dataset.

    Raises:
        UnetError: if the split is empty or the model has other classes.
    """
    read_intact(dataset, "dataset")
    content = read_dataset(dataset)
    samples = _samples_of(content, split, dataset)
    predictor = predictor or Predictor(model)
    if predictor.classes != content.classes:
        raise UnetError(
            "the model has other classes than the dataset", where=str(dataset),
            expected=", ".join(c.name for c in predictor.classes),
            found=", ".join(c.name for c in content.classes),
            remedy="evaluate on a dataset with the classes that the model was trained on",
        )  # fmt: skip
    images = []
    for done, sample in enumerate(samples, 1):
        images.append(_scores_of(dataset, sample, predictor))
        if on_event:
            on_event({"event": "image", "image": sample.name, "done": done, "of": len(samples)})
    return Scores(split, content.classes, tuple(images))


def _samples_of(content: Dataset, split: Split, dataset: Path) -> tuple[Sample, ...]:
    samples = content.of(split)
    if not samples:
        raise UnetError(
            f"the split '{split}' is empty", where=str(dataset),
            found=", ".join(f"{len(content.of(s))} in {s}" for s in Split),
            remedy="evaluate another split, or change split in the rules and format again",
        )  # fmt: skip
    return samples


def _scores_of(dataset: Path, sample: Sample, predictor: Predictor) -> ImageScores:
    image, mask, instances = read_sample(dataset, sample)
    found, prob_KHW = predictor.predict_with_probabilities(image)
    truth = objects_of(mask, instances)
    foreground, classes = image_scores(
        mask, truth, found, prob_KHW=prob_KHW, classes=predictor.classes
    )
    return ImageScores(sample.name, sample.group, foreground, classes)


def image_scores(
    mask: NDArray[np.uint8],
    objects: NDArray[np.int32],
    found: Prediction,
    *,
    prob_KHW: NDArray[np.float32],
    classes: tuple[DatasetClass, ...],
) -> tuple[ClassScores, tuple[ClassScores, ...]]:
    """Counts of the foreground and of each class except background, in one image.

    Args:
        mask: true label mask, HW; 255 is ignored.
        objects: true instance map, HW.
        found: the model's prediction.
        prob_KHW: its class probabilities.
        classes: background first.
    """
    known = mask != IGNORE

    def scores(
        truth: NDArray[np.bool_], predicted: NDArray[np.bool_], prob: NDArray[np.float32]
    ) -> ClassScores:
        true_objects = np.where(truth, objects, 0)
        found_objects = np.where(predicted & known, found.instances, 0)
        return ClassScores(
            pixel_counts(truth, predicted, known), object_counts(true_objects, found_objects),
            panoptic(true_objects, found_objects), reliability(prob, truth, known),
        )  # fmt: skip

    foreground = scores(foreground_of(mask), found.mask > 0, 1 - prob_KHW[0])
    if len(classes) == 2:
        return foreground, (foreground,)  # the only class is the foreground
    return foreground, tuple(
        scores(mask == c.id, found.mask == c.id, prob_KHW[c.id]) for c in classes[1:]
    )
