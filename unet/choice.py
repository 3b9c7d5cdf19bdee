"""Thresholds chosen over folds: each fold's by what the networks of the others found."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from dataset_rules.dataset import IGNORE, read_sample
from dataset_rules.rules import Document
from unet.fingerprint import Fingerprint
from unet.instances import SplitSettings
from unet.metrics import Counts, object_counts, pixel_counts, total
from unet.plan import Plan
from unet.predict import decoded
from unet.targets import foreground_of, objects_of
from unet.validate import FOREGROUNDS, SEEDS, Validation

NEUTRAL = 0.5  # the level of the foreground at which the seeds of objects are compared
CERTAIN = 2.0  # standard errors by which another level must be better


class Evidence(Document):
    """What the held-out samples of one fold say of each threshold."""

    images: int
    dice: tuple[float, ...]  # sum over the images, for each of `FOREGROUNDS`
    objects: tuple[tuple[int, int, int], ...]  # tp, fp, fn at IoU 0.5, for each of `SEEDS`
    pixels: int  # that were looked at
    seconds: float  # that it took


def evidence(
    validation: Validation, facts: Fingerprint, *, plan: Plan, seconds: float = 0.0
) -> Evidence:
    """Dice at each level of the foreground and object counts of each way to split.

    Args:
        validation: samples with the probabilities that were found last.
        facts: of the dataset.
        plan: of the training.
        seconds: to be noted.
    """
    scores = [
        [_dice(prob, level, sample.mask) for level in FOREGROUNDS]
        for prob, sample in zip(validation.found, validation.prepared, strict=True)
    ]
    defined = [row for row in scores if None not in row]
    return Evidence(
        images=len(defined),
        dice=tuple(float(x) for x in np.array(defined or [[0.0] * len(FOREGROUNDS)]).sum(0)),
        objects=tuple((c.tp, c.fp, c.fn) for c in _object_counts(validation, facts, plan)),
        pixels=validation.pixels,
        seconds=seconds,
    )


def chosen(seen: Sequence[Evidence], facts: Fingerprint) -> SplitSettings:
    """The level that the folds agree on, and the seeds with the best object F1 over all of them."""
    f1 = [
        total(Counts(*one.objects[index]) for one in seen).dice or 0.0
        for index in range(len(SEEDS))
    ]
    seeds, height = SEEDS[max(range(len(SEEDS)), key=lambda i: f1[i])]
    update = {"foreground": _agreed_level(seen), "seeds": seeds, "level": height}
    return smallest_settings(facts).model_copy(update=update)


def _agreed_level(seen: Sequence[Evidence]) -> float:
    """The level of the foreground with the best mean Dice of the folds.

    Only if its mean gain over the neutral level is larger than `CERTAIN` of its standard errors,
    a fold being one observation; else the neutral one. Levels differ from tissue to tissue: that
    of a few folds is often worse for another than none.
    """
    rows = np.array([one.dice for one in seen if one.images])
    images = [[one.images] for one in seen if one.images]
    if not images:
        return NEUTRAL
    gains = (rows - rows[:, [FOREGROUNDS.index(NEUTRAL)]]) / images
    best = int(gains.mean(0).argmax())
    errors = gains[:, best].std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return FOREGROUNDS[best] if gains[:, best].mean() > CERTAIN * errors else NEUTRAL


def smallest_settings(facts: Fingerprint) -> SplitSettings:
    """Before anything was chosen: what is much thinner than the thin objects is none."""
    return SplitSettings(
        min_area_px=max(4, int(0.2 * facts.thickness_px[0] ** 2)), foreground=NEUTRAL
    )


def _dice(prob: NDArray[np.float32], level: float, mask: NDArray[np.uint8]) -> float | None:
    return pixel_counts(foreground_of(mask), prob[0] <= 1 - level, mask != IGNORE).dice


def _object_counts(validation: Validation, facts: Fingerprint, plan: Plan) -> list[Counts]:
    """Counts for each way to split, over as many images as a choice can afford."""
    sums, pixels = [Counts(0, 0, 0)] * len(SEEDS), 0
    base = smallest_settings(facts)
    options = [base.model_copy(update={"seeds": s, "level": level}) for s, level in SEEDS]
    for (folder, sample), prob in zip(validation.samples, validation.found, strict=True):
        _, mask, instances = read_sample(folder, sample)
        truth = objects_of(mask, instances)
        for index, option in enumerate(options):
            shown = decoded(prob, option, truth.shape).instances
            sums[index] = total([sums[index], object_counts(truth, shown, (0.5,))[0]])
        pixels += truth.size
        if pixels > plan.choice_px:
            break
    return sums
