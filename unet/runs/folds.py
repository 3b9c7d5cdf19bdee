"""Folds: samples held out together, so that no tissue is both trained and scored on.

A group is the tissue, patient or slide of a sample (`split.group` of the rules). Groups of equal
name are the same tissue, in any dataset; a rule can merge several names into one tissue.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, ValidationError, model_validator

from dataset_rules.artifacts.dataset import DatasetClass, Sample, Split, read_dataset
from dataset_rules.ground.documents import Document
from unet.errors import UnetError
from unet.planning.fingerprint import unseen_classes

LocatedSample = tuple[Path, Sample]  # a sample and its dataset's folder

MAX_FOLDS = 100
MAX_SALTS = 10_000  # 20 groups fill 20 folds by chance once in 43 million


class FoldRule(Document):
    """How groups are assigned to folds: explicitly, or by hash."""

    count: int = Field(ge=2, le=MAX_FOLDS)
    seed: int = Field(default=0, ge=0)
    same: dict[str, tuple[str, ...]] = Field(
        default_factory=dict,
        description="tissue -> groups of that tissue, in any dataset; they stay together",
    )
    groups: tuple[tuple[str, ...], ...] = Field(
        default=(), description="groups or tissues per fold; others are assigned by hash"
    )
    training: tuple[str, ...] = Field(
        default=(), description="groups or tissues to train on in every fold"
    )

    @model_validator(mode="after")
    def _check_unique_names(self) -> Self:
        if len(self.groups) > self.count:
            raise ValueError(f"groups has {len(self.groups)} lists for {self.count} folds")
        joined = [group for groups in self.same.values() for group in groups]
        placed = [group for groups in (*self.groups, self.training) for group in groups]
        for where, names in (("same", joined), ("groups and training", placed)):
            duplicates = [name for name, count in Counter(names).items() if count > 1]
            if duplicates:
                raise ValueError(
                    f"listed more than once in {where}: {', '.join(sorted(duplicates))}"
                )
        return self

    def tissue_of(self, group: str) -> str:
        """The tissue of a group: its own name, unless the rule merges it."""
        listed = (tissue for tissue, groups in self.same.items() if group in groups)
        return next(listed, group)


@dataclass(frozen=True)
class Fold:
    """One fold: trained without its held-out samples, scored on them."""

    number: int
    training: tuple[LocatedSample, ...]
    held_out: tuple[LocatedSample, ...]
    tissues: tuple[str, ...]  # of the held-out samples


@dataclass(frozen=True)
class Folds:
    """All folds of some datasets, and the samples excluded from them."""

    folds: tuple[Fold, ...]
    left_out: tuple[LocatedSample, ...]  # not in a test split, but of a tissue that is

    def document(self) -> dict[str, Any]:
        """Names of groups and samples per fold; `groups` has the format of a rule's."""
        return {
            "groups": [list(fold.tissues) for fold in self.folds],
            "held_out": [[sample.name for _, sample in fold.held_out] for fold in self.folds],
            "training": [[sample.name for _, sample in fold.training] for fold in self.folds],
            "left_out": [sample.name for _, sample in self.left_out],
        }


def read_fold_rule(text: str) -> FoldRule:
    """Read the value of `--folds`: a number, or a JSON file with a rule.

    Raises:
        UnetError: if it is neither; lists all mistakes.
    """
    try:
        data = {"count": int(text)} if text.isdigit() else json.loads(Path(text).read_text("utf-8"))
        return FoldRule.model_validate(data)
    except ValidationError as error:
        mistakes = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'the rule'}: {item['msg']}"
            for item in error.errors()
        )
        raise UnetError(
            f"the folds are invalid: {mistakes}", where=f"--folds {text}",
            expected=f"2 to {MAX_FOLDS}, or a file such as "
            '{"count": 4, "same": {"slide 7": ["img_1", "img_2"]}}',
        ) from error  # fmt: skip
    except (OSError, ValueError) as error:
        raise UnetError(
            "the folds cannot be read", where=f"--folds {text}",
            expected="a number of folds, or a JSON file",
            found=getattr(error, "strerror", None) or str(error),
        ) from error  # fmt: skip


