"""What the values of the source's masks mean: their kind, and the table of values and classes."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dataset_rules.findings import Finding, Question, Severity
from dataset_rules.look import Look, unpack
from dataset_rules.rules import ClassRule, MaskKind, Rules, SourceValue

TEXT = "TEXT"  # what the header of a text file names as its format
MAX_LABELS = 64  # more values than this are no classes
SOFT_VALUES = 4  # values between the two ends of a two-valued mask that make it a soft one
SOFT_SHARE = 0.1  # of all pixels at most lie between the ends
SOFT_EACH = 0.005  # of all pixels at most have any one value between the ends
MAJOR_COLOR = 0.002  # share of all pixels from which a colour counts as drawn, not as blended
SAME_COLOR = 60  # colours nearer than this to a more frequent one are shades of it
COMPACT = 0.35  # of its bounding box is filled by an object, as a median; a disc fills 0.79

RED, GREEN, BLUE, BLACK = (255, 0, 0), (0, 255, 0), (0, 0, 255), (0, 0, 0)


@dataclass(frozen=True)
class Meaning:
    """Kind and classes; None where a question is open."""

    kind: MaskKind | None
    classes: tuple[ClassRule, ...] | None = None
    ignore_values: tuple[SourceValue, ...] = ()
    questions: tuple[Question, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class Census:
    """The values of all masks that were looked at."""

    looks: tuple[Look, ...]
    pixels: Mapping[int, int]
    total: int
    compactness: float  # median over some masks of `compactness_of`

    @property
    def values(self) -> list[int]:
        """All values that occur, ascending."""
        return sorted(self.pixels)

    def share(self, *values: int) -> float:
        """Share of all pixels that have one of these values."""
        return sum(self.pixels.get(value, 0) for value in values) / max(1, self.total)


def census_of(looks: Sequence[Look], *, compactness: float) -> Census:
    """Values of many masks counted together, as colours where one of them is coloured."""
    color = any(look.is_color for look in looks)
    pixels: Counter[int] = Counter()
    for look in looks:
        for value, count in look.values.items():
            pixels[value * 0x010101 if color and not look.is_color else value] += count
    return Census(tuple(looks), pixels, sum(pixels.values()), compactness)


def meaning_of(census: Census, rules: Rules, *, is_many: bool) -> Meaning:
    """What the masks mean by the rules and, where these leave it open, by the pixels.

    Args:
        census: of the masks that were looked at.
        rules: what is stated there is not inferred.
        is_many: one image has many mask files.
    """
    kind = rules.source.mask_kind or _kind_of(census, rules, is_many=is_many)
    if kind is None:
        return _unclear(census)
    match kind:
        case MaskKind.BINARY | MaskKind.INVERTED | MaskKind.INSTANCE_FILES:
            return _two_valued(census, rules, kind)
        case MaskKind.COLORS:
            return _colors(census)
        case MaskKind.INSTANCES:
            return Meaning(kind, (*_table([0], []), ClassRule(id=1, name="object")))
        case MaskKind.LABEL:
            return _labels(census)
        case MaskKind.TEXT:
            return _text(census)


def _text(census: Census) -> Meaning:
    """Labels as numbers in text; image files are another kind."""
    if all(look.header.format == TEXT for look in census.looks):
        return replace(_labels(census), kind=MaskKind.TEXT)
    note = Finding(
        code="text_masks", severity=Severity.ERROR,
        message="mask_kind is 'text', and the masks are image files",
        remedy="choose another mask_kind, or leave it null to have it inferred",
    )  # fmt: skip
    return Meaning(MaskKind.TEXT, findings=(note,))


def _kind_of(census: Census, rules: Rules, *, is_many: bool) -> MaskKind | None:
    if is_many:
        return MaskKind.INSTANCE_FILES if _is_two_valued(census) else None
    if any(look.header.format == TEXT for look in census.looks):
        return MaskKind.TEXT
    if any(look.is_color for look in census.looks):
        return MaskKind.COLORS
    if rules.source.object_value is not None or len(census.values) <= 2:
        return MaskKind.BINARY
    if _are_instances(census):
        return MaskKind.INSTANCES
    if _is_soft(census):
        return MaskKind.BINARY
    return MaskKind.LABEL if len(census.values) <= MAX_LABELS else None


def _is_two_valued(census: Census) -> bool:
    return len(census.values) <= 2 or _is_soft(census)


def _is_soft(census: Census) -> bool:
    """Two values with blended or rung ones between: many of them, each rare."""
    low, high = _ends(census)
    third = (high - low) / 4
    between = [v for v in census.values if low + third < v < high - third]
    return (
        len([v for v in census.values if low < v < high]) >= SOFT_VALUES
        and census.share(*between) <= SOFT_SHARE
        and all(census.share(v) <= SOFT_EACH for v in between)
        and high - low > MAX_LABELS
    )


def _are_instances(census: Census) -> bool:
    """Numbers from 1 on, of which each is one blob, and as many as the image has objects."""
    if census.compactness < COMPACT:
        return False
    if any(look.dtype == "uint16" for look in census.looks):
        return True
    counts = {look.value_count for look in census.looks}
    is_numbered = all(_is_numbered(look) for look in census.looks)
    return is_numbered and (len(counts) > 1 or len(census.values) > MAX_LABELS)


def _is_numbered(look: Look) -> bool:
    """Few numbers are left out between 0 and the highest."""
    return look.value_count > 0.7 * (max(look.values) + 1)


def _two_valued(census: Census, rules: Rules, kind: MaskKind) -> Meaning:
    low, high = _ends(census)
    findings = _soft_findings(census, low, high)
    chosen = rules.source.object_value
    if chosen is None and kind is MaskKind.INVERTED:
        chosen = low
    if chosen is None and rules.source.mask_kind is None and not _is_plain(census, low, high):
        return Meaning(None, questions=(_which_value(census, low, high),), findings=findings)
    if chosen is not None and chosen not in census.values and len(census.values) > 1:
        findings = (*findings, _absent_value(census, chosen))
    value = high if chosen is None else chosen
    rest = low if value != low else high
    if kind is not MaskKind.INSTANCE_FILES:
        kind = MaskKind.BINARY if value >= rest else MaskKind.INVERTED
    return Meaning(kind, _table([rest], [value]), findings=findings)


def _ends(census: Census) -> tuple[int, int]:
    """The two values; where only one occurs, the other is the usual partner."""
    low, high = census.values[0], census.values[-1]
    if low != high:
        return (0 if _is_near_end(low, high) else low), high
    return (0, 255) if low == 0 else (0, low)


def _is_near_end(low: int, high: int) -> bool:
    return 0 < low < high / 8


def _is_plain(census: Census, low: int, high: int) -> bool:
    """The brighter value covers less than half: it is what was drawn on a background."""
    return census.share(*(value for value in census.values if 2 * value > low + high)) < 0.5


def _which_value(census: Census, low: int, high: int) -> Question:
    bright = census.share(*(value for value in census.values if 2 * value > low + high))
    return Question(
        field="source.object_value",
        why=f"the masks hold {low} and {high}, and {high} covers {bright:.0%} of them: no file "
        f"says which of the two is the object",
        options=(low, high),
    )


def _absent_value(census: Census, value: int) -> Finding:
    return Finding(
        code="absent_object_value", severity=Severity.ERROR,
        message=f"object_value {value} does not occur in the masks, whose values are "
        + ", ".join(map(str, census.values[:10])),
        remedy="correct source.object_value",
    )  # fmt: skip


def _soft_findings(census: Census, low: int, high: int) -> tuple[Finding, ...]:
    between = [value for value in census.values if low < value < high]
    if not between:
        return ()
    return (
        Finding(
            code="soft_masks", severity=Severity.INFO,
            message=f"the masks hold {len(between)} values between {low} and {high} "
            f"({census.share(*between):.2%} of the pixels): each goes to the nearer end",
        ),
    )  # fmt: skip


def _labels(census: Census) -> Meaning:
    """Classes in the order of their values; 255 beyond the others is the ignored border."""
    values = [value for value in census.values if value != 0]
    *ids, last = values or [1]
    if last == 255 and ids and ids[-1] < 128 and len(ids) >= 0.5 * ids[-1]:
        note = Finding(
            code="ignore_value", severity=Severity.INFO,
            message="255 lies apart from the class numbers in the masks: it is taken as ignore",
            remedy="give it a class in the rules if it is one",
        )  # fmt: skip
        return Meaning(MaskKind.LABEL, _numbered(ids), (255,), findings=(note,))
    return Meaning(MaskKind.LABEL, _numbered(values))


def _numbered(values: Sequence[int]) -> tuple[ClassRule, ...]:
    """Background and one class a value; values that can be ids are kept as ids."""
    keep = all(1 <= value < 255 for value in values) and max(values) <= 2 * len(values)
    ids = list(values) if keep else list(range(1, len(values) + 1))
    return _table([0], []) + tuple(
        ClassRule(id=number, name=f"class_{number}", source_values=(value,))
        for number, value in zip(ids, values, strict=True)
    )


def _colors(census: Census) -> Meaning:
    majors = _major_colors(census)
    if {RED, GREEN, BLUE, BLACK} == set(majors):
        return _stained(census)
    if len(majors) > MAX_LABELS:
        return _unclear(census)
    ground = BLACK if BLACK in majors else majors[0]
    others = sorted(color for color in majors if color != ground)
    classes = tuple(
        ClassRule(id=i, name="color_{:02x}{:02x}{:02x}".format(*color), source_values=(color,))
        for i, color in enumerate(others, start=1)
    )
    return Meaning(
        MaskKind.COLORS,
        (ClassRule(id=0, name="background", source_values=(ground,)), *classes),
        findings=_blend_findings(census, majors),
    )


def _stained(census: Census) -> Meaning:
    """The palette of immunohistochemistry: red positive, blue negative, green the boundary."""
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
    blends = _blend_findings(census, [RED, GREEN, BLUE, BLACK])
    return Meaning(MaskKind.COLORS, classes, (GREEN,), findings=(note, *blends))


def _major_colors(census: Census) -> list[tuple[int, int, int]]:
    """Colours that were drawn, the most frequent first; shades of one count as it."""
    majors: list[tuple[int, int, int]] = []
    for value, _ in sorted(census.pixels.items(), key=lambda item: (-item[1], item[0])):
        color = unpack(value)
        if census.share(value) < MAJOR_COLOR:
            break
        if all(_distance(color, major) >= SAME_COLOR for major in majors):
            majors.append(color)
    return majors


def _distance(one: tuple[int, int, int], other: tuple[int, int, int]) -> float:
    return math.dist(one, other)


def _blend_findings(census: Census, majors: Sequence[tuple[int, int, int]]) -> tuple[Finding, ...]:
    blends = [value for value in census.values if unpack(value) not in majors]
    if not blends:
        return ()
    return (
        Finding(
            code="blended_colors", severity=Severity.INFO,
            message=f"{len(blends)} further colours ({census.share(*blends):.2%} of the pixels) "
            "go to the nearest class",
        ),
    )  # fmt: skip


def _table(background: list[SourceValue], objects: list[SourceValue]) -> tuple[ClassRule, ...]:
    ground = ClassRule(id=0, name="background", source_values=tuple(background))
    if not objects:
        return (ground,)
    return (ground, ClassRule(id=1, name="object", source_values=tuple(objects)))


def _unclear(census: Census) -> Meaning:
    count = len(census.values)
    question = Question(
        field="source.mask_kind",
        why=f"the masks hold {count} different values, which fits no kind beyond doubt",
        options=tuple(kind.value for kind in MaskKind if kind is not MaskKind.TEXT),
    )
    return Meaning(None, questions=(question,))
