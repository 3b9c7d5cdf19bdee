"""Commands on sources, rules, datasets and artifacts."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.console import (
    FINDINGS,
    AsJson,
    new_folder,
    note,
    out,
    print_json,
    progress,
    source_of,
    table,
)
from dataset_rules.artifacts.dataset import Split, read_dataset
from dataset_rules.artifacts.lineage import LinkState, is_intact, trace
from dataset_rules.artifacts.manifest import contradictions, read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.ground.findings import join_limited
from dataset_rules.rules.rules import Rules, read_rules, rules_document, rules_id, to_paper
from dataset_rules.sources.locations import location_of

PROBLEMS = "problems.json"
MAX_SHOWN = 12  # problems printed to the terminal
SOURCE = "Folder, archive, https://... or s3://bucket/prefix"

rules_app = typer.Typer(no_args_is_help=True, help="Check, show or convert a rules document.")


def format_(
    source: Annotated[str, typer.Argument(metavar="SRC", help=SOURCE)],
    to: Annotated[Path, typer.Argument(metavar="OUT", help="Folder of the dataset")],
    rules: Annotated[Path, typer.Option(help="Rules document, either form")],
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: all cores")] = None,
    as_json: AsJson = False,
) -> None:
    """Write the formatted dataset. Can be stopped at any time; the same command resumes."""
    from dataset_rules.formatting.format import format_dataset  # --help loads no pixel library

    place = source_of(source, quiet=as_json)
    with progress("formatting", quiet=as_json, has_rate=True) as show:
        folder = format_dataset(
            place, new_folder(to), read_rules(rules), jobs=jobs, location=location_of(source),
            on_progress=show,
        )  # fmt: skip
    show_dataset(folder, as_json=as_json)
    if not as_json:
        show_problems(folder)


def show_problems(folder: Path) -> None:
    """Print the problems found in all pixels of a new dataset.

    The doctor, which decodes only a sample, may have missed some.
    """
    problems = json.loads((folder / PROBLEMS).read_bytes())
    for problem in problems[:MAX_SHOWN]:  # the worst first
        paths = join_limited(problem["paths"], 3, ", ")
        note(f"{problem['severity']}: {problem['message']}" + (f": {paths}" if paths else ""))
    if len(problems) > MAX_SHOWN:
        note(f"and {len(problems) - MAX_SHOWN} more: {folder / PROBLEMS}")


def verify(
    artifact: Annotated[Path, typer.Argument(metavar="ARTIFACT")], as_json: AsJson = False
) -> None:
    """Rehash an artifact and list the differences."""
    artifact_id = read_artifact(artifact).id
    problems = altered_files(artifact) or contradictions(artifact)
    if as_json:
        print_json({"id": artifact_id, "intact": not problems, "problems": problems})
    else:
        for problem in problems:
            out.print(problem, markup=False)
        out.print(f"{'altered' if problems else 'intact'}: {artifact_id}", markup=False)
    if problems:
        raise typer.Exit(FINDINGS)


def lineage(
    target: Annotated[Path, typer.Argument(metavar="FILE", help="A mask, a file or a folder")],
    artifact: Annotated[
        Path | None, typer.Option(help="Folder that a copied file came from")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print the chain from a file to its source and commit; report broken links."""
    links = trace(target, artifact=artifact)
    if as_json:
        print_json({"intact": is_intact(links), "links": [link.document() for link in links]})
    else:
        colours = {LinkState.OK: "green", LinkState.BROKEN: "bold red", LinkState.ABSENT: "yellow"}
        for link in links:
            out.print(f"[{colours[link.state]}]{link.state:<7}[/]", end="")
            out.print(f"{link.kind:<13}{link.id[:16]:<18}{link.detail}", markup=False,
                      soft_wrap=True)  # fmt: skip
        broken = [link.kind for link in links if link.state is LinkState.BROKEN]
        out.print(f"broken: {', '.join(broken)}" if broken else "the chain is intact")
    if not is_intact(links):
        raise typer.Exit(FINDINGS)


@rules_app.command()
def check(file: Path, as_json: AsJson = False) -> None:
    """Validate a rules document in either form."""
    rules = read_rules(file)
    if as_json:
        print_json({"valid": True, "id": rules_id(rules)})
    else:
        out.print(f"valid: {rules_id(rules)}", markup=False)


@rules_app.command()
def show(file: Path, as_json: AsJson = False) -> None:
    """Print a rules document in both forms."""
    rules = read_rules(file)
    both = {"rules": rules_document(rules), "paper": _paper_or_reason(rules)}
    print_json(both)


@rules_app.command()
def convert(
    file: Path,
    to: Annotated[str, typer.Option("--to", help="'paper' (short form) or '2' (full form)")] = "2",
    as_json: AsJson = False,
) -> None:
    """Print a rules document in the other form."""
    rules = read_rules(file)
    if to not in {"paper", "2"}:
        raise typer.BadParameter("expected 'paper' or '2'", param_hint="--to")
    print_json(to_paper(rules) if to == "paper" else rules_document(rules))


def _paper_or_reason(rules: Rules) -> Any:
    from dataset_rules.ground.errors import RulesError

    try:
        return to_paper(rules)
    except RulesError as error:
        return {"cannot_say": str(error)}


def show_dataset(folder: Path, *, as_json: bool) -> None:
    """Print the contents of a finished dataset."""
    artifact, dataset = read_artifact(folder, "dataset"), read_dataset(folder)
    splits = {str(split): len(dataset.of(split)) for split in Split}
    if as_json:
        print_json({"id": artifact.id, "path": str(folder), "samples": splits,
                    "classes": [c.model_dump() for c in dataset.classes]})  # fmt: skip
        return
    rows = [["samples", ", ".join(f"{n} {split}" for split, n in splits.items())],
            ["classes", ", ".join(f"{c.id} {c.name}" for c in dataset.classes)],
            ["id", artifact.id], ["folder", str(folder)]]  # fmt: skip
    table("Dataset", ["", ""], rows)
