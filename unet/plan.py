"""Fingerprint + budget -> plan: arithmetic only, a reason for each number."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, ValidationError, model_validator

from dataset_rules.dataset import DatasetClass
from dataset_rules.rules import Document
from unet.errors import UnetError
from unet.fingerprint import Fingerprint

WIDTHS = (16, 32, 64, 128, 256)
PATCH_PX = 256
BATCH = 8
THICKNESS_PX = 32.0  # an object this thick is seen whole by the third stage
DEFAULT_PATCHES = 8000  # about ten minutes on two cores
RARE_SHARE = 0.05  # of the pixels, below which a class weighs more in the loss
ENOUGH_STEPS = 100  # below it a batch half as large learns no less and leaves more steps


@dataclass(frozen=True)
class Schedule:
    """The part of a plan that follows from the number of steps alone."""

    steps: int
    decay_from: int
    decay_steps: int
    warmup_steps: int
    ema_decay: float
    validate_at: tuple[int, ...]


def make_schedule(steps: int) -> Schedule:
    """Warm-up, hold and decay for a number of steps."""
    decay_steps = max(1, round(0.4 * steps))
    return Schedule(
        steps=steps,
        decay_from=steps - decay_steps,
        decay_steps=decay_steps,
        warmup_steps=min(50, max(1, steps // 10)),
        ema_decay=max(0.5, min(0.99, 1 - 8 / steps)),
        validate_at=tuple(sorted({max(1, steps * i // 6) for i in range(2, 7)})),
    )


class Plan(Document):
    """Every decision of a training; a new option is a field here or does not exist."""

    channels: Literal[1, 3]
    classes: tuple[DatasetClass, ...] = Field(min_length=2)
    scale: float = Field(gt=0, le=1, description="network pixels per image pixel")
    patch_px: int = Field(ge=32, description="side of a training patch, at the plan's scale")
    widths: tuple[int, ...] = Field(min_length=2, max_length=8, description="channels by stage")
    batch: int = Field(ge=1)
    steps: int = Field(ge=1)
    decay_from: int = Field(ge=0, description="step from which the learning rate falls")
    decay_steps: int = Field(ge=1, description="steps in which it reaches zero")
    warmup_steps: int = Field(ge=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    ema_decay: float = Field(ge=0, lt=1, description="of the averaged weights that are kept")
    class_weights: tuple[float, ...]
    distance_weight: float = Field(ge=0, description="of the object head's loss")
    zoom_min: float = Field(gt=0)
    zoom_max: float = Field(gt=0)
    colour_jitter: float = Field(ge=0)
    validate_at: tuple[int, ...] = Field(description="steps after which the best is looked for")
    precision: Literal["float32", "bfloat16"] = "float32"
    tile_px: int = Field(ge=32, description="side of a prediction tile, at the plan's scale")
    overlap_px: int = Field(ge=0)
    seed: int = Field(default=0, ge=0)
    reasons: dict[str, str] = Field(default_factory=dict)

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
            raise ValueError("class_weights needs one number for each class")
        if self.zoom_min > self.zoom_max:
            raise ValueError("zoom_min must not exceed zoom_max")
        return self

    @property
    def stride(self) -> int:
        """Sizes that the network takes are multiples of it."""
        return int(2 ** (len(self.widths) - 1))

    def rate(self, step: int) -> float:
        """Learning rate of a step (from 0): warm-up, hold, then a straight way to zero.

        Hold-and-decay rather than a cosine: the decay can begin when the time demands it, so a
        run fills its time limit on a machine whose speed changes, and the steps that were done
        replay exactly (Haegele et al. 2024).
        """
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        left = 1 - max(0, step - self.decay_from) / self.decay_steps
        return self.learning_rate * warm * max(0.0, left)


def make_plan(facts: Fingerprint, *, patches: int = DEFAULT_PATCHES, seed: int = 0) -> Plan:
    """The plan for a dataset and the number of patches that the time allows to learn from."""
    scale, scale_reason = _scale(facts)
    largest = max(facts.height_px[2], facts.width_px[2]) * scale
    patch = min(PATCH_PX, max(32, -(-int(largest) // 32) * 32))
    widths = WIDTHS if patch >= 64 else WIDTHS[:3]
    batch = _batch(patch, patches)
    weights, weights_reason = _class_weights(facts)
    return Plan(
        channels=3 if facts.channels == 3 else 1,
        classes=facts.classes,
        scale=scale,
        patch_px=patch,
        widths=widths,
        batch=batch,
        learning_rate=2e-3,
        weight_decay=1e-2,
        class_weights=weights,
        distance_weight=1.0,
        zoom_min=0.6,
        zoom_max=1.6,
        colour_jitter=1.0,
        tile_px=512,
        overlap_px=64,
        seed=seed,
        **asdict(make_schedule(max(1, patches // batch))),
        reasons={
            "scale": scale_reason,
            "patch_px": f"{PATCH_PX} px hold enough surroundings; the largest image is "
            f"{largest:.0f} px at this scale",
            "widths": "2.0 million parameters learn within minutes on two cores; a wider network "
            "sees too few patches in that time",
            "batch": f"{batch} patches of {patch} px keep two cores busy and leave "
            f"{patches // batch} steps",
            "learning_rate": "highest rate at which AdamW with batch norm stayed stable",
            "class_weights": weights_reason,
            "distance_weight": "the object head must split touching objects "
            f"({100 * facts.touching_share:.0f} % of the objects touch another)",
            "zoom": "objects differ in thickness from "
            f"{facts.thickness_px[0]:g} to {facts.thickness_px[2]:g} px",
            "steps": f"{patches} patches in batches of {batch}",
            "ema_decay": "the average spans an eighth of the steps, at most a hundred",
        },
    )


def read_plan(path: Path) -> Plan:
    """A plan from its JSON file; raises `UnetError` that lists every mistake."""
    try:
        return Plan.model_validate(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError as error:
        raise UnetError("no such plan", where=str(path)) from error
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'plan'}: {item['msg']}" for item in error.errors()
        )
        raise UnetError(f"the plan is wrong in {mistakes}", where=str(path)) from error
    except (OSError, ValueError) as error:
        raise UnetError("the plan cannot be read", where=str(path), found=str(error)) from error


def _scale(facts: Fingerprint) -> tuple[float, str]:
    thickness = facts.thickness_px[1]
    scale = min(1.0, max(0.125, THICKNESS_PX / max(thickness, 1e-6)))
    if scale > 0.75:
        return 1.0, f"objects are {thickness:g} px thick: fine as they are"
    return round(scale, 3), (
        f"objects are {thickness:g} px thick: brought to {THICKNESS_PX:g} px, so that the network "
        "sees them whole and steps cost less"
    )


def _batch(patch: int, patches: int) -> int:
    """Patches a step: as many pixels as eight of 256 px, half of them where steps would be few.

    Never less: batch norm over two patches of 256 px cost a tenth of the Dice.
    """
    batch = BATCH * (PATCH_PX // patch)
    return batch if patches // batch >= ENOUGH_STEPS else batch // 2


def _class_weights(facts: Fingerprint) -> tuple[tuple[float, ...], str]:
    """1, and more for classes below a twentieth of the pixels: inverse square root, at most 4."""
    weights = tuple(
        round(min(4.0, max(1.0, (RARE_SHARE / max(share, 1e-6)) ** 0.5)), 4)
        for share in facts.class_share
    )
    shares = ", ".join(f"{100 * share:.1f} %" for share in facts.class_share)
    return weights, (
        f"the classes hold {shares} of the pixels; Dice balances them, and weight goes only to "
        f"classes below {100 * RARE_SHARE:.0f} % (weights everywhere: Dice 0.880 against 0.886)"
    )
