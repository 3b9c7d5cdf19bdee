"""The command that exports a model."""

import json
from pathlib import Path
from typing import Annotated

import typer

from app.commands.console import FINDINGS, AsJson, new_folder, note, number, out, print_json, table


def export(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="Folder of a model or a run")],
    to: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder")],
    images: Annotated[
        list[Path] | None,
        typer.Option("--image", help="Compare on these; default: synthetic images"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Export to ONNX with a runner that needs only numpy and onnxruntime; compare with torch."""
    from dataset_rules.pixels.images import read_image

    pixels = [read_image(path) for path in images or ()]
    from unet.export.export_model import PARITY  # loads torch and onnxscript
    from unet.export.export_model import export as export_model

    folder = export_model(model, new_folder(to), images=pixels)
    report = json.loads((folder / PARITY).read_bytes())
    if as_json:
        print_json({"path": str(folder), **report})
    else:
        table("torch in float32 vs. onnxruntime",
              ["size", "Dice", "max. probability difference", "objects", "exported"],
              [[f"{i['height_px']} x {i['width_px']}", number(i["dice"]),
                f"{i['probability_difference']:.1e}", str(i["objects"]),
                str(i["objects_exported"])] for i in report["images"]])  # fmt: skip
        out.print(f"exported: {folder}", markup=False, soft_wrap=True)
    if not report["same_mask"]:
        note("the exported model's masks differ on some images: see parity.json")
        raise typer.Exit(FINDINGS)
