"""The files of a model: `model.json` and the weights of its networks."""

import json
from pathlib import Path

from pydantic import Field, ValidationError

from dataset_rules.artifacts.manifest import MODEL_FOLDER, is_artifact
from dataset_rules.ground.documents import Document
from dataset_rules.rules.rules import Rules
from unet.errors import UnetError
from unet.network.checkpoint import load_tensors
from unet.network.inference import make_net
from unet.network.model import UNet
from unet.objects.splitting import SplitSettings
from unet.planning.plan import Plan

MODEL = "model.json"
WEIGHTS = "weights.safetensors"


class ModelCard(Document):
    """The content of `model.json`: everything that prediction needs besides the weights."""

    plan: Plan
    rules: Rules  # of the dataset: new images are first converted to its colours and scale
    split: SplitSettings
    scores: dict[str, float | None]
    members: int = Field(default=1, ge=1, description="networks whose probabilities are averaged")


def model_folder(folder: Path) -> Path:
    """The model in a folder: the folder itself, or `model/` inside a run."""
    return folder / MODEL_FOLDER if is_artifact(folder / MODEL_FOLDER) else folder


def weights_name(member: int) -> str:
    """The file of a member's weights: `weights.safetensors`, `weights-1.safetensors`, ..."""
    return WEIGHTS if member == 0 else f"weights-{member}.safetensors"


def load_net(path: Path, plan: Plan) -> UNet:
    """The plan's network with weights from a file; raises `UnetError` if they do not fit."""
    net = make_net(plan)
    weights, _ = load_tensors(path)
    try:
        net.load_state_dict(weights)
    except RuntimeError as error:
        raise UnetError("the weights do not fit the plan's network", where=str(path)) from error
    return net.eval()


def read_card(folder: Path) -> ModelCard:
    """The `model.json` of a model folder."""
    try:
        return ModelCard.model_validate(json.loads((folder / MODEL).read_bytes()))
    except (OSError, ValueError, ValidationError) as error:
        raise UnetError(
            "the model's description is damaged", where=str(folder / MODEL), found=str(error)[:200]
        ) from error
