"""The command that examines a source, and its terminal report."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from app.commands.console import (
    FINDINGS,
    AsJson,
    note,
    out,
    print_json,
    progress,
    source_of,
    table,
)
from app.commands.data import SOURCE
from dataset_rules.ground.disk import write_file, write_json
from dataset_rules.rules.rules import Rules, read_rules

MAX_SHOWN = 12  # findings printed to the terminal; --json has all
_COLOURS = {"error": "bold red", "warning": "yellow", "info": "dim"}


def doctor(
    source: Annotated[str, typer.Argument(metavar="SRC", help=SOURCE)],
    rules: Annotated[
        Path | None, typer.Option(metavar="OUT.json", help="Write the proposed rules here")
    ] = None,
    by: Annotated[
        Path | None,
        typer.Option(metavar="RULES.json", help="Apply these rules; infer what they leave open"),
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="Decode every file instead of a sample")
    ] = False,
    html: Annotated[
        Path | None,
        typer.Option(metavar="OUT.html", help="Write a self-contained HTML page with sample pairs"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report a source's pairs, classes, sizes and problems; propose rules. Changes nothing."""
    place = source_of(source, quiet=as_json)
    given = read_rules(by) if by is not None else None
    document, page = _examine(place, given, is_full=full, has_page=html is not None, quiet=as_json)
    if rules is not None:
        _keep_old(rules, document["rules"])
        write_json(rules, document["rules"])
    if html is not None:
        write_file(html, page.encode())
    if as_json:
        print_json(document)
    else:
        _show_report(document)
        for what, path in (("proposed rules", rules), ("page", html)):
            if path is not None:
                note(f"{what}: {path}")
    is_clear = not document["questions"] and all(
        finding["severity"] == "info" for finding in document["findings"]
    )
    if not is_clear:
        raise typer.Exit(FINDINGS)


def _examine(
    place: Path, rules: Rules | None, *, is_full: bool, has_page: bool, quiet: bool
) -> tuple[dict[str, Any], str]:
    """The report and, if requested, its HTML page."""
    from dataset_rules.checks.inspection import Depth
    from dataset_rules.doctor.examine import examine_folder  # --help loads no pixel library
    from dataset_rules.doctor.page import whole_page
    from dataset_rules.doctor.previews import pictures_of
    from dataset_rules.sources.files import open_files

    depth = Depth.FULL if is_full else Depth.SAMPLE
    with open_files(place) as files:
        with progress("decoding", quiet=quiet or not is_full, has_rate=True) as show:
            report = examine_folder(files, rules, depth=depth, on_progress=show)
        document = report.document()
        if not has_page:
            return document, ""
        pictures = pictures_of(files, report.findings, report.pairing, report.rules)
    return document, whole_page(document, pictures, title=place.resolve().name)


def _keep_old(path: Path, new: Any) -> None:
    """Rename existing rules, which may have been edited by hand, instead of overwriting them."""
    if not path.is_file():
        return
    try:
        is_same = json.loads(path.read_bytes()) == new
    except ValueError:
        is_same = False
    if not is_same:
        old = path.with_name(f"{path.name}.old")
        path.replace(old)
        note(f"existing rules renamed: {old}")


def _show_report(document: dict[str, Any]) -> None:
    pairs = document["pairs"]
    counts = [
        ["pairs", str(len(pairs))],
        ["mask kind", str(document["mask_kind"] or "an open question")],
        ["classes", ", ".join(f"{c['id']} {c['name']}" for c in document["classes"]) or "none"],
        ["images without mask", str(len(document["unpaired_images"]))],
        ["masks without image", str(len(document["unpaired_masks"]))],
        ["ignored files", str(len(document["ignored"]))],
    ]
    table("Contents", ["", ""], counts)
    if pairs:
        first = pairs[0]
        out.print(f"first pair: {first['image']}  +  {_few(first['masks'], 2)}", markup=False,
                  soft_wrap=True)  # fmt: skip
    findings = document["findings"]  # the worst first
    if findings:
        styles = [_COLOURS[finding["severity"]] for finding in findings[:MAX_SHOWN]]
        rows = [[f["severity"], _finding_text(f)] for f in findings[:MAX_SHOWN]]
        table("Findings", ["", "problem, remedy, files"], rows, styles=styles)
    if len(findings) > MAX_SHOWN:
        out.print(f"and {len(findings) - MAX_SHOWN} more: use --json or --html to see all")
    for question in document["questions"]:
        options = " or ".join(str(option) for option in question["options"])
        out.print(f"open question: {question['field']}: {question['why']} ({options})",
                  markup=False, soft_wrap=True)  # fmt: skip


def _finding_text(finding: dict[str, Any]) -> str:
    """A finding in at most four lines."""
    lines = [finding["message"]]
    if finding["remedy"]:
        lines.append(f"-> {finding['remedy']}")
    if finding["paths"]:
        lines.append(_few(finding["paths"], 3))
    if finding["of"] is not None:
        lines.append(f"checked {finding['looked_at']} of {finding['of']} files")
    return "\n".join(lines)


def _few(paths: list[str], max_count: int) -> str:
    more = f" and {len(paths) - max_count} more" if len(paths) > max_count else ""
    return ", ".join(paths[:max_count]) + more
