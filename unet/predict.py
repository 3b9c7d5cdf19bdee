"""What makes a model: card, networks, probabilities of an image, and what is read out of them.

Shape suffixes: B batch, C channels, K classes, H height, W width.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError

from dataset_rules.images import Pixels
from dataset_rules.manifest import MODEL_FOLDER, is_artifact
from dataset_rules.rules import Document, Rules
from unet.checkpoint import load_tensors
from unet.data import normalized, rescaled
from unet.errors import UnetError
from unet.instances import SplitSettings
from unet.model import UNet
from unet.objects import split_objects
from unet.plan import Plan
from unet.planes import resized
from unet.tiles import blended

MODEL = "model.json"
WEIGHTS = "weights.safetensors"


class ModelCard(Document):
    """The content of `model.json`: all that prediction needs beside the weights."""

    plan: Plan
    rules: Rules  # of the dataset: a new image is brought into their colours and scale first
    split: SplitSettings
    scores: dict[str, float | None]
    members: int = Field(default=1, ge=1, description="networks whose probabilities are averaged")


@dataclass(frozen=True)
class Prediction:
    """What a model found in an image, at the image's own size."""

    mask: NDArray[np.uint8]  # HW class ids
    instances: NDArray[np.int32]  # HW object numbers from 1


def make_net(plan: Plan) -> UNet:
    """An untrained network as planned, its weights decided by the plan's seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(plan.seed)
        net = UNet(
            in_channels=plan.channels, classes=len(plan.classes), widths=plan.widths,
            coarse=plan.deep_supervision,
        )  # fmt: skip
    return net.to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def probabilities(nets: Sequence[UNet], image: Pixels, plan: Plan) -> NDArray[np.float32]:
    """Class probabilities and the distance map of an image, (K + 1, H, W) at the plan's scale.

    Of several networks the mean.
    """
    prepared = normalized(rescaled(image, plan.scale), channels=plan.channels)
    found = probabilities_of_prepared(nets[0], prepared, plan)
    for net in nets[1:]:
        found += probabilities_of_prepared(net, prepared, plan)
    return found / np.float32(len(nets))


@torch.inference_mode()
def probabilities_of_prepared(
    net: UNet, image_HWC: NDArray[np.float32], plan: Plan
) -> NDArray[np.float32]:
    """The same of an image that is normalised and at the plan's scale already."""
    device = next(net.parameters()).device

    def forward(tile_HWC: NDArray[np.float32]) -> NDArray[np.float32]:
        tile_BCHW = torch.from_numpy(np.ascontiguousarray(tile_HWC)).permute(2, 0, 1)[None]
        with torch.autocast(device.type, torch.bfloat16, enabled=plan.precision == "bfloat16"):
            logits_BKHW, distance_B1HW = net(tile_BCHW.to(device))
        both = [logits_BKHW.float().softmax(1), distance_B1HW.float().sigmoid()]
        return torch.cat(both, dim=1)[0].cpu().numpy()

    return blended(
        image_HWC, forward, multiple=plan.stride, tile_px=plan.tile_px, overlap_px=plan.overlap_px
    )


def decoded(
    prob_CHW: NDArray[np.float32], split: SplitSettings, size: tuple[int, ...]
) -> Prediction:
    """Mask and objects from probabilities and distance (K + 1, H, W), at `size` (height, width)."""
    prob_CHW = resized(prob_CHW, size)
    foreground = prob_CHW[0] <= 1 - split.foreground
    objects = split_objects(foreground, prob_CHW[-1], split)
    classes = prob_CHW[1:-1].argmax(0) + 1
    return Prediction(np.where(objects > 0, classes, 0).astype(np.uint8), objects)


def model_folder(folder: Path) -> Path:
    """The model in a folder: the folder itself, or the model of a run."""
    return folder / MODEL_FOLDER if is_artifact(folder / MODEL_FOLDER) else folder


def weights_name(member: int) -> str:
    """The file of a member's weights in a model: `weights.safetensors`, `weights-1.safetensors`."""
    return WEIGHTS if member == 0 else f"weights-{member}.safetensors"


def load_net(path: Path, plan: Plan) -> UNet:
    """The plan's network with the weights of a file; raises `UnetError` if they do not fit."""
    net = make_net(plan)
    weights, _ = load_tensors(path)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise UnetError("weights and plan do not belong together", where=str(path)) from error
    return net.eval()


def read_card(folder: Path) -> ModelCard:
    """The `model.json` of a model folder."""
    try:
        return ModelCard.model_validate(json.loads((folder / MODEL).read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise UnetError(
            "the model's description is damaged", where=str(folder / MODEL), found=str(error)[:200]
        ) from error
