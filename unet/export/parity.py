"""Whether an exported folder finds what the model finds: torch in float32 against onnxruntime."""

import runpy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.formatting.image_form import as_in_dataset
from dataset_rules.pixels.images import Pixels
from unet.network.inference import probabilities
from unet.planning.plan import Plan
from unet.prediction.predictor import Networks
from unet.scoring.metrics import pixel_counts

MOST_PROBABILITY, LEAST_DICE = 0.02, 0.999  # beyond which two masks are not the same
Arrays = tuple[NDArray[Any], NDArray[Any], NDArray[Any]]


def parity_report(
    runner: Path, networks: Networks, images: Sequence[Pixels] = ()
) -> dict[str, Any]:
    """Both on the same images: mask, objects and probabilities compared.

    Args:
        runner: `run.py` in the exported folder.
        networks: those that were exported.
        images: HW or HW3; drawn ones of several sizes, one larger than a tile, where none.
    """
    plan = networks.card.plan.model_copy(update={"precision": "float32"})
    networks = Networks(networks.nets, networks.card.model_copy(update={"plan": plan}))
    predict = runpy.run_path(str(runner))["predict"]
    rows = [_compared(networks, image, predict=predict) for image in images or drawn_images(plan)]
    return {
        "torch": "float32",
        "images": rows,
        "dice_least": min(row["dice"] for row in rows),
        "probability_difference_most": max(row["probability_difference"] for row in rows),
        "same_mask": all(row["same_mask"] for row in rows),
    }


def drawn_images(plan: Plan) -> list[NDArray[np.uint8]]:
    """Soft blobs in noise: smaller than a tile, a tile, and larger than one in either axis."""
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
    ours = networks.predict(image)
    plan, rules = networks.card.plan, networks.card.rules
    ours_prob = probabilities(networks.nets, as_in_dataset(image, rules), plan)
    mask, objects, prob = predict(image)
    counts = pixel_counts(ours.mask > 0, mask > 0, np.ones(mask.shape, bool))
    dice = 1.0 if counts.dice is None else counts.dice
    difference = float(np.abs(ours_prob - prob).max())
    return {
        "height_px": image.shape[0], "width_px": image.shape[1], "dice": dice,
        "pixels_of_another_class": int(np.count_nonzero(ours.mask != mask)),
        "objects": int(ours.instances.max(initial=0)), "objects_exported": int(objects.max()),
        "probability_difference": difference,
        "same_mask": difference <= MOST_PROBABILITY and dice >= LEAST_DICE,
    }  # fmt: skip
