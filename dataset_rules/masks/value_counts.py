"""Value counts over all masks, and the meaning inferred from them."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataset_rules.ground.findings import Finding, Question
from dataset_rules.masks.profile import FileProfile
from dataset_rules.rules.fields import ClassRule, MaskKind, SourceValue

MAX_LABELS = 64  # more distinct values than this cannot be classes


@dataclass(frozen=True)
class Meaning:
    """Mask kind and classes; None while a question is open."""

    kind: MaskKind | None
    classes: tuple[ClassRule, ...] | None = None
    ignore_values: tuple[SourceValue, ...] = ()
    questions: tuple[Question, ...] = ()
    findings: tuple[Finding, ...] = ()


@dataclass(frozen=True)
class ValueCounts:
    """Value counts of all masks that were read."""

    profiles: tuple[FileProfile, ...]
    pixels: Mapping[int, int]
    total: int
    compactness: float  # median of `compactness_of` over some of the masks

    @property
    def values(self) -> list[int]:
        """All values that occur, ascending."""
        return sorted(self.pixels)

    def share(self, *values: int) -> float:
        """Share of all pixels with one of these values."""
        return sum(self.pixels.get(value, 0) for value in values) / max(1, self.total)


def count_values(profiles: Sequence[FileProfile], *, compactness: float) -> ValueCounts:
    """Count the values of many masks, as colours if any of them is coloured."""
    color = any(profile.is_color for profile in profiles)
    pixels: Counter[int] = Counter()
    for profile in profiles:
        for value, count in profile.values.items():
            pixels[value * 0x010101 if color and not profile.is_color else value] += count
    return ValueCounts(tuple(profiles), pixels, sum(pixels.values()), compactness)


def unclear_meaning(counts: ValueCounts) -> Meaning:
    """The question to ask if the values fit no mask kind."""
    count = len(counts.values)
    question = Question(
        field="source.mask_kind",
        why=f"the masks contain {count} different values, which clearly fits no mask kind",
        options=tuple(kind.value for kind in MaskKind if kind is not MaskKind.TEXT),
    )
    return Meaning(None, questions=(question,))
