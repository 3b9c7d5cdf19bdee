"""Render the doctor's report as self-contained HTML; runs no checks."""

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from dataset_rules.doctor.previews import COLOURS, Picture, Pictures
from dataset_rules.ground.findings import Question, counted

PAGE = Path(__file__).with_suffix(".html")
STYLE = Path(__file__).with_suffix(".css")
MAX_PATHS = 200  # per finding on the page; the JSON report has all
NO_PICTURES = Pictures(of_findings={}, ordinary=())


def whole_page(document: Mapping[str, Any], pictures: Pictures, *, title: str) -> str:
    """One HTML file that makes no network requests.

    Args:
        document: from `Report.document`, worst findings first.
        pictures: of the findings, by index, and of some pairs.
        title: name of the source.
    """
    body = page_body(document, pictures, title=title)
    return Template(PAGE.read_text("utf-8")).substitute(
        title=escape(f"{title}: examination"), style=STYLE.read_text("utf-8"), body=body
    )


def page_body(document: Mapping[str, Any], pictures: Pictures, *, title: str) -> str:
    """The body only, without head and style, for embedding in another page."""
    findings = document["findings"]
    parts = [
        f"<h1>{escape(title)}</h1>",
        f'<p class="lead">{_lead(findings)}</p>',
        _facts(document),
        _questions(document["questions"]),
        "<h2>Findings, worst first</h2>" if findings else "",
        *(
            _finding(finding, pictures.of_findings.get(index, ()))
            for index, finding in enumerate(findings)
        ),
        _sample_pairs(pictures.ordinary),
        _rules(document["rules"]),
    ]
    return '<div class="examination">\n' + "\n".join(part for part in parts if part) + "\n</div>"


def _lead(findings: Sequence[Mapping[str, Any]]) -> str:
    counts = dict.fromkeys(("error", "warning", "info"), 0)
    for finding in findings:
        counts[finding["severity"]] += 1
    nouns = {"error": "error", "warning": "warning", "info": "note"}
    totals = [counted(number, nouns[severity]) for severity, number in counts.items() if number]
    return ", ".join(totals) or "No problems found."


def _facts(document: Mapping[str, Any]) -> str:
    facts = {
        "pairs": str(len(document["pairs"])),
        "images without mask": str(len(document["unpaired_images"])),
        "masks without image": str(len(document["unpaired_masks"])),
        "ignored files": str(len(document["ignored"])),
        "masks are": escape(document["mask_kind"] or "an open question"),
        "classes": " ".join(map(_class, document["classes"])) or "none yet",
    }
    rows = "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in facts.items())
    return f'<dl class="facts">{rows}</dl>'


def _class(rule: Mapping[str, Any]) -> str:
    number = int(rule["id"])
    colour = COLOURS[(number - 1) % len(COLOURS)] if number else (0, 0, 0)
    swatch = '<span class="swatch" style="background:rgb({},{},{})"></span>'.format(*colour)
    return f"<span>{swatch}{number} {escape(rule['name'])}</span>"


def _questions(questions: Sequence[Mapping[str, Any]]) -> str:
    if not questions:
        return ""
    cards = []
    for question in map(Question.model_validate, questions):
        lines = "".join(f"<pre>{escape(line)}</pre>" for line in question.answers())
        cards.append(
            f'<article class="question"><h3><span class="badge">question</span>'
            f"{escape(question.field)}</h3><p>{escape(question.why)}</p>"
            f"<p>Add one of these lines to the rules:</p>{lines}</article>"
        )
    return "<h2>Questions that only you can answer</h2>" + "".join(cards)


def _finding(finding: Mapping[str, Any], pictures: Sequence[Picture]) -> str:
    severity = escape(finding["severity"])
    remedy, paths = finding["remedy"], finding["paths"]
    return "".join(
        (
            f'<article class="{severity}"><h3><span class="badge">{severity}</span>',
            f"{escape(finding['message'])}</h3>",
            f'<p class="remedy">{escape(remedy)}</p>' if remedy else "",
            f'<p class="basis"><code>{escape(finding["code"])}</code>{_basis(finding)}</p>',
            _paths(paths) if paths else "",
            _strips(pictures),
            "</article>",
        )
    )


def _basis(finding: Mapping[str, Any]) -> str:
    looked_at, of = finding.get("looked_at"), finding.get("of")
    return "" if looked_at is None or of is None else f" · checked {looked_at} of {of} files"


def _paths(paths: Sequence[str]) -> str:
    items = "".join(f"<li>{escape(path)}</li>" for path in paths[:MAX_PATHS])
    more = len(paths) - MAX_PATHS
    rest = f"<li>and {more} more: --json lists all</li>" if more > 0 else ""
    return (
        f"<details><summary>{counted(len(paths), 'file')}</summary><ul>{items}{rest}</ul></details>"
    )


def _sample_pairs(pictures: Sequence[Picture]) -> str:
    if not pictures:
        return ""
    return f"<h2>Sample pairs</h2>{_strips(pictures)}"


def _strips(pictures: Sequence[Picture]) -> str:
    figures = "".join(map(_strip, pictures))
    return f'<div class="pictures">{figures}</div>' if figures else ""


def _strip(picture: Picture) -> str:
    shown = {"image": picture.image, "mask": picture.mask, "overlay": picture.overlay}
    images = "".join(
        f'<img src="{escape(address)}" alt="{name}" loading="lazy">'
        for name, address in shown.items()
        if address is not None
    )
    error = f' <span class="bad">{escape(picture.error)}</span>' if picture.error else ""
    caption = escape(" + ".join(picture.paths))
    return (
        f'<figure><div class="strip">{images}</div><figcaption>{caption}{error}</figcaption>'
        "</figure>"
    )


def _rules(rules: Any) -> str:
    text = escape(json.dumps(rules, indent=2, ensure_ascii=False))
    return (
        "<h2>Rules</h2><details><summary>The rules that format this source as shown"
        f"</summary><pre>{text}</pre></details>"
    )
