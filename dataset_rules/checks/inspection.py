"""Run all checks on a source once it is known how to read it."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from dataset_rules.artifacts.dataset import Split, assign_split
from dataset_rules.checks.duplicates import equal_files
from dataset_rules.checks.header_checks import check_headers
from dataset_rules.checks.name_collisions import check_names
from dataset_rules.checks.pixel_checks import Group, check_pixels, damaged
from dataset_rules.checks.pixel_scan import Outcome, PixelScan, scan_pixels
from dataset_rules.checks.split_leakage import check_predefined_splits
from dataset_rules.checks.stray_values import check_stray_values
from dataset_rules.checks.unpaired import check_unpaired, is_derived
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.profile import Damage, FileProfile, Profiler
from dataset_rules.pairing.groups import group_of, group_template, sample_names
from dataset_rules.pairing.pairs import Pairing
from dataset_rules.pixels.images import Header
from dataset_rules.rules.rules import Rules
from dataset_rules.sources.files import Files
from dataset_rules.sources.headers import Survey, survey_headers
from dataset_rules.sources.inventory import Entry, Kind

Tick = Callable[[], None]


class Depth(StrEnum):
    """How much of a source is read."""

    HEADERS = "headers"  # all headers; the formatter decodes the pixels anyway
    SAMPLE = "sample"  # all headers and a sample of the pixels
    FULL = "full"  # all headers and all pixels


@dataclass(frozen=True)
class Subject:
    """A source and how to read it."""

    files: Files
    entries: tuple[Entry, ...]
    pairing: Pairing
    rules: Rules
    profile: Profiler
    masks: tuple[str, ...]  # those that were read to infer the meaning of their values
    is_open: bool = False  # it is an open question which files are the masks


def sample_groups(pairing: Pairing, rules: Rules) -> list[tuple[str, str]]:
    """Sample name and group of each pair, in the order of the pairs."""
    template = group_template(rules)
    names = sample_names([pair.image for pair in pairing.pairs])
    return [(name, group_of(image, name, template)) for image, name in names.items()]


@dataclass(frozen=True)
class Inspection:
    """The findings, and the inputs for checking the pixels once all are decoded."""

    findings: list[Finding]
    headers: Mapping[str, Header]
    equal: list[Group]


def splits_of(pairing: Pairing, rules: Rules) -> dict[str, Split]:
    """Image path of each pair -> its split by the rules."""
    groups = (group for _, group in sample_groups(pairing, rules))
    images = (pair.image for pair in pairing.pairs)
    return {image: assign_split(g, rules.split) for image, g in zip(images, groups, strict=True)}


def inspect(subject: Subject, depth: Depth, tick: Tick) -> Inspection:
    """All findings on the images and pairs of a source.

    Args:
        subject: the source.
        depth: how much of it is read.
        tick: called after each decoded file.
    """
    pairing, paths = subject.pairing, _images_of(subject.entries)
    survey = survey_headers(subject.files, paths)
    images, splits = _compared(subject), splits_of(pairing, subject.rules)
    bytes_of = {entry.path: entry.size_bytes for entry in subject.entries}
    whole = [path for path in images if bytes_of[path] and path not in survey.damage]
    equal = equal_files(subject.files, {path: bytes_of[path] for path in whole})
    found = [
        *check_headers(pairing, survey), *check_names(paths, pairing),
        *check_predefined_splits(splits), *_check_groups(pairing, subject.rules),
        *check_unpaired(pairing, survey, is_open=subject.is_open),
    ]  # fmt: skip
    scan = PixelScan()
    if depth is not Depth.HEADERS:
        scan = scan_pixels(
            subject.files, images, pairing.pairs, survey, rules=subject.rules,
            is_full=depth is Depth.FULL, tick=tick,
        )  # fmt: skip
        found += check_pixels(scan, pairing.pairs, splits, equal, headers=survey.headers)
        found += _check_values(subject)
    return Inspection([*found, *_damaged(subject, survey, scan)], survey.headers, equal)


def inspect_outcomes(
    outcomes: Sequence[Outcome], pairing: Pairing, rules: Rules, inspection: Inspection
) -> list[Finding]:
    """Findings from the formatter's outcomes, the same as after decoding all pixels.

    Args:
        outcomes: one per pair.
        pairing: of the source.
        rules: complete.
        inspection: of the headers.
    """
    scan = PixelScan(of_images=len(outcomes), of_pairs=len(outcomes))
    for outcome in outcomes:
        assert outcome.seen is not None  # the formatter decodes every pair
        image = outcome.samples[0].image.source
        scan.images[image], scan.masks[image] = outcome.seen.image, outcome.seen.mask
        scan.transparent += outcome.see_through
    splits = splits_of(pairing, rules)
    return check_pixels(
        scan, pairing.pairs, splits, inspection.equal, headers=inspection.headers
    )  # fmt: skip


def _images_of(entries: Sequence[Entry]) -> list[str]:
    return [entry.path for entry in entries if entry.kind is Kind.IMAGE]


def _compared(subject: Subject) -> list[str]:
    """Images that are compared with each other: no masks, no derived files."""
    masks = {path for pair in subject.pairing.pairs for path in pair.masks}
    masks.update(subject.pairing.unpaired_masks)
    return [p for p in _images_of(subject.entries) if p not in masks and not is_derived(p)]


def _damaged(subject: Subject, survey: Survey, scan: PixelScan) -> list[Finding]:
    """Paired files that cannot be read; the finding `unreadable` covers the others."""
    used = {path for pair in subject.pairing.pairs for path in (pair.image, *pair.masks)}
    profiles = ((path, subject.profile(path)) for path in subject.masks)
    damage = {path: profile.what for path, profile in profiles if isinstance(profile, Damage)}
    damage.update(survey.damage)
    damage.update(scan.damage)
    stacks = {path for path, header in survey.headers.items() if header.pages > 1}
    decoded = len({*scan.images, *scan.damage, *subject.masks})
    return damaged(
        {path: what for path, what in damage.items() if path in used - stacks},
        decoded, len(_images_of(subject.entries)),
    )  # fmt: skip


def _check_values(subject: Subject) -> list[Finding]:
    profiles = {
        p: profile for p in subject.masks if isinstance(profile := subject.profile(p), FileProfile)
    }
    total = sum(len(pair.masks) for pair in subject.pairing.pairs)
    strays = check_stray_values(profiles, subject.rules, of=total)
    if subject.rules.classes or any(len(pair.masks) > 1 for pair in subject.pairing.pairs):
        return strays  # empty label masks are reported elsewhere; object files are often uniform
    flat = sorted(path for path, profile in profiles.items() if profile.value_count == 1)
    if not flat:
        return strays
    uniform = Finding(
        code="uniform_masks", severity=Severity.INFO, paths=tuple(flat),
        message=f"{counted(len(flat), 'mask')} with one value only: empty or full",
        looked_at=len(profiles), of=total,
    )  # fmt: skip
    return [*strays, uniform]


def _check_groups(pairing: Pairing, rules: Rules) -> list[Finding]:
    """Images that do not match the group template: each becomes a group by itself."""
    template = group_template(rules)
    images = [pair.image for pair in pairing.pairs]
    paths = tuple(path for path in images if template and not group_of(path, "", template))
    if not paths:
        return []
    return [
        Finding(
            code="group_unmatched", severity=Severity.WARNING, paths=paths,
            message=f"split.group does not fit {counted(len(paths), 'image')}, each of which "
            "becomes a group of its own",
            remedy="widen the template in split.group",
        )
    ]  # fmt: skip
