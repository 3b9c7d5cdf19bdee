"""Infer what the mask values of a source mean: the mask kind and the class of each value."""

from collections.abc import Sequence
from dataclasses import replace

from dataset_rules.ground.findings import Finding, Question, Severity
from dataset_rules.masks.colors import meaning_of_colors
from dataset_rules.masks.decode import JPEG_GAP
from dataset_rules.masks.profile import FileProfile
from dataset_rules.masks.value_counts import MAX_LABELS, Meaning, ValueCounts, unclear_meaning
from dataset_rules.rules.fields import ClassRule, MaskKind, SourceValue
from dataset_rules.rules.rules import Rules

TEXT = "TEXT"  # format in the header of a text file
MIN_SOFT_VALUES = 4  # values between the two extremes that make a two-valued mask soft
MAX_SOFT_SHARE = 0.1  # of all pixels: those between the extremes
MAX_SOFT_EACH = 0.005  # of all pixels: those of any one value between the extremes
MIN_LEVEL_SHARE = 0.01  # of all pixels; rarer grey values of a JPEG do not count as drawn
MIN_NEAR_LEVELS = 0.85  # of all pixels: those close to a drawn value
MIN_COMPACTNESS = 0.35  # median share of its bounding box that an object fills; a disc fills 0.79


def meaning_of(counts: ValueCounts, rules: Rules, *, is_many: bool) -> Meaning:
    """Take the meaning of the masks from the rules, and the rest from the pixels.

    Args:
        counts: value counts of the masks that were read.
        rules: what they specify is not inferred.
        is_many: one image has many mask files.
    """
    kind = rules.source.mask_kind or _kind_of(counts, rules, is_many=is_many)
    if kind is None:
        return unclear_meaning(counts)
    match kind:
        case MaskKind.BINARY | MaskKind.INVERTED | MaskKind.INSTANCE_FILES:
            return _two_valued(counts, rules, kind)
        case MaskKind.COLORS:
            return meaning_of_colors(counts)
        case MaskKind.INSTANCES:
            return Meaning(kind, (*_table([0], []), ClassRule(id=1, name="object")))
        case MaskKind.LABEL:
            return _labels(counts)
        case MaskKind.TEXT:
            return _text(counts)


def _text(counts: ValueCounts) -> Meaning:
    """Labels as numbers in text files; an ERROR finding if the masks are image files."""
    if all(profile.header.format == TEXT for profile in counts.profiles):
        return replace(_labels(counts), kind=MaskKind.TEXT)
    note = Finding(
        code="text_masks", severity=Severity.ERROR,
        message="mask_kind is 'text', but the masks are image files",
        remedy="choose another mask_kind, or leave it null to have it inferred",
    )  # fmt: skip
    return Meaning(MaskKind.TEXT, findings=(note,))


def _kind_of(counts: ValueCounts, rules: Rules, *, is_many: bool) -> MaskKind | None:
    if is_many:
        return MaskKind.INSTANCE_FILES if _is_two_valued(counts) else None
    if any(profile.header.format == TEXT for profile in counts.profiles):
        return MaskKind.TEXT
    if any(profile.is_color for profile in counts.profiles):
        return MaskKind.COLORS
    if rules.source.object_value is not None or len(counts.values) <= 2:
        return MaskKind.BINARY
    if _are_instances(counts):
        return MaskKind.INSTANCES
    if _is_soft(counts):
        return MaskKind.BINARY
    if _are_jpegs(counts) and drawn_levels(counts):
        return MaskKind.LABEL
    return MaskKind.LABEL if len(counts.values) <= MAX_LABELS else None


def _is_two_valued(counts: ValueCounts) -> bool:
    return len(counts.values) <= 2 or _is_soft(counts)


def _is_soft(counts: ValueCounts) -> bool:
    """Two values with many rare ones in between, from blending or JPEG ringing."""
    low, high = _ends(counts)
    third = (high - low) / 4
    between = [v for v in counts.values if low + third < v < high - third]
    return (
        len([v for v in counts.values if low < v < high]) >= MIN_SOFT_VALUES
        and counts.share(*between) <= MAX_SOFT_SHARE
        and all(counts.share(v) <= MAX_SOFT_EACH for v in between)
        and high - low > MAX_LABELS
    )


def _are_instances(counts: ValueCounts) -> bool:
    """Consecutive numbers from 1, each a single blob, whose count varies between images."""
    if counts.compactness < MIN_COMPACTNESS:
        return False
    if any(profile.dtype == "uint16" for profile in counts.profiles):
        return True
    value_counts = {profile.value_count for profile in counts.profiles}
    is_numbered = all(_is_numbered(profile) for profile in counts.profiles)
    return is_numbered and (len(value_counts) > 1 or len(counts.values) > MAX_LABELS)


def _are_jpegs(counts: ValueCounts) -> bool:
    return any(profile.header.format == "JPEG" for profile in counts.profiles)


