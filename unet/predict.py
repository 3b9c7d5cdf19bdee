"""Image -> label mask and instance map, at the image's own size.

Shape suffixes: B batch, C channels, K classes, H height, W width.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import tifffile
import torch
from numpy.typing import NDArray
from pydantic import Field, ValidationError
from skimage.segmentation import watershed

from dataset_rules.dataset import DatasetClass
from dataset_rules.errors import RulesError
from dataset_rules.images import Pixels, encode, read_header, read_image
from dataset_rules.manifest import (
    MODEL_FOLDER,
    Step,
    begin,
    file_hash,
    finish,
    is_artifact,
    make_source,
    read_intact,
    removed_on_refusal,
    write_file,
    write_json,
)
from dataset_rules.rules import Document, Rules
from dataset_rules.sample import as_in_dataset
from unet.checkpoint import load_tensors
from unet.data import normalized, rescaled
from unet.errors import UnetError
from unet.instances import SplitSettings, renumbered
from unet.model import UNet
from unet.objects import split_objects
from unet.plan import Plan
from unet.tiles import blended

MODEL = "model.json"
WEIGHTS = "weights.safetensors"
PREDICTIONS = "predictions.json"
MAX_UINT16 = 65_535

Event = Callable[[dict[str, Any]], None]


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
        net = UNet(in_channels=plan.channels, classes=len(plan.classes), widths=plan.widths)
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

    def forward(tile_HWC: NDArray[np.float32]) -> NDArray[np.float32]:
        tile_BCHW = torch.from_numpy(np.ascontiguousarray(tile_HWC)).permute(2, 0, 1)[None]
        with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bfloat16"):
            logits_BKHW, distance_B1HW = net(tile_BCHW)
        both = [logits_BKHW.float().softmax(1), distance_B1HW.float().sigmoid()]
        return torch.cat(both, dim=1)[0].numpy()

    return blended(
        image_HWC, forward, multiple=plan.stride, tile_px=plan.tile_px, overlap_px=plan.overlap_px
    )


def decoded(
    prob_CHW: NDArray[np.float32], split: SplitSettings, size: tuple[int, ...]
) -> Prediction:
    """Mask and objects from probabilities and distance (K + 1, H, W), at `size` (height, width)."""
    prob_CHW = _resized(prob_CHW, size)
    foreground = prob_CHW[0] <= 1 - split.foreground
    objects = split_objects(foreground, prob_CHW[-1], split)
    classes = prob_CHW[1:-1].argmax(0) + 1
    return Prediction(np.where(objects > 0, classes, 0).astype(np.uint8), objects)


def _at_own_size(
    found: Prediction, prob_CHW: NDArray[np.float32], split: SplitSettings, *, size: tuple[int, ...]
) -> Prediction:
    """What was found at the dataset's scale, at `size`: outlines from the probabilities.

    The objects are told apart at the dataset's scale, for which the settings were chosen.
    """
    prob_CHW = _resized(prob_CHW, size)
    foreground = prob_CHW[0] <= 1 - split.foreground
    near = cv2.resize(found.instances, size[1::-1], interpolation=cv2.INTER_NEAREST_EXACT)
    grown = watershed(-prob_CHW[-1], np.where(foreground, near, 0), mask=foreground)
    objects = renumbered(grown.astype(np.int32))
    classes = prob_CHW[1:-1].argmax(0) + 1
    return Prediction(np.where(objects > 0, classes, 0).astype(np.uint8), objects)


def _resized(prob_CHW: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    if prob_CHW.shape[1:] == size:
        return prob_CHW
    shrinks = size[0] <= prob_CHW.shape[1] and size[1] <= prob_CHW.shape[2]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.stack([cv2.resize(p, size[1::-1], interpolation=how) for p in prob_CHW])


def model_folder(folder: Path) -> Path:
    """The model in a folder: the folder itself, or the model of a run."""
    return folder / MODEL_FOLDER if is_artifact(folder / MODEL_FOLDER) else folder


class Networks:
    """Trained networks that predict together: the members of a model."""

    def __init__(self, nets: Sequence[UNet], card: ModelCard) -> None:
        self.nets = nets
        self.card = card

    @property
    def classes(self) -> tuple[DatasetClass, ...]:
        """Classes of the masks."""
        return self.card.plan.classes

    def predict(self, image: Pixels) -> Prediction:
        """Label mask and instance map of an image (HW or HW3, uint8 or uint16), at its size."""
        return self.predict_with_probabilities(image)[0]

    def predict_with_probabilities(self, image: Pixels) -> tuple[Prediction, NDArray[np.float32]]:
        """The same, and how probable each class is (K, H, W), at the image's size."""
        seen, size = as_in_dataset(image, self.card.rules), image.shape[:2]
        prob = probabilities(self.nets, seen, self.card.plan)
        if seen.shape[:2] == size:
            found = decoded(prob, self.card.split, size)
        else:
            small = decoded(prob, self.card.split, seen.shape[:2])
            found = _at_own_size(small, prob, self.card.split, size=size)
        return found, _resized(prob[:-1], size)


