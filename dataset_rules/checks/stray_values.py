"""Mask values far from every class, which the rules would map to the nearest one."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from math import dist

from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.colors import SAME_COLOR
from dataset_rules.masks.profile import FileProfile
from dataset_rules.pixels.values import unpack_color
from dataset_rules.rules.fields import MaskKind, SourceValue
from dataset_rules.rules.rules import Rules

MIN_SHARE = 0.005  # of the pixels of a mask; any one value of a blended edge is rarer
NEAREST = {MaskKind.BINARY, MaskKind.INVERTED, MaskKind.INSTANCE_FILES, MaskKind.COLORS}


def check_stray_values(
    profiles: Mapping[str, FileProfile], rules: Rules, *, of: int
) -> list[Finding]:
    """A finding on the masks in which a value far from every class is frequent.

    Args:
        profiles: mask path -> its profile.
        rules: with mask kind and classes.
        of: number of masks in the source.
    """
    table = [v for rule in rules.classes or () for v in rule.source_values]
    table += rules.ignore_values
    if rules.source.mask_kind not in NEAREST or len(table) < 2:
        return []
    far = {path: found for path, profile in profiles.items() if (found := _far_in(profile, table))}
    if not far:
        return []
    values = sorted({value for found in far.values() for value in found})
    return [
        Finding(
            code="stray_values", severity=Severity.WARNING, paths=tuple(sorted(far)),
            message=f"{counted(len(far), 'mask')} with values far from every class: "
            + ", ".join(map(_named, values[:10], [profiles[next(iter(far))].is_color] * 10)),
            remedy="give them a class in the rules or list them in ignore_values; as it is, each "
            "goes to the nearest class",
            looked_at=len(profiles), of=of,
        )
    ]  # fmt: skip


def _far_in(profile: FileProfile, table: Sequence[SourceValue]) -> list[int]:
    """Frequent values that are neither a blend of two classes nor a shade of one."""
    total = profile.size_px[0] * profile.size_px[1]
    frequent = [value for value, count in profile.values.items() if count >= MIN_SHARE * total]
    if profile.is_color:
        points = [point if isinstance(point, tuple) else (point,) * 3 for point in table]
        return [
            v
            for v in frequent
            if min(dist(unpack_color(v), point) for point in points) > SAME_COLOR
        ]
    known = sorted(value for value in table if isinstance(value, int))
    if len(known) < 2:
        return []
    slack = min(b - a for a, b in pairwise(known)) / 4
    return [v for v in frequent if min(abs(v - value) for value in known) > slack]


def _named(value: int, is_color: bool) -> str:
    return "#{:02x}{:02x}{:02x}".format(*unpack_color(value)) if is_color else str(value)
