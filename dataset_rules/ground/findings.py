"""Results of examining a source: findings, and questions that only a person can answer."""

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from enum import StrEnum
from typing import Any

from dataset_rules.ground.documents import Document

MAX_LISTED_PATHS = 20  # in a message; the finding itself contains all of them


class Severity(StrEnum):
    """How much a finding matters: an error stops `format`, a warning does not."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Finding(Document):
    """One issue to report; paths are relative to the source.

    It is based on `looked_at` out of `of` files of its kind. Both are null if it is based on file
    names alone, or exactly on the files in `paths`.
    """

    code: str
    severity: Severity
    paths: tuple[str, ...] = ()
    message: str
    remedy: str = ""
    looked_at: int | None = None
    of: int | None = None

    def line(self) -> str:
        """The finding as one sentence with its first paths."""
        places = f" ({join_limited(self.paths, MAX_LISTED_PATHS, ', ')})" if self.paths else ""
        return f"{self.message}{places}" + (f"; {self.remedy}" if self.remedy else "")


class Question(Document):
    """A field of the rules that cannot be inferred from the files."""

    field: str
    why: str
    options: tuple[Any, ...] = ()

    def answers(self) -> list[str]:
        """For each option, the line to add to the rules."""
        *parents, leaf = self.field.split(".")
        lines = []
        for option in self.options:
            value: Any = option if isinstance(option, dict) else {leaf: option}
            for parent in reversed(parents):
                value = {parent: value}
            lines.append(json.dumps(value)[1:-1])
        return lines


_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


def sort_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Findings sorted by severity, worst first, independent of their original order."""
    return tuple(sorted(findings, key=lambda f: (_ORDER[f.severity], f.code, f.paths, f.message)))


def join_limited(texts: Sequence[str], limit: int, separator: str) -> str:
    """Join the first `limit` texts and state how many more there are."""
    more = len(texts) - limit
    return separator.join(texts[:limit]) + (f" and {more} more" if more > 0 else "")


def counted(number: int, noun: str) -> str:
    """`1 image`, `2 images`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def merge_findings(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    """Merge findings that differ only in their paths."""
    alike: dict[Finding, list[str]] = defaultdict(list)
    for finding in findings:
        alike[finding.model_copy(update={"paths": ()})] += finding.paths
    return tuple(
        finding.model_copy(update={"paths": tuple(sorted(paths))})
        for finding, paths in alike.items()
    )


def errors_in(findings: Iterable[Finding]) -> list[Finding]:
    """The findings that stop `format`."""
    return [finding for finding in findings if finding.severity is Severity.ERROR]
