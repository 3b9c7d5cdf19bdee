"""Fingerprint + budget -> plan: arithmetic only, with a reason for each number."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

from pydantic import (
    Field,
    SerializerFunctionWrapHandler,
    ValidationError,
    model_serializer,
    model_validator,
)

from dataset_rules.artifacts.dataset import DatasetClass
from dataset_rules.ground.documents import Document
from unet.errors import UnetError
from unet.planning.budget import Budget, Precision
from unet.planning.decisions import (
    class_weights,
    colour_jitter,
    fitting_sizes,
    scale_of,
    size_reasons,
    validation_and_choice_px,
    wanted_sizes,
)
from unet.planning.fingerprint import Fingerprint
from unet.planning.lr_schedule import Refit, Schedule, Shrink, Switch, level, make_schedule

__all__ = [
    "DEFAULT_PATCHES",
    "RUN_VERSION",
    "Plan",
    "Schedule",
    "make_plan",
    "make_schedule",
    "read_plan",
]

# Raised by hand when the same datasets and plan give another run. 3: levels without a black frame,
# patches of 128 px. Here, where torch is not loaded: the web process asks for it, too.
RUN_VERSION = 3
DEFAULT_PATCHES = 32_000  # about ten minutes on two cores
STAIN_JITTER = 0.05  # the light jitter of Tellez et al. 2018
TILE_PX, OVERLAP_PX = 512, 64
PATIENCE = 3


class Plan(Document):
    """Every decision of a training: each option is a field here."""

    channels: Literal[1, 3]
    classes: tuple[DatasetClass, ...] = Field(min_length=2)
    scale: float = Field(gt=0, le=1, description="network pixels per image pixel")
    patch_px: int = Field(ge=32, description="side of a training patch, at the plan's scale")
    widths: tuple[int, ...] = Field(min_length=2, max_length=8, description="channels by stage")
    batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    decay_from: int = Field(ge=0, description="first step of the learning rate's decay")
    decay_steps: int = Field(ge=1, description="steps until it reaches zero")
    warmup_steps: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    ema_decay: float = Field(ge=0, lt=1, description="of the averaged weights, which are saved")
    class_weights: tuple[float, ...]
    distance_weight: float = Field(ge=0, description="of the distance head's loss")
    deep_supervision: int = Field(
        default=0, ge=0, description="coarser decoder stages that are trained by own heads"
    )
    zoom_min: float = Field(gt=0)
    zoom_max: float = Field(gt=0)
    colour_jitter: float = Field(ge=0)
    stain_jitter: float = Field(
        default=0, ge=0, le=1, description="of each stain's optical density, on bright background"
    )
    validate_at: tuple[int, ...] = Field(description="steps after which to validate")
    patience: int = Field(
        default=0,
        ge=0,
        description="validations without improvement that start the decay early; 0: never",
    )
    validation_px: int = Field(default=4_000_000, ge=1, description="of held-out images")
    choice_px: int = Field(default=2_000_000, ge=1, description="on which thresholds are chosen")
    precision: Precision = "float32"
    tile_px: int = Field(ge=32, description="side of a prediction tile, at the plan's scale")
    overlap_px: int = Field(ge=0)
    seed: int = Field(default=0, ge=0)
    refits: tuple[Refit, ...] = Field(default=(), description="of the decay, during training")
    shrinks: tuple[Shrink, ...] = Field(default=(), description="of the batch, during training")
    switches: tuple[Switch, ...] = Field(
        default=(), description="of the precision, during training"
    )
    reasons: dict[str, str] = Field(default_factory=dict)

    @model_serializer(mode="wrap")
    def _without_empty_switches(self, document: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave the field out if it is empty, so that older plans keep their bytes and ids."""
        fields: dict[str, Any] = document(self)
        return fields if self.switches else {n: v for n, v in fields.items() if n != "switches"}

    @model_validator(mode="after")
    def _fits_the_network(self) -> Self:
        stride = self.stride
        for name in ("patch_px", "tile_px"):
            if getattr(self, name) % stride:
                raise ValueError(
                    f"{name} must be a multiple of {stride} for {len(self.widths)} stages"
                )
        if self.overlap_px >= self.tile_px:
            raise ValueError("overlap_px must be less than tile_px")
        if len(self.class_weights) != len(self.classes):
            raise ValueError("class_weights needs one number per class")
        if self.deep_supervision > len(self.widths) - 2:
            raise ValueError(
                f"deep_supervision: {len(self.widths)} stages allow {len(self.widths) - 2} at most"
            )
        if self.zoom_min > self.zoom_max:
            raise ValueError("zoom_min must not exceed zoom_max")
        if any(shrink.patch_px % stride for shrink in self.shrinks):
            raise ValueError(f"shrinks: patch_px must be a multiple of {stride}")
        return self

    @property
    def stride(self) -> int:
        """The network takes sizes that are multiples of it."""
        return int(2 ** (len(self.widths) - 1))

    def rate(self, step: int) -> float:
        """Learning rate of a step (from 0): warm-up, hold, then linear decay to zero.

        Hold and decay rather than a cosine (Haegele et al. 2024): the decay can start when the
        time limit requires it. So a run fills its time limit even if the machine's speed changes,
        and completed steps replay exactly.
        """
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        return self.learning_rate * warm * self.level(step)

    def level(self, step: int) -> float:
        """Fraction of the learning rate at a step after the warm-up."""
        return level(step, decay_from=self.decay_from, decay_steps=self.decay_steps,
                     refits=self.refits)  # fmt: skip

    def at(self, step: int) -> Self:
        """The plan with the precision that a step is trained in."""
        held = [switch.precision for switch in self.switches if switch.step <= step]
        return self.model_copy(update={"precision": held[-1], "switches": ()}) if held else self

    def sizes(self, step: int) -> tuple[int, int]:
        """Batch and patch size of a step."""
        past = [shrink for shrink in self.shrinks if shrink.step <= step]
        return (past[-1].batch, past[-1].patch_px) if past else (self.batch, self.patch_px)


