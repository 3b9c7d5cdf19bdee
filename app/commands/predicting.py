"""Commands that predict and measure."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.console import AsJson, new_folder, out, print_json, progress, table


def predict(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model or a run")],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR")],
    as_json: AsJson = False,
) -> None:
    """Write label mask and instance map of images of any size, at each image's own size."""
    from unet.predict import PREDICTIONS, predict_files

    with progress("predicting", quiet=as_json) as show:
        folder = predict_files(
            model, images, new_folder(to), on_event=lambda event: show(event["done"], event["of"])
        )
    document = _read(folder / PREDICTIONS)
    if as_json:
        print_json(document)
        return
    table("Predictions", ["image", "objects", "mask"],
          [[i["image"], str(i["objects"]), str(folder / i["mask"])]
           for i in document["images"]])  # fmt: skip


def measure(
    image: Annotated[list[Path], typer.Argument(metavar="IMAGE... MASK...",
        help="Images, then as many masks; or images, then the folder of a prediction")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR")],
    pixel_size: Annotated[
        float | None, typer.Option(min=0.001, max=50, help="Micrometres per pixel")
    ] = None,
    as_json: AsJson = False,
) -> None:  # fmt: skip
    """Measure every object of images: shape, stain, IHC scores; writes CSV, JSON and a page."""
    from unet.measure import DOCUMENT, REPORT, measure_files

    images, masks = _images_and_masks(image)
    with progress("measuring", quiet=as_json) as show:
        folder = measure_files(
            images, masks, new_folder(to), pixel_size_um=pixel_size,
            on_event=lambda event: show(event["done"], event["of"]),
        )  # fmt: skip
    if as_json:
        print_json(_read(folder / DOCUMENT))
    else:
        out.print(f"report: {folder / REPORT}", markup=False, soft_wrap=True)


def _images_and_masks(paths: list[Path]) -> tuple[list[Path], Path | list[Path]]:
    from dataset_rules.errors import UserError

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