def drawn_levels(counts: ValueCounts) -> list[int]:
    """The grey values that were drawn before JPEG compression; empty if unclear_meaning.

    They are frequent and far apart, and nearly all other values are close to one of them.
    """
    if not _are_jpegs(counts):
        return []
    levels: list[int] = []
    for value in sorted(counts.values, key=lambda value: -counts.share(value)):
        if counts.share(value) < MIN_LEVEL_SHARE:
            break
        if all(abs(value - level) >= JPEG_GAP for level in levels):
            levels.append(value)
    near = [v for v in counts.values if any(abs(v - level) <= JPEG_GAP // 4 for level in levels)]
    is_drawn = len(levels) > 2 and counts.share(*near) >= MIN_NEAR_LEVELS
    return sorted(_snapped(level) for level in levels) if is_drawn else []


def _snapped(level: int) -> int:
    """Values that JPEG moved slightly off 0 or 255 snap back."""
    return 0 if level <= JPEG_GAP // 4 else 255 if level >= 255 - JPEG_GAP // 4 else level


def _is_numbered(profile: FileProfile) -> bool:
    """True if few numbers between 0 and the highest are missing."""
    return profile.value_count > 0.7 * (max(profile.values) + 1)


def _two_valued(counts: ValueCounts, rules: Rules, kind: MaskKind) -> Meaning:
    low, high = _ends(counts)
    findings = _soft_findings(counts, low, high)
    chosen = rules.source.object_value
    if chosen is None and kind is MaskKind.INVERTED:
        chosen = low
    if chosen is None and rules.source.mask_kind is None and not _is_plain(counts, low, high):
        return Meaning(None, questions=(_which_value(counts, low, high),), findings=findings)
    if chosen is not None and chosen not in counts.values and len(counts.values) > 1:
        findings = (*findings, _absent_value(counts, chosen))
    value = high if chosen is None else chosen
    rest = low if value != low else high
    if kind is not MaskKind.INSTANCE_FILES:
        kind = MaskKind.BINARY if value >= rest else MaskKind.INVERTED
    return Meaning(kind, _table([rest], [value]), findings=findings)


def _ends(counts: ValueCounts) -> tuple[int, int]:
    """The lowest and the highest value; if only one occurs, its usual partner is added."""
    low, high = counts.values[0], counts.values[-1]
    if low != high:
        return (0 if _is_near_end(low, high) else low), high
    return (0, 255) if low == 0 else (0, low)


def _is_near_end(low: int, high: int) -> bool:
    return 0 < low < high / 8


def _is_plain(counts: ValueCounts, low: int, high: int) -> bool:
    """True if the brighter value covers less than half: it is the object, not the background."""
    return counts.share(*(value for value in counts.values if 2 * value > low + high)) < 0.5


def _which_value(counts: ValueCounts, low: int, high: int) -> Question:
    bright = counts.share(*(value for value in counts.values if 2 * value > low + high))
    return Question(
        field="source.object_value",
        why=f"the masks contain {low} and {high}, and {high} covers {bright:.0%} of the pixels: "
        f"no file says which of the two is the object",
        options=(low, high),
    )


def _absent_value(counts: ValueCounts, value: int) -> Finding:
    return Finding(
        code="absent_object_value", severity=Severity.ERROR,
        message=f"object_value {value} does not occur in the masks; their values are "
        + ", ".join(map(str, counts.values[:10])),
        remedy="correct source.object_value",
    )  # fmt: skip


def _soft_findings(counts: ValueCounts, low: int, high: int) -> tuple[Finding, ...]:
    between = [value for value in counts.values if low < value < high]
    if not between:
        return ()
    return (
        Finding(
            code="soft_masks", severity=Severity.INFO,
            message=f"the masks hold {len(between)} values between {low} and {high} "
            f"({counts.share(*between):.2%} of the pixels): each goes to the nearer end",
        ),
    )  # fmt: skip


def _labels(counts: ValueCounts) -> Meaning:
    """Classes in the order of their values; 255 far above the others is the ignored border."""
    values = [value for value in drawn_levels(counts) or counts.values if value != 0]
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
    """Background and one class per value; values that are valid ids are kept as ids."""
    keep = all(1 <= value < 255 for value in values) and max(values) <= 2 * len(values)
    ids = list(values) if keep else list(range(1, len(values) + 1))
    return _table([0], []) + tuple(
        ClassRule(id=number, name=f"class_{number}", source_values=(value,))
        for number, value in zip(ids, values, strict=True)
    )


def _table(background: list[SourceValue], objects: list[SourceValue]) -> tuple[ClassRule, ...]:
    ground = ClassRule(id=0, name="background", source_values=tuple(background))
    if not objects:
        return (ground,)
    return (ground, ClassRule(id=1, name="object", source_values=tuple(objects)))