def make_plan(
    facts: Fingerprint,
    budget: Budget | None = None,
    *,
    patches: int | None = None,
    seed: int = 0,
) -> Plan:
    """The plan for training on a dataset within a budget.

    Args:
        facts: of the dataset.
        budget: device, memory, time and measured speed; default: unlimited.
        patches: to train on; default: what the budget's time allows, else 32,000.
        seed: of weights, patches and augmentation.

    Raises:
        UnetError: if even the smallest training does not fit into the memory.
    """
    budget = budget or Budget()
    patches = patches or budget.patches or DEFAULT_PATCHES
    scale, scale_reason = scale_of(facts)
    largest = int(max(facts.height_px[2], facts.width_px[2]) * scale)
    wanted = wanted_sizes(largest, budget)
    sizes = fitting_sizes(wanted, budget)
    weights, weights_reason = class_weights(facts)
    jitter, jitter_reason = colour_jitter(facts)
    validation_px, choice_px, pixels_reason = validation_and_choice_px(budget, sizes.patch_px)
    return Plan(
        channels=3 if facts.channels == 3 else 1,
        classes=facts.classes,
        scale=scale,
        patch_px=sizes.patch_px,
        widths=sizes.widths,
        batch=sizes.batch,
        learning_rate=2e-3,
        weight_decay=1e-2,
        class_weights=weights,
        distance_weight=1.0,
        zoom_min=0.6,
        zoom_max=1.6,
        colour_jitter=jitter,
        stain_jitter=STAIN_JITTER if facts.bright_share > 0 else 0.0,
        patience=0 if budget.seconds else PATIENCE,
        validation_px=validation_px,
        choice_px=choice_px,
        precision=budget.precision,
        tile_px=TILE_PX,
        overlap_px=OVERLAP_PX,
        seed=seed,
        **asdict(make_schedule(max(1, patches // sizes.batch))),
        reasons=_reasons(facts, budget, patches=patches)
        | size_reasons(sizes, wanted, budget, largest_px=largest)
        | {"scale": scale_reason, "class_weights": weights_reason, "colour_jitter": jitter_reason,
           "validation_px": pixels_reason, "choice_px": pixels_reason},
    )  # fmt: skip


def read_plan(path: Path) -> Plan:
    """A plan from its JSON file; raises `UnetError` listing every mistake."""
    try:
        return Plan.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UnetError("no such plan", where=str(path)) from error
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'plan'}: {item['msg']}" for item in error.errors()
        )
        raise UnetError(f"the plan is invalid: {mistakes}", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise UnetError("the plan cannot be read", where=str(path), found=str(error)) from error


def _reasons(facts: Fingerprint, budget: Budget, *, patches: int) -> dict[str, str]:
    """The reasons for all numbers that `decisions` does not explain; part of ids, as there."""
    time = (
        f"{patches} patches are learnt from in {budget.seconds:.0f} s at "
        f"{budget.patches_per_s:.1f} a second, as measured"
        if budget.seconds and budget.patches_per_s
        else f"{patches} patches, about ten minutes of two cores"
    )
    thin, thick = facts.thickness_px[0], facts.thickness_px[2]
    zoom = (
        f"objects are {thin:g} to {thick:g} px thick and new images may show them larger or "
        "smaller; less zoom gained on one unseen tissue what it lost on another"
    )
    return {
        "channels": "the images have colours" if facts.channels == 3 else "no image has colours",
        "classes": "those of the dataset",
        "steps": time,
        "decay_from": "the rate holds for six tenths of the steps; a longer training only holds "
        "longer (Haegele et al. 2024)",
        "decay_steps": "four tenths of the steps, down to zero",
        "warmup_steps": "a tenth of the steps, at most 50: moments of AdamW settle",
        "learning_rate": "highest rate at which AdamW with batch norm stayed stable",
        "weight_decay": "AdamW's usual value; over some thousand steps it hardly acts",
        "ema_decay": "the average spans an eighth of the steps, at most a hundred",
        "deep_supervision": "none: trainings of a minute ended 0.02 to 0.09 Dice lower with two",
        "distance_weight": "the object head must split touching objects "
        f"({100 * facts.touching_share:.0f} % of the objects touch another)",
        "zoom_min": zoom,
        "zoom_max": zoom,
        "stain_jitter": f"{100 * facts.bright_share:.0f} % of the images are stained on a bright "
        "ground, as colour: amounts of stain differ from laboratory to laboratory"
        if facts.bright_share
        else "no image is stained on a bright ground",
        "validate_at": "at twelfths of the steps; in the first third it is too early",
        "patience": "the time is given and is filled"
        if budget.seconds
        else "three validations without a gain while the rate holds: it falls early",
        "precision": budget.precision_reason
        if budget.precision_reason
        else "the faster one, as measured"
        if budget.patches_per_s
        else "not measured yet; training within a time limit measures",
        "tile_px": "features of a tile take some hundred MB; a multiple of every stride",
        "overlap_px": "an eighth of a tile: its border lacks surroundings and is blended away",
        "seed": "as asked",
        "refits": "none yet: written where the time left demands it",
        "shrinks": "none yet: written where memory does not suffice",
    }
