"""Names that are easily confused: on other file systems, or by a common prefix."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.pairing.groups import stem_of
from dataset_rules.pairing.pairs import Pairing

MAX_SUGGESTED = 20  # near matches in a message


def check_names(paths: Sequence[str], pairing: Pairing) -> list[Finding]:
    """All findings on the names alone."""
    return [
        *_case_collisions(paths),
        *_near_matches(pairing),
        *_prefix_names([pair.image for pair in pairing.pairs]),
    ]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _case_collisions(paths: Iterable[str]) -> list[Finding]:
    """Paths that are equal on Windows and macOS: unpacked there, one file overwrites the other."""
    groups: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        groups[_folded(path)].append(path)
    clashing = tuple(path for group in groups.values() if len(group) > 1 for path in sorted(group))
    if not clashing:
        return []
    return [
        Finding(
            code="name_clash", severity=Severity.WARNING, paths=clashing,
            message=f"{len(clashing)} files differ from another in nothing but upper and lower "
            "case or the way accents are stored: on many disks they are one file",
            remedy="rename them",
        )
    ]  # fmt: skip


def _near_matches(pairing: Pairing) -> list[Finding]:
    """Unpaired images and masks that would pair if case and accent encoding were ignored."""
    masks: dict[str, list[str]] = defaultdict(list)
    for path in pairing.unpaired_masks:
        for name in _with_affixes_removed(_folded(stem_of(path))):
            masks[name].append(path)
    found = [
        (image, mask)
        for image in pairing.unpaired_images
        for mask in masks.get(_folded(stem_of(image)), ())
    ]
    if not found:
        return []
    return [
        Finding(
            code="nearly_partners", severity=Severity.WARNING,
            paths=tuple(path for pair in found for path in pair),
            message=f"{counted(len(found), 'image')} would have a mask if upper and lower case did "
            "not count: " + "; ".join(f"{a} with {b}" for a, b in found[:MAX_SUGGESTED]),
            remedy="rename one of each two, if they belong together",
        )
    ]  # fmt: skip


def _with_affixes_removed(stem: str) -> list[str]:
    """The name, and the name without leading or trailing words."""
    cuts = [match.start() for match in re.finditer("[_. -]", stem)]
    return [stem, *(stem[:cut] for cut in cuts), *(stem[cut + 1 :] for cut in cuts)]


def _prefix_names(images: Iterable[str]) -> list[Finding]:
    """Names that start with another whole name: a tool that searches for `1` also finds `10`."""
    stems: dict[str, set[str]] = defaultdict(set)
    for path in images:
        stems[path.rpartition("/")[0]].add(stem_of(path))
    clashes = [clash for names in stems.values() for clash in _prefix_pairs(sorted(names))]
    if not clashes:
        return []
    short, long = clashes[0]
    return [
        Finding(
            code="prefix_names", severity=Severity.INFO,
            message=f"{counted(len(clashes), 'name')} of images begin with the whole name of "
            f"another ({short} and {long}): here names are compared as wholes, other programs "
            "may take one for the other",
            remedy="nothing here; elsewhere give numbers leading zeros",
        )
    ]  # fmt: skip


def _prefix_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each name that starts with another one, with the longest such prefix."""
    found = []
    open_names: list[str] = []
    for name in names:  # sorted: all names with this prefix follow it
        while open_names and not name.startswith(open_names[-1]):
            open_names.pop()
        if open_names:
            found.append((open_names[-1], name))
        open_names.append(name)
    return found