class Predictor(Networks):
    """A model that is loaded once and predicts many images."""

    def __init__(self, folder: Path) -> None:
        self.folder = model_folder(folder)
        self.artifact = read_intact(self.folder, "model")
        card = read_card(self.folder)
        super().__init__(
            [load_net(self.folder / weights_name(i), card.plan) for i in range(card.members)], card
        )


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


def predict_files(
    model: Path,
    images: Sequence[Path],
    out: Path,
    *,
    predictor: Predictor | None = None,
    on_event: Event | None = None,
) -> Path:
    """Masks and instance maps of image files as a prediction artifact in `out`.

    Writes `STEM_mask.png` (class ids, uint8), `STEM_instances.png` (uint16; `.tif`, uint32,
    above 65,535 objects) and `predictions.json`. Every mask carries the record of the
    prediction in its text chunk.

    Raises:
        RulesError: for files that are no images, all of them named.
    """
    started = datetime.now(UTC)
    names = _names(images)
    _refuse_unreadable(images)
    hashes = {f"{name}{path.suffix}": file_hash(path) for name, path in names.items()}
    predictor = predictor or Predictor(model)
    folders = {path.resolve().parent for path in images}
    location = str(folders.pop()) if len(folders) == 1 else "images given to predict"
    source = make_source(hashes, location=location, started=started)
    step = Step("prediction", 1, (predictor.artifact, source))
    if begin(out, step):
        return out
    rows, content = [], []
    with removed_on_refusal(out):
        for done, (name, path) in enumerate(names.items(), 1):
            image = read_image(path)
            found = predictor.predict(image)
            mask, instances = _write(out, name, found)
            content += [mask, instances]
            rows.append(_row(path, found, predictor.classes, mask=mask, instances=instances))
            if on_event:
                on_event(
                    {"event": "prediction", "image": path.name, "done": done, "of": len(images)}
                )
    write_json(
        out / PREDICTIONS,
        {"model": predictor.artifact.id,
         "classes": [c.model_dump() for c in predictor.classes], "images": rows},
    )  # fmt: skip
    pngs = [name for name in content if name.endswith(".png")]
    finish(
        out, step, started=started, stamped=pngs,
        content=dict.fromkeys([*content, PREDICTIONS]),
    )  # fmt: skip
    return out


def _names(images: Sequence[Path]) -> dict[str, Path]:
    """Output name -> image; images of equal stem take their folder's name in front."""
    stems = [path.stem for path in images]
    names: dict[str, Path] = {}
    for path in images:
        name = path.stem if stems.count(path.stem) == 1 else f"{path.parent.name}__{path.stem}"
        if name in names:
            raise RulesError(
                "two images would be written under one name", where=str(path),
                found=f"{name}, as {names[name]}", remedy="predict them into different folders",
            )  # fmt: skip
        names[name] = path
    return names


def _refuse_unreadable(images: Sequence[Path]) -> None:
    problems = []
    for path in images:
        try:
            read_header(path)
        except RulesError as error:
            problems.append(str(error))
    if not images:
        raise RulesError("no image was given", remedy="name at least one image file")
    if problems:
        raise RulesError("; ".join(problems) if len(problems) < 4 else
                         "; ".join(problems[:3]) + f"; and {len(problems) - 3} more")  # fmt: skip


def _write(out: Path, name: str, found: Prediction) -> tuple[str, str]:
    mask = f"{name}_mask.png"
    write_file(out / mask, encode(found.mask, ".png"))
    if found.instances.max(initial=0) <= MAX_UINT16:
        instances = f"{name}_instances.png"
        write_file(out / instances, encode(found.instances.astype(np.uint16), ".png"))
    else:
        instances = f"{name}_instances.tif"
        part = out / f".{instances}.part"
        tifffile.imwrite(part, found.instances.astype(np.uint32), compression="zlib")
        part.replace(out / instances)
    return mask, instances


def _row(
    path: Path, found: Prediction, classes: Sequence[DatasetClass], *, mask: str, instances: str
) -> dict[str, Any]:
    pixels = np.bincount(found.mask.ravel(), minlength=len(classes))
    return {
        "image": path.name,
        "image_sha256": file_hash(path),
        "height_px": found.mask.shape[0],
        "width_px": found.mask.shape[1],
        "mask": mask,
        "instances": instances,
        "objects": int(found.instances.max(initial=0)),
        "class_share": {c.name: round(float(pixels[c.id] / found.mask.size), 6) for c in classes},
    }
