"""Thresholds chosen over folds: each fold's by what the networks of the others found."""

from collections.abc import Sequence

import numpy as np

from dataset_rules.ground.documents import Document
from unet.objects.splitting import SplitSettings
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan
from unet.scoring.metrics import Counts, total_counts
from unet.training.validation import FOREGROUNDS, SEEDS, Validation, default_split_settings

NEUTRAL_LEVEL = 0.5  # the level of the foreground at which the seeds of objects are compared
MIN_STANDARD_ERRORS = 2.0  # standard errors by which another level must be better


class Evidence(Document):
    """What the held-out samples of one fold say of each threshold."""

    images: int
    dice: tuple[float, ...]  # sum over the images, for each of `FOREGROUNDS`
    objects: tuple[tuple[int, int, int], ...]  # tp, fp, fn at IoU 0.5, for each of `SEEDS`
    pixels: int  # that were looked at
    seconds: float  # that it took


def collect_evidence(
    validation: Validation, facts: Fingerprint, *, plan: Plan, seconds: float = 0.0
) -> Evidence:
    """Dice at each level of the foreground and object counts of each way to split.

    Args:
        validation: samples with the probabilities that were found last.
        facts: of the dataset.
        plan: of the training.
        seconds: to be noted.
    """
    defined = [row for row in validation.dice_at_levels() if None not in row]
    _, counts = validation.objects_by_seeds(default_split_settings(facts), plan)
    objects = [total_counts(each) for each in counts]
    return Evidence(
        images=len(defined),
        dice=tuple(float(x) for x in np.array(defined or [[0.0] * len(FOREGROUNDS)]).sum(0)),
        objects=tuple((c.tp, c.fp, c.fn) for c in objects),
        pixels=validation.pixels,
        seconds=seconds,
    )


def choose_settings(seen: Sequence[Evidence], facts: Fingerprint) -> SplitSettings:
    """The level that the folds agree on, and the seeds with the best object F1 over all of them."""
    f1 = [
        total_counts(Counts(*one.objects[index]) for one in seen).dice or 0.0
        for index in range(len(SEEDS))
    ]
    seeds, height = SEEDS[max(range(len(SEEDS)), key=lambda i: f1[i])]
    update = {"foreground": _agreed_level(seen), "seeds": seeds, "level": height}
    return default_split_settings(facts).model_copy(update=update)


def _agreed_level(seen: Sequence[Evidence]) -> float:
    """The level of the foreground with the best mean Dice of the folds.

    Only if its mean gain over the neutral level is larger than `MIN_STANDARD_ERRORS` of its standard errors,
    a fold being one observation; else the neutral one. Levels differ from tissue to tissue: that
    of a few folds is often worse for another than none.
    """
    rows = np.array([one.dice for one in seen if one.images])
    images = [[one.images] for one in seen if one.images]
    if not images:
        return NEUTRAL_LEVEL
    gains = (rows - rows[:, [FOREGROUNDS.index(NEUTRAL_LEVEL)]]) / images
    best = int(gains.mean(0).argmax())
    errors = gains[:, best].std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return (
        FOREGROUNDS[best] if gains[:, best].mean() > MIN_STANDARD_ERRORS * errors else NEUTRAL_LEVEL
    )
