"""Copies of an image in different splits, and predefined splits of a source."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from dataset_rules.artifacts.dataset import Split
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.pairing.keywords import words_of

_SPLIT = re.compile(
    r"(train|training|val|valid|validation|test|testing)"
    r"(set|data|annot|images?|imgs?|masks?|labels?|x|y)?"
)
_SHORT = {"tr": Split.TRAIN, "va": Split.VAL, "te": Split.TEST}


def predefined_split(path: str) -> Split | None:
    """The split indicated by a folder in the path.

    >>> predefined_split("CamVid/trainannot/1.png")
    <Split.TRAIN: 'train'>
    """
    for segment in reversed(path.split("/")[:-1]):
        for word in words_of(segment):
            if _SPLIT.fullmatch(word):
                return _SHORT[word[:2]]
    return None


def check_predefined_splits(splits: Mapping[str, Split]) -> list[Finding]:
    """A finding if the source has predefined splits and the rules assign different ones.

    Args:
        splits: image path of each pair -> its split by the rules.
    """
    own = {path: split for path in splits if (split := predefined_split(path)) is not None}
    if len(set(own.values())) < 2 or all(splits[path] is split for path, split in own.items()):
        return []
    counts = Counter(own.values())
    sizes = ", ".join(f"{split} {counts[split]}" for split in Split if split in counts)
    return [
        Finding(
            code="own_splits", severity=Severity.WARNING,
            paths=tuple(path for path in sorted(own) if splits[path] is not own[path]),
            message=f"the source comes with splits of its own ({sizes}), and the rules split anew: "
            "results cannot be compared with those on the source's splits",
            remedy="list the samples of each split in split.groups to keep them",
        )
    ]  # fmt: skip


def check_leaks(groups: Iterable[Sequence[str]], splits: Mapping[str, Split]) -> list[Finding]:
    """Groups of copies that are spread over several splits, the rules' or the source's own.

    Args:
        groups: paths of duplicate images.
        splits: image path of each pair -> its split by the rules.
    """
    within, among = [], []
    for group in groups:
        if len({own for path in group if (own := predefined_split(path))}) > 1:
            within.append(group)
        if len({splits[path] for path in group if path in splits}) > 1:
            among.append(group)
    return [
        *_leak(within, "lie in several of the source's own splits (train, val, test)",
               "scores on such a test split are too good: exclude the copies"),
        *_leak(among, "fall into different splits of the dataset",
               "give the copies one group (split.group), or exclude all but one"),
    ]  # fmt: skip


def _leak(groups: Sequence[Sequence[str]], what: str, remedy: str) -> list[Finding]:
    if not groups:
        return []
    return [
        Finding(
            code="leak", severity=Severity.WARNING,
            paths=tuple(path for group in groups for path in group),
            message=f"{counted(len(groups), 'picture')} with copies that {what}", remedy=remedy,
        )
    ]  # fmt: skip
