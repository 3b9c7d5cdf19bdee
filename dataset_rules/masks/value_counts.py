"""The values of all masks counted together, and what is said of their meaning."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dataset_rules.ground.findings import Finding, Question
from dataset_rules.masks.profile import Look
from dataset_rules.rules.fields import ClassRule, MaskKind, SourceValue

MAX_LABELS = 64  # more values than this are no classes


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


def unclear(census: Census) -> Meaning:
    """The question that is asked where the values fit no kind."""
    count = len(census.values)
    question = Question(
        field="source.mask_kind",
        why=f"the masks hold {count} different values, which fits no kind beyond doubt",
        options=tuple(kind.value for kind in MaskKind if kind is not MaskKind.TEXT),
    )
    return Meaning(None, questions=(question,))
