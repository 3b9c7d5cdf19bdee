"""Comparison of an exported folder with its model: onnxruntime against torch in float32."""

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.formatting.image_form import convert_image
from dataset_rules.pixels.images import Pixels
from unet.network.inference import probabilities
from unet.planning.plan import Plan
from unet.prediction.predictor import Networks
from unet.scoring.metrics import pixel_counts

MAX_DIFFERENCE, MIN_DICE = 0.02, 0.999  # of probabilities and masks that count as the same
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def parity_report(
    runner: Path, networks: Networks, images: Sequence[Pixels] = ()
) -> dict[str, Any]:
    """Compare mask, objects and probabilities of both on the same images.

    Args:
        runner: `run.py` in the exported folder.
        networks: those that were exported.
        images: HW or HW3; default: synthetic ones of several sizes, one larger than a tile.
    """
    plan = networks.card.plan.model_copy(update={"precision": "float32"})
    networks = Networks(networks.nets, networks.card.model_copy(update={"plan": plan}))
    predict = runpy.run_path(str(runner))["predict"]
    rows = [
        _compared(networks, image, predict=predict) for image in images or synthetic_images(plan)
    ]
    return {
        "torch": "float32",
        "images": rows,
        "dice_least": min(row["dice"] for row in rows),
        "probability_difference_most": max(row["probability_difference"] for row in rows),
        "same_mask": all(row["same_mask"] for row in rows),
    }


def synthetic_images(plan: Plan) -> list[NDArray[np.uint8]]:
    """Blurred blobs with noise: smaller than a tile, one tile, larger than a tile in one axis."""
    tile = round(plan.tile_px / plan.scale)
    sizes = ((61, 97), (tile, tile), (tile // 2 + 13, tile + tile // 2 + 5))
    rng = np.random.default_rng(0)
    images = []
    for size in sizes:
        field = cv2.GaussianBlur(rng.standard_normal((*size, 3)), (0, 0), 6 / plan.scale)
        noise = rng.normal(0, 4, (*size, 3))
        images.append((128 + 60 * field / field.std() + noise).clip(0, 255).astype(np.uint8))
    return images


def _compared(
    networks: Networks, image: Pixels, *, predict: Callable[[Pixels], Arrays]
) -> dict[str, Any]:
    expected = networks.predict(image)
    plan, rules = networks.card.plan, networks.card.rules
    expected_prob = probabilities(networks.nets, convert_image(image, rules), plan)
    mask, objects, prob = predict(image)
    counts = pixel_counts(expected.mask > 0, mask > 0, np.ones(mask.shape, bool))
    dice = 1.0 if counts.dice is None else counts.dice
    difference = float(np.abs(expected_prob - prob).max())
    return {
        "height_px": image.shape[0], "width_px": image.shape[1], "dice": dice,
        "pixels_of_another_class": int(np.count_nonzero(expected.mask != mask)),
        "objects": int(expected.instances.max(initial=0)), "objects_exported": int(objects.max()),
        "probability_difference": difference,
        "same_mask": difference <= MAX_DIFFERENCE and dice >= MIN_DICE,
    }  # fmt: skip
