"""Validation during training, and the choice of thresholds at the end."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.dataset import IGNORE, Sample, read_sample
from dataset_rules.pixels.images import read_header
from unet.network.inference import probabilities_of_prepared
from unet.network.model import UNet
from unet.objects.splitting import Seeds, SplitSettings
from unet.objects.targets import foreground_of, objects_of
from unet.planning.fingerprint import Fingerprint
from unet.planning.plan import Plan
from unet.prediction.decoding import decoded
from unet.scoring.intervals import Resamples, mean_quotient, pooled_quotient
from unet.scoring.metrics import Counts, mean, object_counts, pixel_counts, total_counts
from unet.training.patches import PreparedSample, prepare

REHEARSAL_PX = 150_000
FOREGROUNDS = (0.3, 0.4, 0.45, 0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85)
SEEDS = (
    *((Seeds.CORE, level) for level in (0.4, 0.5, 0.6, 0.7)),
    *((Seeds.PEAK, level) for level in (0.02, 0.05, 0.1, 0.2)),
    *((Seeds.SHAPE, level) for level in (0.5, 0.75, 1.5, 3.0)),
)


@dataclass(frozen=True)
class Rehearsal:
    """Measured seconds of a validation and of choosing thresholds, on a few samples."""

    validation_s: float = 0.0
    choice_s: float = 0.0
    scaled_px: int = 1  # of these samples at the plan's scale: input of the network
    own_px: int = 1  # of these samples at their own size: input of object splitting


class Validation:
    """The held-out samples, prepared once."""

    def __init__(self, samples: Sequence[tuple[Path, Sample]], plan: Plan) -> None:
        self.samples: list[tuple[Path, Sample]] = []
        self.prepared: list[PreparedSample] = []
        self.probabilities: list[NDArray[np.float32]] = []  # of the last validation
        pixels = 0
        for folder, sample in samples:
            prepared = prepare(folder, sample, plan)
            if self.prepared and pixels + prepared.mask.size > plan.validation_px:
                break
            pixels += prepared.mask.size
            self.samples.append((folder, sample))
            self.prepared.append(prepared)

    @property
    def description(self) -> str:
        """The validation data in words, for the run's record."""
        return f"{len(self.samples)} held-out samples" if self.samples else "nothing: no group left"

    @property
    def pixels(self) -> int:
        """Pixels of a validation, at the plan's scale."""
        return sum(prepared.mask.size for prepared in self.prepared)

    def choose_split(
        self, net: UNet, plan: Plan, facts: Fingerprint, *, is_validated: bool = False
    ) -> tuple[SplitSettings, dict[str, float | None]]:
        """The foreground level with the best Dice, then the seeds with the best object F1.

        Args:
            net: the trained network.
            plan: of its training.
            facts: of the dataset.
            is_validated: the last validation used this network; its probabilities are reused.

        Returns:
            the settings and their scores.
        """
        settings = default_split_settings(facts)
        if not self.samples:
            return settings, {"val_dice": None, "val_object_f1": None}
        if not is_validated:
            self.probabilities = [
                probabilities_of_prepared(net, p.image, plan) for p in self.prepared
            ]
        rows = self.dice_at_levels()
        dices = dict(zip(FOREGROUNDS, map(mean, zip(*rows, strict=True)), strict=True))
        best = max(FOREGROUNDS, key=lambda level: (dices[level] or 0.0, -abs(level - 0.5)))
        settings = settings.model_copy(update={"foreground": best})
        options, counts = self.objects_by_seeds(settings, plan)
        scores = [total_counts(each).dice or 0.0 for each in counts]
        chosen = max(range(len(options)), key=lambda i: scores[i])
        reached = {"val_dice": dices[best], "val_object_f1": scores[chosen]}
        at_best = [row[FOREGROUNDS.index(best)] for row in rows]
        return options[chosen], reached | self._interval_bounds(at_best, counts[chosen])

    def dice_at_levels(self) -> list[list[float | None]]:
        """Foreground Dice of each sample at each of `FOREGROUNDS`, from the last probabilities."""
        return [
            [_dice(prob[0] <= 1 - level, sample) for level in FOREGROUNDS]
            for prob, sample in zip(self.probabilities, self.prepared, strict=True)
        ]

    def objects_by_seeds(
        self, base: SplitSettings, plan: Plan
    ) -> tuple[list[SplitSettings], list[list[Counts]]]:
        """Settings for each of `SEEDS`, and their object counts for each sample.

        Uses the first samples, up to `plan.choice_px` pixels.
        """
        truths = self._truths(len(self._choice_sizes(plan.choice_px)))
        options = [base.model_copy(update={"seeds": s, "level": level}) for s, level in SEEDS]
        found = self.probabilities[: len(truths)]
        return options, [_object_counts(found, truths, option) for option in options]

    def _interval_bounds(
        self, dices: Sequence[float | None], objects: Sequence[Counts]
    ) -> dict[str, float | None]:
        """Bounds of the 95 % intervals of both scores, resampled by group."""
        f1 = [(2.0 * c.tp, 2.0 * c.tp + c.fp + c.fn) for c in objects]
        ends: dict[str, float | None] = {}
        for name, score, number in (
            ("val_dice", mean_quotient(dices), len(dices)),
            ("val_object_f1", pooled_quotient(f1), len(f1)),
        ):
            groups = [f"{folder.resolve()}/{sample.group}" for folder, sample in self.samples]
            low, high = Resamples(groups[:number]).interval(score) or (None, None)
            ends |= {f"{name}_low": low, f"{name}_high": high}
        return ends

    def rehearse(self, net: UNet, plan: Plan, facts: Fingerprint) -> Rehearsal:
        """Time a validation and the choice of thresholds on a few samples."""
        if not self.samples:
            return Rehearsal()
        own_px = self._choice_sizes(min(plan.choice_px, REHEARSAL_PX))
        prepared = self.prepared[: len(own_px)]
        truths = self._truths(len(own_px))
        started = time.monotonic()
        for sample in prepared:
            probabilities_of_prepared(net, sample.image, plan)
        predicted = time.monotonic()
        perfect = [
            np.stack([*(p.mask == c.id for c in plan.classes), p.distance / 255]).astype(np.float32)
            for p in prepared
        ]
        kinds = (Seeds.CORE, Seeds.SHAPE)  # representative of all `SEEDS`
        for seeds in kinds:
            _object_counts(
                perfect, truths, default_split_settings(facts).model_copy(update={"seeds": seeds})
            )
        choice_s = (time.monotonic() - predicted) * len(SEEDS) / len(kinds)
        scaled_px = sum(p.mask.size for p in prepared)
        return Rehearsal(predicted - started, choice_s, scaled_px=scaled_px, own_px=sum(own_px))

    def expected_s(self, rehearsal: Rehearsal, plan: Plan) -> tuple[float, float]:
        """Expected seconds of a validation and of choosing thresholds, in proportion to pixels.

        The network runs at the plan's scale. Objects are split and matched at each image's own
        size, for as many samples as the choice uses.
        """
        own_px = sum(self._choice_sizes(plan.choice_px))
        return (
            rehearsal.validation_s * self.pixels / rehearsal.scaled_px,
            rehearsal.choice_s * own_px / rehearsal.own_px,
        )

    def _choice_sizes(self, max_px: int) -> list[int]:
        """Pixels of the first samples at their own size, up to the one that exceeds the limit."""
        sizes: list[int] = []
        for folder, sample in self.samples:
            header = read_header(folder / sample.mask.path)
            sizes.append(header.height_px * header.width_px)
            if sum(sizes) > max_px:
                break
        return sizes

    def _truths(self, count: int) -> list[NDArray[np.int32]]:
        """Instance maps of the first samples, at their own size."""
        read = (read_sample(folder, sample) for folder, sample in self.samples[:count])
        return [objects_of(mask, instances) for _, mask, instances in read]


