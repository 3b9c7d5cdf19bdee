"""Classes of colour masks: drawn colours are classes, blended ones map to the nearest."""

import math
from collections.abc import Sequence

from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.masks.value_counts import MAX_LABELS, Meaning, ValueCounts, unclear_meaning
from dataset_rules.pixels.values import unpack_color
from dataset_rules.rules.fields import ClassRule, MaskKind

MIN_DRAWN_SHARE = 0.002  # of all pixels; rarer colours count as blended, not drawn
SAME_COLOR = 60  # colours closer than this to a more frequent one are shades of it

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


def meaning_of_colors(counts: ValueCounts) -> Meaning:
    """One class per drawn colour, except the background's."""
    majors = _major_colors(counts)
    if {RED, GREEN, BLUE, BLACK} == set(majors):
        return _stained(counts)
    if len(majors) > MAX_LABELS:
        return unclear_meaning(counts)
    ground = BLACK if BLACK in majors else majors[0]
    others = sorted(color for color in majors if color != ground)
    classes = tuple(
        ClassRule(id=i, name="color_{:02x}{:02x}{:02x}".format(*color), source_values=(color,))
        for i, color in enumerate(others, start=1)
    )
    return Meaning(
        MaskKind.COLORS,
        (ClassRule(id=0, name="background", source_values=(ground,)), *classes),
        findings=_blend_findings(counts, majors),
    )


def _stained(counts: ValueCounts) -> Meaning:
    """The immunohistochemistry palette: red positive, blue negative, green boundary."""
    note = Finding(
        code="stain_colors", severity=Severity.INFO,
        message="the colours are read as immunohistochemistry's: blue negative, red positive, "
        "green boundary (ignored), black background",
        remedy="write other classes into the rules if they mean something else",
    )  # fmt: skip
    classes = (
        ClassRule(id=0, name="background", source_values=(BLACK,)),
        ClassRule(id=1, name="negative", source_values=(BLUE,)),
        ClassRule(id=2, name="positive", source_values=(RED,)),
    )
    blends = _blend_findings(counts, [RED, GREEN, BLUE, BLACK])
    return Meaning(MaskKind.COLORS, classes, (GREEN,), findings=(note, *blends))


def _major_colors(counts: ValueCounts) -> list[tuple[int, int, int]]:
    """Drawn colours, most frequent first; shades of one are merged into it."""
    majors: list[tuple[int, int, int]] = []
    for value, _ in sorted(counts.pixels.items(), key=lambda item: (-item[1], item[0])):
        color = unpack_color(value)
        if counts.share(value) < MIN_DRAWN_SHARE:
            break
        if all(_distance(color, major) >= SAME_COLOR for major in majors):
            majors.append(color)
    return majors


def _distance(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    return math.dist(a, b)


def _blend_findings(
    counts: ValueCounts, majors: Sequence[tuple[int, int, int]]
) -> tuple[Finding, ...]:
    blends = [value for value in counts.values if unpack_color(value) not in majors]
    if not blends:
        return ()
    return (
        Finding(
            code="blended_colors", severity=Severity.INFO,
            message=f"{len(blends)} further colours ({counts.share(*blends):.2%} of the pixels) "
            "go to the nearest class",
        ),
    )  # fmt: skip
