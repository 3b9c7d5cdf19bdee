"""Validation during training, and the choice of thresholds at its end."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_rules.dataset import IGNORE, Sample, read_sample
from unet.data import Prepared, prepare
from unet.fingerprint import Fingerprint
from unet.instances import Seeds, SplitSettings
from unet.metrics import mean, object_counts, pixel_counts, total
from unet.model import UNet
from unet.plan import Plan
from unet.predict import decoded, probabilities_of_prepared
from unet.targets import foreground_of, objects_of

MAX_PIXELS = 4_000_000  # at the plan's scale: a validation must not eat the time limit
CHOICE_PIXELS = 2_000_000  # of the images: twelve ways to split them take some seconds
FOREGROUNDS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
SEEDS = (
    *((Seeds.CORE, level) for level in (0.4, 0.5, 0.6, 0.7)),
    *((Seeds.PEAK, level) for level in (0.02, 0.05, 0.1, 0.2)),
    *((Seeds.SHAPE, level) for level in (0.5, 0.75, 1.5, 3.0)),
)


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
        """The foreground level with the best Dice, then the seeds with the best object F1.

        Returns:
            the settings and the scores that they reach.
        """
        settings = SplitSettings(min_area_px=max(4, int(0.2 * facts.thickness_px[0] ** 2)))
        if not self.samples:
            return settings, {"val_dice": None, "val_object_f1": None}
        found = [probabilities_of_prepared(net, p.image, plan) for p in self.prepared]
        dices = {
            level: mean(
                _dice(f[0] <= 1 - level, p) for f, p in zip(found, self.prepared, strict=True)
            )
            for level in FOREGROUNDS
        }
        best = max(FOREGROUNDS, key=lambda level: (dices[level] or 0.0, -abs(level - 0.5)))
        settings = settings.model_copy(update={"foreground": best})
        truths = self._truths()
        options = [settings.model_copy(update={"seeds": s, "level": v}) for s, v in SEEDS]
        scores = [_object_f1(found[: len(truths)], truths, option) or 0.0 for option in options]
        chosen = max(range(len(options)), key=lambda i: scores[i])
        return options[chosen], {"val_dice": dices[best], "val_object_f1": scores[chosen]}

    def _truths(self) -> list[NDArray[np.int32]]:
        """Instance maps of the first samples, as many as a choice can afford."""
        truths: list[NDArray[np.int32]] = []
        for folder, sample in self.samples:
            _, mask, instances = read_sample(folder, sample)
            truths.append(objects_of(mask, instances))
            if sum(t.size for t in truths) > CHOICE_PIXELS:
                break
        return truths


def validate(net: UNet, validation: Validation, plan: Plan) -> float | None:
    """Dice of each class but background, mean over the images, then over the classes.

    At the plan's scale; None without held-out samples. With two classes it is the foreground's.
    """
    found = [
        probabilities_of_prepared(net, sample.image, plan)[:-1].argmax(0)
        for sample in validation.prepared
    ]
    return mean(
        mean(
            pixel_counts(s.mask == c.id, f == c.id, s.mask != IGNORE).dice
            for s, f in zip(validation.prepared, found, strict=True)
        )
        for c in plan.classes[1:]
    )


def _dice(found: NDArray[np.bool_], sample: Prepared) -> float | None:
    return pixel_counts(foreground_of(sample.mask), found, sample.mask != IGNORE).dice


def _object_f1(
    found: Sequence[NDArray[np.float32]],
    truths: Sequence[NDArray[np.int32]],
    settings: SplitSettings,
) -> float | None:
    """Object F1 at IoU 0.5, pooled over the images."""
    counts = [
        object_counts(truth, decoded(prob, settings, truth.shape).instances, (0.5,))[0]
        for prob, truth in zip(found, truths, strict=True)
    ]
    return total(counts).dice