def validate(net: UNet, validation: Validation, plan: Plan) -> float | None:
    """Dice of each class except background, mean over the images, then over the classes.

    At the plan's scale; None without held-out samples. For two classes, the foreground Dice.
    """
    validation.probabilities = [
        probabilities_of_prepared(net, sample.image, plan) for sample in validation.prepared
    ]
    found = [prob[:-1].argmax(0) for prob in validation.probabilities]
    return mean(
        mean(
            pixel_counts(s.mask == c.id, f == c.id, s.mask != IGNORE).dice
            for s, f in zip(validation.prepared, found, strict=True)
        )
        for c in plan.classes[1:]
    )


def default_split_settings(facts: Fingerprint) -> SplitSettings:
    """Initial settings; regions much thinner than thin objects are not objects."""
    return SplitSettings(min_area_px=max(4, int(0.2 * facts.thickness_px[0] ** 2)))


def _dice(found: NDArray[np.bool_], sample: PreparedSample) -> float | None:
    return pixel_counts(foreground_of(sample.mask), found, sample.mask != IGNORE).dice


def _object_counts(
    found: Sequence[NDArray[np.float32]],
    truths: Sequence[NDArray[np.int32]],
    settings: SplitSettings,
) -> list[Counts]:
    """Object counts of each image, matched at IoU 0.5: matched, surplus and missed."""
    return [
        object_counts(truth, decoded(prob, settings, truth.shape).instances, (0.5,))[0]
        for prob, truth in zip(found, truths, strict=True)
    ]
