"""Commands that exchange datasets with other tools and restore the source's mask values."""

import json
from pathlib import Path
from typing import Annotated

import typer

from app.commands.console import AsJson, new_folder, out, print_json, progress, table
from app.commands.data import show_dataset, show_problems
from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.exchange.layout import EXPORT, Layout
from dataset_rules.rules.rules import read_rules


def export_dataset(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET")],
    to: Annotated[Layout, typer.Option(help="Target tool")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder")],
    as_json: AsJson = False,
) -> None:
    """Export a dataset to COCO, nnU-Net, Cellpose or YOLO; report what the format cannot store."""
    from dataset_rules.exchange.export import export_dataset  # --help loads no pixel library

    with progress("exporting", quiet=as_json, has_rate=True) as show:
        made = export_dataset(dataset, new_folder(folder), to, on_progress=show)
    document = {"id": read_artifact(made, "export").id, "path": str(made),
                **json.loads((made / EXPORT).read_bytes())}  # fmt: skip
    if as_json:
        print_json(document)
        return
    facts = {**document["samples"], **document["facts"]}
    rows = [[name.replace("_", " "), str(fact)] for name, fact in facts.items()]
    table(f"Dataset for {to}", ["", ""], [*rows, ["id", document["id"]], ["folder", str(made)]])
    for sentence in document["said"]:
        out.print(sentence, markup=False, soft_wrap=True)


def import_dataset(
    source: Annotated[Path, typer.Argument(metavar="SRC", help="Folder or archive")],
    to: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the dataset")],
    layout: Annotated[Layout, typer.Option("--from", help="Layout of the source")],
    rules: Annotated[
        Path | None,
        typer.Option(
            help="Rules document: sizes, format, splits, source.exclude. Default: unchanged"
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Import a COCO, nnU-Net, Cellpose or YOLO folder as a dataset; splits are kept."""
    from dataset_rules.exchange.importing import import_dataset  # --help loads no pixel library

    given = read_rules(rules) if rules else None
    with progress("importing", quiet=as_json, has_rate=True) as show:
        folder = import_dataset(source, new_folder(to), layout, rules=given, on_progress=show)
    show_dataset(folder, as_json=as_json)
    show_problems(folder)


def write_back(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="Dataset or prediction")],
    folder: Annotated[Path, typer.Option("--out", metavar="DIR", help="A new folder")],
    rules: Annotated[
        Path | None, typer.Option(help="Rules document; default: that of the underlying dataset")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write label masks with the grey values or colours of the source's masks."""
    from dataset_rules.formatting.write_back import write_back  # --help loads no pixel library

    made = write_back(artifact, new_folder(folder), rules=read_rules(rules) if rules else None)
    top = read_artifact(made, "masks")
    count = len(json.loads(top.manifest)["files"])
    if as_json:
        print_json({"id": top.id, "path": str(made), "files": count})
    else:
        table("Masks with the source's values", ["", ""],
              [["files", str(count)], ["id", top.id], ["folder", str(made)]])  # fmt: skip
