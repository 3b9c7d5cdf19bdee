"""Exclusions once the pairs are known: multi-page stacks, unlisted files, images without a mask."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.profile import PHOTOGRAPH, FileProfile, Profiler
from dataset_rules.pairing.file_lists import read_list
from dataset_rules.pairing.keywords import Role, roles_in
from dataset_rules.pairing.pairs import Pair, Pairing
from dataset_rules.pixels.images import read_header
from dataset_rules.rules.rules import Rules
from dataset_rules.sources.files import Files
from dataset_rules.sources.inventory import Entry, Kind

MAX_NEIGHBOURS = 400  # unmatched files next to paired images that are decoded

_MULTI_PAGE = (".tif", ".tiff")  # suffixes of files that may have several pages


@dataclass(frozen=True)
class Exclusions:
    """The readable pairs, and the excluded files: stacks, and files that are in no list."""

    pairing: Pairing
    stacks: tuple[str, ...] = ()
    unlisted: tuple[str, ...] = ()
    findings: tuple[Finding, ...] = ()

    def updated_entries(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """The entries, with left-out files marked as excluded and used text masks as images."""
        out = {*self.stacks, *self.unlisted}
        used = {path for pair in self.pairing.pairs for path in pair.masks}
        return tuple(
            replace(entry, kind=Kind.EXCLUDED) if entry.path in out
            else replace(entry, kind=Kind.IMAGE) if entry.path in used
            else entry
            for entry in entries
        )  # fmt: skip


def apply_exclusions(
    folder: Files, pairing: Pairing, profile: Profiler, rules: Rules
) -> Exclusions:
    """Exclude stacks and unlisted files; count photographs next to paired images as unpaired.

    If only stacks are paired, they stay: no dataset is possible then, and each is an error.
    """
    listed, unlisted = _listed(folder, pairing, rules)
    pages = _pages_of(folder, [path for pair in listed.pairs for path in _paths_of(pair)])
    kept = tuple(pair for pair in listed.pairs if pages.keys().isdisjoint(_paths_of(pair)))
    if not kept:
        return Exclusions(listed, unlisted=unlisted)
    deep = (pair for pair in listed.pairs if not pages.keys().isdisjoint(_paths_of(pair)))
    stacks = tuple(sorted({path for pair in deep for path in _paths_of(pair)}))
    readable = _with_neighbours(replace(listed, pairs=kept), profile)
    return Exclusions(readable, stacks, unlisted, _stacks(pages, stacks))


def _listed(folder: Files, pairing: Pairing, rules: Rules) -> tuple[Pairing, tuple[str, ...]]:
    """Remove images that are missing from the lists in the rules, with their masks."""
    if not rules.source.list:
        return pairing, ()
    images = [*(pair.image for pair in pairing.pairs), *pairing.unpaired_images]
    named = {path for place in rules.source.list for path in _named(folder, place, images)}
    out = {p for pair in pairing.pairs if pair.image not in named for p in _paths_of(pair)}
    out |= set(pairing.unpaired_images) - named
    kept = replace(
        pairing,
        pairs=tuple(pair for pair in pairing.pairs if pair.image in named),
        unpaired_images=tuple(path for path in pairing.unpaired_images if path in named),
    )
    return kept, tuple(sorted(out))


def _named(folder: Files, place: str, images: Sequence[str]) -> tuple[str, ...]:
    file_list = read_list(folder, place, images)
    if file_list is None or not file_list.present:
        raise RulesError(
            "source.list is not a list of the images", where=place,
            expected="a text file in the source with one image per line",
            remedy="correct source.list",
        )  # fmt: skip
    return file_list.present


def _paths_of(pair: Pair) -> tuple[str, ...]:
    return (pair.image, *pair.masks)


def _pages_of(folder: Files, paths: Sequence[str]) -> dict[str, int]:
    """Number of pages of each file with more than one."""
    pages = {}
    for path in paths:
        if path.lower().endswith(_MULTI_PAGE):
            try:
                pages[path] = read_header(folder / path).pages
            except RulesError:
                pages[path] = 1  # damage is reported when the pairs are checked
    return {path: count for path, count in pages.items() if count > 1}


def _stacks(pages: dict[str, int], out: tuple[str, ...]) -> tuple[Finding, ...]:
    if not out:
        return ()
    counts = sorted(set(pages.values()))
    span = f"{counts[0]} pages" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} pages"
    return (
        Finding(
            code="stack", severity=Severity.WARNING, paths=out,
            message=f"{counted(len(pages), 'file')} are stacks of {span}, and only single images "
            "are read: they are listed in source.exclude",
            remedy="split them into single pages to have them formatted",
        ),
    )  # fmt: skip


def _with_neighbours(pairing: Pairing, profile: Profiler) -> Pairing:
    """Photographs next to paired images whose name does not say derived are unpaired images."""
    folders = {pair.image.rpartition("/")[0] for pair in pairing.pairs}
    near = [
        path
        for path in pairing.others
        if path.rpartition("/")[0] in folders
        and not roles_in(path.rpartition("/")[2]) & {Role.DERIVED, Role.TRUTH}
    ]
    profiles = {path: profile(path) for path in near[:MAX_NEIGHBOURS]}
    found = {
        p
        for p, result in profiles.items()
        if isinstance(result, FileProfile) and result.likeness < PHOTOGRAPH
    }
    return replace(
        pairing,
        unpaired_images=tuple(sorted({*pairing.unpaired_images, *found})),
        others=tuple(path for path in pairing.others if path not in found),
    )