def make_folds(folders: Sequence[Path], rule: FoldRule) -> Folds:
    """The folds of all samples outside test splits.

    A group's fold depends on its own name only, so that adding samples moves no others. If that
    leaves a fold empty, which happens with few groups, all are assigned anew.

    Raises:
        UnetError: if there are fewer groups than folds, or the rule lists unknown groups.
    """
    samples = [(folder, sample) for folder in folders for sample in read_dataset(folder).samples]
    tissues = {sample.group: rule.tissue_of(sample.group) for _, sample in samples}
    _refuse_unknown(rule, tissues)
    tested = {tissues[s.group] for _, s in samples if s.split is Split.TEST}
    usable = [item for item in samples if item[1].split is not Split.TEST]
    left_out = tuple(item for item in usable if tissues[item[1].group] in tested)
    assigned = [item for item in usable if tissues[item[1].group] not in tested]
    fold_of = _assign_folds({tissues[s.group] for _, s in assigned}, rule)
    folds = tuple(_fold(number, assigned, tissues, fold_of) for number in range(rule.count))
    return Folds(folds, left_out)


def _fold(
    number: int,
    samples: Sequence[LocatedSample],
    tissues: Mapping[str, str],
    fold_of: Mapping[str, int],
) -> Fold:
    def is_held_out(item: LocatedSample) -> bool:
        return fold_of.get(tissues[item[1].group]) == number

    held_out = _interleave([item for item in samples if is_held_out(item)])
    return Fold(
        number,
        tuple(item for item in samples if not is_held_out(item)),
        held_out,
        tuple(sorted({tissues[sample.group] for _, sample in held_out})),
    )


def _interleave(samples: Sequence[LocatedSample]) -> tuple[LocatedSample, ...]:
    """Interleave the datasets' samples, because a validation may use only the first ones."""
    counts: Counter[Path] = Counter()
    rounds = []
    for folder, _ in samples:
        rounds.append(counts[folder])
        counts[folder] += 1
    order = sorted(range(len(samples)), key=lambda i: (rounds[i], i))
    return tuple(samples[i] for i in order)


def _assign_folds(tissues: Iterable[str], rule: FoldRule) -> dict[str, int]:
    """The fold of each tissue, except those always trained on."""
    always = {rule.tissue_of(name) for name in rule.training}
    names = sorted(set(tissues) - always)
    stated = {
        rule.tissue_of(name): number for number, row in enumerate(rule.groups) for name in row
    }
    if len(names) < rule.count:
        raise UnetError(
            "there are fewer groups than folds", expected=f"at least {rule.count} groups outside "
            "the test split", found=f"{len(names)}: {', '.join(names[:8])}",
            remedy="use fewer folds; a group is one tissue, patient or slide and is never split",
        )  # fmt: skip
    for salt in range(MAX_SALTS):
        fold_of = {name: stated.get(name, _fold_by_hash(name, rule, salt)) for name in names}
        if len(set(fold_of.values())) == rule.count:
            return fold_of
    raise UnetError(
        "assignment by hash leaves some folds empty", expected=f"{rule.count} folds",
        found=f"{len(names)} groups", remedy="list the folds in a file with 'groups'",
    )  # fmt: skip


def _fold_by_hash(tissue: str, rule: FoldRule, salt: int) -> int:
    digest = hashlib.sha256(f"{rule.seed}:{salt}:{tissue}".encode()).digest()
    return int.from_bytes(digest[:8], "big") * rule.count >> 64


def _refuse_unknown(rule: FoldRule, tissues: Mapping[str, str]) -> None:
    """Refuse unknown names: a typo would put a tissue both in training and held-out samples."""
    known = tissues.keys() | rule.same.keys()
    listed = {name for row in (*rule.groups, rule.training, *rule.same.values()) for name in row}
    if unknown := sorted(listed - known):
        raise UnetError(
            "the folds list groups that are in no dataset", found=", ".join(unknown[:8]),
            expected="groups of dataset.json such as " + ", ".join(sorted(tissues)[:4]),
            remedy="`unetops plan DATASET... --folds FILE` lists the folds",
        )  # fmt: skip


def refuse_unseen_classes_in_folds(folds: Folds, classes: Sequence[DatasetClass]) -> None:
    """Refuse folds that would be scored on a class they were not trained on."""
    for fold in folds.folds:
        if unseen := unseen_classes(classes, fold.training):
            raise UnetError(
                "a class has no pixels in the training samples of a fold",
                where=f"fold {fold.number}, which holds out {', '.join(fold.tissues[:8])}",
                found=", ".join(f"none of class {c.id} {c.name}" for c in unseen),
                remedy="distribute its groups over several folds ('groups' in the file of "
                "--folds), or train on them in every fold ('training')",
            )  # fmt: skip
