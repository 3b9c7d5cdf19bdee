"""Names that are easily taken for each other: on other disks, or by their beginnings."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence

from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.pairing.groups import stem_of
from dataset_rules.pairing.pairs import Pairing

MAX_SUGGESTED = 20  # near partners that are spelled out


def check_names(paths: Sequence[str], pairing: Pairing) -> list[Finding]:
    """All findings that the names alone give."""
    return [
        *_equal_on_other_disks(paths),
        *_nearly_partners(pairing),
        *_beginnings([pair.image for pair in pairing.pairs]),
    ]


def _folded(path: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


def _equal_on_other_disks(paths: Iterable[str]) -> list[Finding]:
    """Paths that Windows and macOS take for one: unpacked there, one file overwrites the other."""
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


def _nearly_partners(pairing: Pairing) -> list[Finding]:
    """Images and masks that are left over and would pair if case or accents did not count."""
    masks: dict[str, list[str]] = defaultdict(list)
    for path in pairing.unpaired_masks:
        for name in _with_words_cut(_folded(stem_of(path))):
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


def _with_words_cut(stem: str) -> list[str]:
    """A name, and it without the words at its end or at its beginning."""
    signs = [match.start() for match in re.finditer("[_. -]", stem)]
    return [stem, *(stem[:sign] for sign in signs), *(stem[sign + 1 :] for sign in signs)]


def _beginnings(images: Iterable[str]) -> list[Finding]:
    """Names that begin with another whole name: readers that search for `1` find `10` as well."""
    stems: dict[str, set[str]] = defaultdict(set)
    for path in images:
        stems[path.rpartition("/")[0]].add(stem_of(path))
    clashes = [clash for names in stems.values() for clash in _begun(sorted(names))]
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


def _begun(names: Sequence[str]) -> list[tuple[str, str]]:
    """Each name that goes on where another ends, with the longest such other."""
    found = []
    open_names: list[str] = []
    for name in names:  # sorted: all that begin with a name follow it
        while open_names and not name.startswith(open_names[-1]):
            open_names.pop()
        if open_names:
            found.append((open_names[-1], name))
        open_names.append(name)
    return found
