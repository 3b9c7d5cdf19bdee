"""Examine a source: its files, pairs and defects. The source is not modified."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from dataset_rules.checks.foreign_layouts import check_foreign_layouts
from dataset_rules.checks.inspection import Depth, Inspection, Subject, inspect, sample_groups
from dataset_rules.checks.unpaired import check_ignored, is_derived
from dataset_rules.doctor.resolve import has_values, resolve
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding, Question, Severity, counted, sort_findings
from dataset_rules.ground.parallel import Progress, parallel_map, progress_counter
from dataset_rules.masks.meaning import meaning_of
from dataset_rules.masks.profile import (
    FileProfile,
    Profiler,
    cached_profiler,
    compactness_of,
    palettes_differ,
)
from dataset_rules.masks.value_counts import Meaning, count_values
from dataset_rules.pairing.exclusions import apply_exclusions
from dataset_rules.pairing.groups import group_note, unknown_groups
from dataset_rules.pairing.inference import infer_reading
from dataset_rules.pairing.pairs import Pairing
from dataset_rules.rules.fields import MaskKind
from dataset_rules.rules.rules import Rules, rules_document
from dataset_rules.sources.files import Files, open_files
from dataset_rules.sources.headers import sample_paths
from dataset_rules.sources.inventory import IGNORE_REASONS, Entry, Kind, discover

VERSION = 1  # raise by hand when the same source and rules give a different report
MAX_MASKS = 200  # mask files whose values are counted; sampled by path hash if there are more
MAX_SHAPES = 9  # of these, masks whose compactness is measured


@dataclass(frozen=True)
class Report:
    """The result of an examination; `rules` is completed as far as the files allow."""

    entries: tuple[Entry, ...]
    pairing: Pairing
    rules: Rules
    questions: tuple[Question, ...]
    source_findings: tuple[Finding, ...]  # independent of whether rules were inferred or given
    notes: tuple[Finding, ...]  # on the inference and on ignored files
    inspection: Inspection

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, worst first."""
        return sort_findings([*self.source_findings, *self.notes])

    def document(self) -> dict[str, Any]:
        """The JSON that `unetops doctor --json` prints; paths are relative to the source."""
        classes = self.rules.classes or ()
        kind = self.rules.source.mask_kind
        return {
            "pairs": [
                {"image": pair.image, "masks": list(pair.masks), "group": group}
                for pair, (_, group) in zip(self.pairing.pairs, self.sample_groups(), strict=True)
            ],
            "unpaired_images": list(self.pairing.unpaired_images),
            "unpaired_masks": list(self.pairing.unpaired_masks),
            "ignored": [{"path": path, "why": why} for path, why in self._ignored()],
            "mask_kind": kind.value if kind else None,
            "classes": [rule.model_dump(mode="json") for rule in classes],
            "questions": [question.model_dump(mode="json") for question in self.questions],
            "findings": [finding.model_dump(mode="json") for finding in self.findings],
            "rules": rules_document(self.rules),
        }

    def sample_groups(self) -> list[tuple[str, str]]:
        """Sample name and group of each pair, in the order of the pairs."""
        return sample_groups(self.pairing, self.rules)

    def _ignored(self) -> list[tuple[str, str]]:
        skipped = [
            (e.path, IGNORE_REASONS[e.kind]) for e in self.entries if e.kind is not Kind.IMAGE
        ]
        is_open = any(question.field == "source.mask" for question in self.questions)
        why = _reason_pending if is_open else _reason_ignored
        return sorted(skipped + [(path, why(path)) for path in self.pairing.others])


def examine(
    source: Path,
    rules: Rules | None = None,
    *,
    depth: Depth = Depth.SAMPLE,
    on_progress: Progress | None = None,
) -> Report:
    """Report what is in a folder or an archive and how it would be formatted.

    Args:
        source: a folder or an archive, which is read in place.
        rules: decisions made so far; the rest is inferred.
        depth: how much to decode.
        on_progress: called with the number of decoded files and the total.

    Raises:
        RulesError: if the source does not exist or contains no file or no image.
    """
    with open_files(source) as folder:
        return examine_folder(folder, rules, depth=depth, on_progress=on_progress)


