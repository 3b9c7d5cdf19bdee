"""Commands that predict and measure."""

import json
import os
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.commands.console import AsJson, new_folder, note, out, print_json, progress, table
from app.ground.home import home_folder

if TYPE_CHECKING:
    from unet.prediction.predictor import Predictor


class BackendName(StrEnum):
    """What `--backend` takes."""

    AUTO = "auto"
    FLOAT32 = "float32"
    BFLOAT16 = "bfloat16"
    OPENVINO = "openvino"


class MaskValues(StrEnum):
    """What `--masks` takes."""

    CLASSES = "classes"
    INSTANCES = "instances"


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model or a run")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR")],
    tta: Annotated[
        bool, typer.Option("--tta", help="Average over turned and mirrored views: 8 times as long")
    ] = False,
    probabilities: Annotated[
        bool, typer.Option("--probabilities", help="Also write the probability of each class")
    ] = False,
    uncertainty: Annotated[
        bool, typer.Option("--uncertainty", help="Also write how undecided each pixel is")
    ] = False,
    backend: Annotated[
        BackendName, typer.Option(help="What runs the network; auto: the fastest, by measurement")
    ] = BackendName.AUTO,
    as_json: AsJson = False,
) -> None:
    """Write label mask and instance map of images of any size, at each image's own size.

    A TIFF is read by rows, so that one of 30,000 x 30,000 pixels fits into 2 GB of memory.
    """
    from unet.prediction.predict_files import (  # loads torch
        PREDICTIONS,
        OptionalMaps,
        predict_files,
    )

    predictor = _load(model, backend, tta=tta)
    with progress("predicting", quiet=as_json) as show:
        folder = predict_files(
            model, images, new_folder(to), predictor=predictor,
            maps=OptionalMaps(probabilities=probabilities, uncertainty=uncertainty),
            on_event=lambda event: show(event["done"], event["of"]),
        )  # fmt: skip
    document = _read(folder / PREDICTIONS)
    if as_json:
        print_json(document)
        return
    table("Predictions", ["image", "objects", "mask"],
          [[i["image"], str(i["objects"]), str(folder / i["mask"])]
           for i in document["images"]])  # fmt: skip


def _load(model: Path, backend: BackendName, *, tta: bool) -> "Predictor":
    from unet.network.backend import CHOICES_FILE, Backend
    from unet.prediction.predictor import Predictor  # loads torch

    if backend is not BackendName.AUTO:
        return Predictor(model, backend=Backend(backend), tta=tta)
    predictor = Predictor(model, tta=tta)
    choice = predictor.choose_backend(home_folder(os.environ) / CHOICES_FILE)
    took = ", ".join(f"{name} {1000 * s:.0f} ms" for name, s in choice.seconds.items())
    note(f"backend: {choice.backend} ({took} for a tile)")
    return predictor


def measure(
    image: Annotated[list[Path], typer.Argument(metavar="IMAGE... MASK...",
        help="Images, then as many masks or the folder of a prediction")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR")],
    pixel_size: Annotated[
        float | None, typer.Option(min=0.001, max=50, help="Micrometres per pixel")
    ] = None,
    masks: Annotated[
        MaskValues | None, typer.Option(help="Meaning of the masks' values; detected by default")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Measure every object of images: shape, stain, IHC scores; writes CSV, JSON and a page."""
    from unet.measurement.mask_objects import MaskKind
    from unet.measurement.measure_files import DOCUMENT, REPORT, measure_files

    images, files = _images_and_masks(image)
    with progress("measuring", quiet=as_json) as show:
        folder = measure_files(
            images, files, new_folder(to), pixel_size_um=pixel_size,
            masks_are=MaskKind(masks) if masks else None,
            on_event=lambda event: show(event["done"], event["of"]),
        )  # fmt: skip
    if as_json:
        print_json(_read(folder / DOCUMENT))
    else:
        out.print(f"report: {folder / REPORT}", markup=False, soft_wrap=True)


def _images_and_masks(paths: list[Path]) -> tuple[list[Path], Path | list[Path]]:
    from dataset_rules.ground.errors import UserError

    if len(paths) > 1 and paths[-1].is_dir():
        return paths[:-1], paths[-1]
    half, odd = divmod(len(paths), 2)
    if odd or not half:
        raise UserError(
            "images and masks do not come in equal numbers", found=f"{len(paths)} paths",
            remedy="give the images, then as many masks, or the folder of a prediction",
        )  # fmt: skip
    return paths[:half], paths[half:]


def _read(path: Path) -> Any:
    return json.loads(path.read_bytes())
