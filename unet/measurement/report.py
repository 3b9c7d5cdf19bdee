"""Measurements as one self-contained HTML page."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from string import Template
from typing import Any

from numpy.typing import NDArray

from unet.measurement.ihc import (
    Comparison,
    Intensity,
    Measurements,
    pool_comparisons,
    pool_measurements,
)
from unet.measurement.overlays import data_uri

Array = NDArray[Any]
SWATCHES = {
    Intensity.NEGATIVE: "#5b7fd6", Intensity.WEAK: "#d9a566",
    Intensity.MODERATE: "#ad6a33", Intensity.STRONG: "#6b3516",
}  # fmt: skip
UNDEFINED, MINUS = "\N{EN DASH}", "\N{MINUS SIGN}"
PAGE = Path(__file__).with_suffix(".html")
STYLE = Path(__file__).with_suffix(".css")  # shared by all pages about images and their objects


@dataclass(frozen=True)
class Entry:
    """One image on the page."""

    name: str
    original: Array  # HW3, uint8, RGB
    overlay: Array  # the same image with outlines
    measurements: Measurements
    comparison: Comparison | None = None
    pixel_size_um: float | None = None  # as used


def report_page(
    entries: Sequence[Entry], *, title: str, facts: Mapping[str, str], record: str
) -> str:
    """The page: score cards, comparison with known counts if any, images, table.

    Args:
        entries: the images, in the order of the page.
        title: heading of the page.
        facts: how it was measured, one line per entry.
        record: the prediction's record, which identifies the lineage back to the source.
    """
    total = pool_measurements(tuple(entry.measurements for entry in entries))
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        style=STYLE.read_text(encoding="utf-8"),
        record=escape(record),
        images=f"{len(entries)} image{'' if len(entries) == 1 else 's'}",
        cards=_cards(total),
        intensities=_intensities(total),
        comparison=_comparison(entries),
        table=_table(entries, total),
        figures="".join(_figure(entry) for entry in entries),
        facts="".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items()),
    )


def percent(share: float | None) -> str:
    """0.256 -> '25.6 %'; a dash if undefined."""
    return UNDEFINED if share is None else f"{100 * share:.1f} %"


def signed(value: float | None, unit: str) -> str:
    """0.031 -> '+3.1 %'; a dash if undefined."""
    if value is None:
        return UNDEFINED
    return f"{round(100 * value, 1) or 0.0:+.1f} {unit}".replace("-", MINUS).replace("+0.0", "0.0")


def _score(value: float | None) -> str:
    return UNDEFINED if value is None else f"{value:.0f}"


def _cards(total: Measurements) -> str:
    cards = (
        ("Nuclei", f"{total.count:,}", "counted"),
        ("Positive", f"{total.positive_count:,}", "brown (DAB)"),
        ("Positive share", percent(total.positive_share), "of all nuclei"),
        ("H-score", _score(total.h_score), "of 300"),
    )
    return "".join(
        f'<div class="card"><dt>{name}</dt><dd>{value}</dd><dd class="note">{note}</dd></div>'
        for name, value, note in cards
    )


def _intensities(total: Measurements) -> str:
    if not total.count:
        return ""
    parts = [(str(step), n, SWATCHES[step]) for step, n in total.intensities.items()]
    bar = "".join(
        f'<span style="width:{100 * n / total.count:.2f}%;background:{colour}"></span>'
        for _, n, colour in parts
    )
    legend = "".join(
        f'<li><i style="background:{colour}"></i>{name} <b>{n:,}</b> '
        f"({percent(n / total.count)})</li>"
        for name, n, colour in parts
    )
    return f'<div class="bar" aria-hidden="true">{bar}</div><ul class="legend">{legend}</ul>'


def _comparison(entries: Sequence[Entry]) -> str:
    """Table of found and known counts, with totals; empty if no counts are known."""
    known = [(e.name, e.comparison) for e in entries if e.comparison is not None]
    if not known:
        return ""
    total = pool_comparisons(tuple(comparison for _, comparison in known))
    rows = "".join(_comparison_row(name, comparison) for name, comparison in known)
    head = table_head(
        "Image", "Known nuclei", "found", "error", "Known share", "found", "error", ""
    )
    return (
        "<section><h2>Comparison with known counts</h2><div class='scroll'><table>"
        "<caption>Tolerance: count within 10 %, positive share within 5 points</caption>"
        f"{head}<tbody>{rows}</tbody><tfoot>{_comparison_row('All', total)}</tfoot>"
        "</table></div></section>"
    )


def _comparison_row(name: str, c: Comparison) -> str:
    verdict = '<b class="good">✓ within</b>' if c.is_within else '<b class="bad">✗ outside</b>'
    shares = [percent(a / b if b else None) for a, b in
              ((c.known_positive, c.known), (c.found_positive, c.found))]  # fmt: skip
    cells = (
        f"{c.known:,}", f"{c.found:,}", signed(c.count_error, "%"),
        *shares, signed(c.share_error, "points"), verdict,
    )  # fmt: skip
    return table_row(name, cells)


def _table(entries: Sequence[Entry], total: Measurements) -> str:
    head = table_head("Image", "Nuclei", "Positive", "Share", "H-score", "1+", "2+", "3+")
    rows = "".join(table_row(entry.name, _counts(entry.measurements)) for entry in entries)
    foot = table_row("All", _counts(total))
    return f"{head}<tbody>{rows}</tbody><tfoot>{foot}</tfoot>"


def _counts(found: Measurements) -> tuple[str, ...]:
    steps = [f"{n:,}" for step, n in found.intensities.items() if step is not Intensity.NEGATIVE]
    return (
        f"{found.count:,}", f"{found.positive_count:,}", percent(found.positive_share),
        _score(found.h_score), *steps,
    )  # fmt: skip


def table_head(*names: str) -> str:
    """The header of a table; names are HTML."""
    return f"<thead><tr>{''.join(f'<th scope=col>{name}</th>' for name in names)}</tr></thead>"


def table_row(name: str, cells: Sequence[str]) -> str:
    """A row of a table; the cells are HTML, the name is not."""
    columns = "".join(f"<td>{cell}</td>" for cell in cells)
    return f"<tr><th scope=row>{escape(name)}</th>{columns}</tr>"


def _figure(entry: Entry) -> str:
    found, name = entry.measurements, escape(entry.name)
    text = f"{found.count:,} nuclei, {found.positive_count:,} positive"
    score = f"share {percent(found.positive_share)}, H-score {_score(found.h_score)}"
    return (
        f"<figure><div class=pair>"
        f'<img loading=lazy src="{data_uri(entry.original)}" alt="{name}, original">'
        f'<img loading=lazy src="{data_uri(entry.overlay)}" alt="{name} with outlines: {text}">'
        f"</div><figcaption><b>{name}</b><span>{text} · {score}</span></figcaption></figure>"
    )
