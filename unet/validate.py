"""Validation during training, and the choice of thresholds at its end."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_rules.dataset import IGNORE, Sample, read_sample
from unet.data import Prepared, prepare
from unet.fingerprint import Fingerprint
from unet.instances import SplitSettings
from unet.metrics import mean, object_counts, pixel_counts, total
from unet.model import UNet
from unet.plan import Plan
from unet.predict import decoded, probabilities_of_prepared
from unet.targets import foreground_of, objects_of

MAX_PIXELS = 4_000_000  # at the plan's scale: a validation must not eat the time limit
SEEDS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
FOREGROUNDS = (0.4, 0.5, 0.6)


class Validation:
    """The held-out samples, prepared once."""

    def __init__(self, samples: Sequence[tuple[Path, Sample]], plan: Plan) -> None:
        self.samples: list[tuple[Path, Sample]] = []
        self.prepared: list[Prepared] = []
        pixels = 0
        for folder, sample in samples:
            prepared = prepare(folder, sample, plan)
            if self.prepared and pixels + prepared.mask.size > MAX_PIXELS:
                break
            pixels += prepared.mask.size
            self.samples.append((folder, sample))
            self.prepared.append(prepared)

    @property
    def description(self) -> str:
        """What was validated on, for the run's record."""
        return f"{len(self.samples)} held-out samples" if self.samples else "nothing: no group left"

    def choose_split(
        self, net: UNet, plan: Plan, facts: Fingerprint
    ) -> tuple[SplitSettings, dict[str, float | None]]:
        """Thresholds with the best sum of Dice and object F1, and the scores they reach."""
        smallest = max(4, int(0.2 * facts.thickness_px[0] ** 2))
        settings = SplitSettings(min_area_px=smallest)
        if not self.samples:
            return settings, {"val_dice": None, "val_object_f1": None}
        truths = [_truth(folder, sample) for folder, sample in self.samples]
        probs = [probabilities_of_prepared(net, p.image, plan) for p in self.prepared]
        tried = [
            settings.model_copy(update={"foreground": foreground, "seed": seed})
            for foreground in FOREGROUNDS
            for seed in SEEDS
        ]
        scored = [(scores_of(probs, truths, option), option) for option in tried]
        best, chosen = max(scored, key=lambda item: sum(v or 0.0 for v in item[0]))
        return chosen, {"val_dice": best[0], "val_object_f1": best[1]}


Truth = tuple[NDArray[np.uint8], NDArray[np.int32]]


def validate(net: UNet, validation: Validation, plan: Plan) -> float | None:
    """Mean foreground Dice of the held-out samples at the plan's scale; None without any."""
    scores = []
    for sample in validation.prepared:
        prob = probabilities_of_prepared(net, sample.image, plan)
        found = prob[0] < 0.5
        scores.append(pixel_counts(foreground_of(sample.mask), found, sample.mask != IGNORE).dice)
    return mean(scores)


def scores_of(
    probs: Sequence[NDArray[np.float32]], truths: Sequence[Truth], settings: SplitSettings
) -> tuple[float | None, float | None]:
    """Mean Dice and pooled object F1 at IoU 0.5 of decoded probabilities."""
    dices, objects = [], []
    for prob, (mask, instances) in zip(probs, truths, strict=True):
        found = decoded(prob, settings, mask.shape)
        dices.append(pixel_counts(foreground_of(mask), found.mask > 0, mask != IGNORE).dice)
        objects.append(object_counts(instances, found.instances, (0.5,))[0])
    return mean(dices), total(objects).dice


def _truth(folder: Path, sample: Sample) -> Truth:
    _, mask, instances = read_sample(folder, sample)
    return mask, objects_of(mask, instances)