def examine_folder(
    folder: Files,
    rules: Rules | None = None,
    *,
    depth: Depth = Depth.SAMPLE,
    on_progress: Progress | None = None,
) -> Report:
    """Like `examine`, for a source that is already open."""
    given = rules or Rules()
    entries = discover(folder, given.source.exclude)
    paths = [entry.path for entry in entries if entry.kind is Kind.IMAGE]
    if not paths:
        raise RulesError(
            "there is no image in the folder", where=str(folder),
            expected="PNG, JPEG, BMP or TIFF", found=counted(len(entries), "other file"),
            remedy="specify the folder that contains images and masks",
        )  # fmt: skip
    is_colored = given.source.mask_kind is MaskKind.COLORS
    profile = cached_profiler(folder, as_colors=is_colored, panel=given.source.panel)
    choice = infer_reading(folder, entries, profile, given, has_user_rules=rules is not None)
    if choice.reading is None:
        others = choice.rest or Pairing((), (), (), tuple(paths), ())
        subject = Subject(folder, entries, others, given, profile, (), is_open=True)
        found = inspect(subject, depth, progress_counter(on_progress, len(paths)))
        tools = check_foreign_layouts(folder, entries, is_read=False)
        on_choice = (*choice.findings, *tools, *check_ignored(entries, others, is_open=True))
        return Report(
            entries,
            others,
            given,
            choice.questions,
            sort_findings(found.findings),
            sort_findings(on_choice),
            found,
        )
    if choice.reading.panel is not None:
        profile = cached_profiler(folder, as_colors=is_colored, panel=choice.reading.panel)
    exclusions = apply_exclusions(folder, choice.reading.pairing, profile, given)
    entries, pairing = exclusions.updated_entries(entries), exclusions.pairing
    all_masks = [path for pair in pairing.pairs for path in pair.masks]
    tick = progress_counter(on_progress, len(paths) + len(pairing.pairs))
    masks = all_masks if depth is Depth.FULL else sample_paths(all_masks, MAX_MASKS)
    if depth is Depth.HEADERS and _states_meaning(given):
        masks = []  # their meaning is known, and the formatter decodes them anyway
    for _ in parallel_map(profile, masks):  # results are cached
        tick()
    meaning = _meaning(folder, pairing, profile, given, masks=masks)
    resolved = resolve(given, choice.reading, meaning, exclude=exclusions.stacks)
    notes = _group_notes(given, resolved, pairing)
    subject = Subject(folder, entries, pairing, resolved, profile, tuple(masks))
    found = inspect(subject, depth, tick)
    ignored = [
        *check_foreign_layouts(folder, entries, is_read=True),
        *check_ignored(entries, pairing, is_open=False),
    ]
    return Report(
        entries, pairing, resolved, (*choice.questions, *meaning.questions),
        sort_findings([*pairing.findings, *found.findings]),
        sort_findings(
            [*choice.findings, *exclusions.findings, *meaning.findings, *notes, *ignored]
        ),
        found,
    )  # fmt: skip


def _states_meaning(rules: Rules) -> bool:
    """True if the rules define the meaning of every mask value."""
    is_counted = rules.source.mask_kind is MaskKind.INSTANCES  # each number is an object
    return bool(rules.source.mask_kind and rules.classes and (is_counted or has_values(rules)))


def _meaning(
    folder: Files, pairing: Pairing, profile: Profiler, rules: Rules, *, masks: Sequence[str]
) -> Meaning:
    """The meaning of the masks, with a note on how many of them were read."""
    profiles = {path: found for path in masks if isinstance(found := profile(path), FileProfile)}
    if rules.source.mask_kind is None and palettes_differ(profiles.values()):
        colored = rules.source.model_copy(update={"mask_kind": MaskKind.COLORS})
        rules = rules.model_copy(update={"source": colored})
        profile = cached_profiler(folder, as_colors=True)
        profiles = {
            path: found for path in masks if isinstance(found := profile(path), FileProfile)
        }
    if not profiles:
        return Meaning(rules.source.mask_kind, rules.classes)
    several = [path for path, found in profiles.items() if found.value_count > 2][:MAX_SHAPES]
    shapes = [compactness_of(folder / path) for path in several]
    counts = count_values(list(profiles.values()), compactness=median(shapes) if shapes else 0.0)
    is_many = any(len(pair.masks) > 1 and None in pair.class_ids for pair in pairing.pairs)
    meaning = meaning_of(counts, rules, is_many=is_many)
    total = sum(len(pair.masks) for pair in pairing.pairs)
    note = Finding(
        code="masks_looked_at", severity=Severity.INFO,
        message=f"mask kind and classes rest on {len(profiles)} of {counted(total, 'mask file')}",
        looked_at=len(profiles), of=total,
    )  # fmt: skip
    return replace(meaning, findings=(*meaning.findings, note))


def _group_notes(given: Rules, resolved: Rules, pairing: Pairing) -> list[Finding]:
    """Findings on inferred groups, and on groups in the rules that no image belongs to."""
    groups = {group for _, group in sample_groups(pairing, resolved)}
    found = unknown_groups(groups, resolved.split)
    if resolved.split.group is not None and resolved.split.group != given.split.group:
        images = [pair.image for pair in pairing.pairs]
        found.append(group_note(resolved.split.group, images))
    return found


def _reason_pending(_path: str) -> str:
    return "depends on the answer to the question about source.mask"


def _reason_ignored(path: str) -> str:
    if is_derived(path):
        return "its name indicates a prediction, overlay or preview, not ground truth"
    return "its name matches neither the images nor the masks"
