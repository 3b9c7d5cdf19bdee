"""The command line `unetops`: registers every command."""

import sys
from importlib.metadata import version
from typing import Annotated

import typer

from app.commands import (
    data,
    doctor,
    exchange,
    exporting,
    infra,
    predicting,
    scoring,
    service,
    training,
)
from app.commands.console import run
from dataset_rules.artifacts.provenance import commit

app = typer.Typer(
    name="unetops",
    help="Train a self-configuring U-Net on messy image folders; get masks, measurements and "
    "their lineage.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
app.command()(service.demo)
app.command()(doctor.doctor)
app.command("format")(data.format_)
app.command("import-dataset")(exchange.import_dataset)
app.command("export-dataset")(exchange.export_dataset)
app.command("write-back")(exchange.write_back)
app.command()(data.verify)
app.add_typer(data.rules_app, name="rules")
app.command()(training.plan)
app.command()(training.train)
app.command()(scoring.evaluate)
app.command()(scoring.compare)
app.command()(predicting.predict)
app.command()(predicting.measure)
app.command()(exporting.export)
app.command()(data.lineage)
app.command()(service.serve)
app.command()(service.web)
app.command()(service.worker)
app.command()(service.migrate)
app.add_typer(service.token_app, name="token")
app.add_typer(infra.infra_app, name="infra")


def _print_version(is_requested: bool) -> None:
    if is_requested:
        revision = commit()
        print(f"unetops {version('unetops')}" + (f" ({revision})" if revision else ""))
        raise typer.Exit


@app.callback()
def unetops(
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Print version and commit",
        ),
    ] = False,
) -> None:
    """Options that precede every command."""


def main() -> None:
    """Entry point. Exit status: 0 success, 1 findings (warning or worse), 2 bad input."""
    sys.exit(run(app))


if __name__ == "__main__":
    main()
