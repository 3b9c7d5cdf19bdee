"""Thresholds of cross-validation: each fold's are chosen on the other folds."""

from collections.abc import Sequence

import numpy as np

from dataset_rules.ground.documents import Document
from unet.objects.splitting import SplitSettings
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan
from unet.scoring.metrics import Counts, total_counts
from unet.training.validation import FOREGROUNDS, SEEDS, Validation, default_split_settings

NEUTRAL_LEVEL = 0.5  # foreground level at which seeds are compared
MIN_STANDARD_ERRORS = 2.0  # by which another level must be better


class Evidence(Document):
    """Scores of one fold's held-out samples for each threshold."""

    images: int
    dice: tuple[float, ...]  # sum over the images, for each of `FOREGROUNDS`
    objects: tuple[tuple[int, int, int], ...]  # tp, fp, fn at IoU 0.5, for each of `SEEDS`
    pixels: int  # used
    seconds: float  # spent


def collect_evidence(
    validation: Validation, facts: Fingerprint, *, plan: Plan, seconds: float = 0.0
) -> Evidence:
    """Dice at each foreground level and object counts for each kind of seeds.

    Args:
        validation: samples with the last probabilities.
        facts: of the dataset.
        plan: of the training.
        seconds: to record.
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


def choose_settings(evidence: Sequence[Evidence], facts: Fingerprint) -> SplitSettings:
    """The level on which the folds agree, and the seeds with the best object F1 over all folds."""
    f1 = [
        total_counts(Counts(*fold.objects[index]) for fold in evidence).dice or 0.0
        for index in range(len(SEEDS))
    ]
    seeds, height = SEEDS[max(range(len(SEEDS)), key=lambda i: f1[i])]
    update = {"foreground": _agreed_level(evidence), "seeds": seeds, "level": height}
    return default_split_settings(facts).model_copy(update=update)


def _agreed_level(evidence: Sequence[Evidence]) -> float:
    """The foreground level with the best mean Dice over the folds.

    Only if its mean gain over the neutral level exceeds `MIN_STANDARD_ERRORS` standard errors,
    with one observation per fold; otherwise the neutral level. Levels differ between tissues: one
    chosen on a few folds is often worse for another than the neutral one.
    """
    rows = np.array([fold.dice for fold in evidence if fold.images])
    images = [[fold.images] for fold in evidence if fold.images]
    if not images:
        return NEUTRAL_LEVEL
    gains = (rows - rows[:, [FOREGROUNDS.index(NEUTRAL_LEVEL)]]) / images
    best = int(gains.mean(0).argmax())
    errors = gains[:, best].std(ddof=1) / len(gains) ** 0.5 if len(gains) > 1 else 0.0
    return (
        FOREGROUNDS[best] if gains[:, best].mean() > MIN_STANDARD_ERRORS * errors else NEUTRAL_LEVEL
    )
