"""Fine-tuning: a training initialised with the weights and plan of another model.

Shape suffixes: K classes, C channels.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dataset_rules.artifacts.dataset import DatasetClass
from dataset_rules.artifacts.manifest import Ancestor, read_intact
from unet.errors import UnetError
from unet.network.checkpoint import load_tensors
from unet.network.model import UNet
from unet.planning.plan import Plan
from unet.prediction.model_files import WEIGHTS, model_folder, read_card

FINE_TUNING_RATE = 0.5  # of the learning rate from scratch, to keep what was learned
FRESH_FIELDS = (
    "classes", "class_weights", "distance_weight", "steps", "decay_from", "decay_steps",
    "warmup_steps", "ema_decay", "validate_at", "precision", "seed", "patience",
    "validation_px", "choice_px", "refits", "shrinks", "switches", "colour_jitter", "stain_jitter",
    "deep_supervision",
)  # fmt: skip
INPUT_LAYERS = ("encoder.0.conv1.weight", "encoder.0.skip.weight")  # applied to the image itself
HEAD_LAYERS = ("head.weight", "head.bias")  # one row per class, then the object head's
AUXILIARY_HEADS = "coarse."  # heads used in training only; each training has its own


@dataclass(frozen=True)
class PretrainedModel:
    """A finished model whose weights initialise a training."""

    artifact: Ancestor
    plan: Plan
    weights: Mapping[str, Tensor]

    def adapt_plan(self, plan: Plan) -> Plan:
        """The model's plan with the classes, schedule and seed of `plan`, made for the new data.

        Scale, patch and widths stay the model's, so that its weights mean the same. A grey model
        is extended to colour if the data have it; a colour model gets grey as three equal channels.
        """
        same_patch = plan.patch_px == self.plan.patch_px
        update = {name: getattr(plan, name) for name in FRESH_FIELDS} | {
            "channels": max(plan.channels, self.plan.channels),
            "batch": plan.batch if same_patch else self.plan.batch,
            "learning_rate": plan.learning_rate * FINE_TUNING_RATE,
            "reasons": plan.reasons | self._reasons(),
        }
        return Plan.model_validate(self.plan.model_dump() | update)

    def load_into(self, net: UNet, plan: Plan) -> None:
        """Load the model's weights into a network made for `plan`.

        Raises:
            UnetError: if the network's architecture differs.
        """
        wanted = net.state_dict()
        given = {
            name: _widened(name, tensor, wanted)
            for name, tensor in self.weights.items()
            if not name.startswith(AUXILIARY_HEADS)
        } | {name: tensor for name, tensor in wanted.items() if name.startswith(AUXILIARY_HEADS)}
        for name in HEAD_LAYERS:
            given[name] = _head(self.weights[name], self.plan.classes, plan.classes)
        _refuse_other_network(given, wanted, self.plan, plan)
        net.load_state_dict(given)

    def _reasons(self) -> dict[str, str]:
        taken = "as the model that the training starts from, so that its weights mean the same"
        return {
            "scale": taken, "patch_px": taken, "widths": taken,
            "learning_rate": f"{FINE_TUNING_RATE:g} of the rate from scratch: "
            "what was learned stays",
        }  # fmt: skip


def read_pretrained(folder: Path) -> PretrainedModel:
    """The model in `folder` (a model or a run); the first member of an ensemble."""
    place = model_folder(folder)
    artifact = read_intact(place, "model")
    weights, _ = load_tensors(place / WEIGHTS)
    return PretrainedModel(artifact, read_card(place).plan, weights)


def _widened(name: str, tensor: Tensor, wanted: Mapping[str, Tensor]) -> Tensor:
    """Adapt the first convolutions to the number of channels; grey images give equal outputs."""
    if name not in INPUT_LAYERS or name not in wanted:
        return tensor
    found, channels = tensor.shape[1], wanted[name].shape[1]
    if found == channels:
        return tensor
    return (tensor.sum(1, keepdim=True) / channels).expand(-1, channels, -1, -1).clone()


def _head(
    rows: Tensor, known: tuple[DatasetClass, ...], classes: tuple[DatasetClass, ...]
) -> Tensor:
    """Rows of the head, matched by class name; zero for new classes."""
    place = {c.name: index for index, c in enumerate(known)}
    new = torch.zeros(len(classes) + 1, *rows.shape[1:], dtype=rows.dtype)
    for index, wanted in enumerate(classes):
        if wanted.name in place:
            new[index] = rows[place[wanted.name]]
    new[-1] = rows[-1]
    return new


def _refuse_other_network(
    given: Mapping[str, Tensor], wanted: Mapping[str, Tensor], start: Plan, plan: Plan
) -> None:
    shapes = [{name: tuple(t.shape) for name, t in part.items()} for part in (given, wanted)]
    if shapes[0] != shapes[1]:
        raise UnetError(
            "the initial model's network differs from the plan's",
            expected=f"widths {plan.widths}", found=f"widths {start.widths}",
            remedy="omit the plan: one that fits the model is then made",
        )  # fmt: skip
