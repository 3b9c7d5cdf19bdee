"""Examine a source: what is there, what belongs together, what is wrong; nothing is changed."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median
from typing import Any

from dataset_rules.discover import WHY, Entry, Kind, discover
from dataset_rules.errors import RulesError
from dataset_rules.files import Files, opened_files
from dataset_rules.findings import Finding, Question, Severity, counted, in_order
from dataset_rules.inspection import Depth, Inspection, Subject, inspect, named_groups
from dataset_rules.leftovers import check_ignored, is_derived
from dataset_rules.look import Look, Looker, compactness_of, looker
from dataset_rules.meaning import Meaning, census_of, meaning_of
from dataset_rules.pair import MaskSource, Pairing, pair_paths
from dataset_rules.parallel import Progress, each, ticker
from dataset_rules.reading import Choice, Hints, Reading, choose_reading
from dataset_rules.rules import ClassRule, MaskKind, MaskTemplate, Rules, rules_document
from dataset_rules.survey import sample_of
from dataset_rules.template import Template

MAX_MASKS = 200  # mask files whose values are counted; more are sampled by the hash of their path
MAX_SHAPES = 9  # of these, masks whose objects are measured


@dataclass(frozen=True)
class Report:
    """What an examination found; `rules` has everything filled in that the files decide."""

    entries: tuple[Entry, ...]
    pairing: Pairing
    rules: Rules
    questions: tuple[Question, ...]
    of_source: tuple[Finding, ...]  # the same whether the rules were inferred or stated
    aside: tuple[Finding, ...]  # on what was inferred and how, and on ignored files
    inspection: Inspection

    @property
    def findings(self) -> tuple[Finding, ...]:
        """All findings, the worst first."""
        return in_order([*self.of_source, *self.aside])

    def document(self) -> dict[str, Any]:
        """The JSON that `unetops doctor --json` prints; paths as they lie in the source."""
        classes = self.rules.classes or ()
        kind = self.rules.source.mask_kind
        return {
            "pairs": [
                {"image": pair.image, "masks": list(pair.masks), "group": group}
                for pair, (_, group) in zip(self.pairing.pairs, self.named(), strict=True)
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

    def named(self) -> list[tuple[str, str]]:
        """Name and group of each pair's sample, in the order of the pairs."""
        return named_groups(self.pairing, self.rules)

    def _ignored(self) -> list[tuple[str, str]]:
        skipped = [(e.path, WHY[e.kind]) for e in self.entries if e.kind is not Kind.IMAGE]
        is_open = any(question.field == "source.mask" for question in self.questions)
        why = _waits if is_open else _why_not
        return sorted(skipped + [(path, why(path)) for path in self.pairing.others])


def examine(
    source: Path,
    rules: Rules | None = None,
    *,
    depth: Depth = Depth.SAMPLE,
    on_progress: Progress | None = None,
) -> Report:
    """What is in a folder or an archive and how it would be formatted.

    Args:
        source: a folder or an archive, which is read in place.
        rules: what a person decided already; the rest is inferred.
        depth: how much is decoded.
        on_progress: called with the number of decoded files and of all that are to be.

    Raises:
        RulesError: if there is no such source, no file or no image in it.
    """
    with opened_files(source) as folder:
        return examine_folder(folder, rules, depth=depth, on_progress=on_progress)


def examine_folder(
    folder: Files,
    rules: Rules | None = None,
    *,
    depth: Depth = Depth.SAMPLE,
    on_progress: Progress | None = None,
) -> Report:
    """As `examine`, of a source that is open."""
    given = rules or Rules()
    entries = discover(folder, given.source.exclude)
    paths = [entry.path for entry in entries if entry.kind is Kind.IMAGE]
    if not paths:
        raise RulesError(
            "there is no image in the folder", where=str(folder),
            expected="PNG, JPEG, BMP or TIFF", found=counted(len(entries), "other file"),
            remedy="name the folder that holds images and masks",
        )  # fmt: skip
    look = looker(folder, as_colors=given.source.mask_kind is MaskKind.COLORS)
    choice = _choose(paths, look, given, is_asked=rules is not None)
    if choice.reading is None:
        others = choice.rest or Pairing((), (), (), tuple(paths), ())
        subject = Subject(folder, entries, others, given, look, (), is_open=True)
        found = inspect(subject, depth, ticker(on_progress, len(paths)))
        aside = (*choice.findings, *check_ignored(entries, others, is_open=True))
        return Report(
            entries,
            others,
            given,
            choice.questions,
            in_order(found.findings),
            in_order(aside),
            found,
        )
    pairing = choice.reading.pairing
    all_masks = [path for pair in pairing.pairs for path in pair.masks]
    tick = ticker(on_progress, len(paths) + len(pairing.pairs))
    masks = all_masks if depth is Depth.FULL else sample_of(all_masks, MAX_MASKS)
    if depth is Depth.HEADERS and _states_meaning(given):
        masks = []  # nothing is to be learnt of them, and the formatter decodes them anyway
    for _ in each(look, masks):  # what was seen is kept
        tick()
    meaning = _meaning(folder, pairing, look, given, masks=masks)
    resolved = _resolved(given, choice, meaning)
    subject = Subject(folder, entries, pairing, resolved, look, tuple(masks))
    found = inspect(subject, depth, tick)
    ignored = check_ignored(entries, pairing, is_open=False)
    return Report(
        entries, pairing, resolved, (*choice.questions, *meaning.questions),
        in_order([*pairing.findings, *found.findings]),
        in_order([*choice.findings, *meaning.findings, *ignored]), found,
    )  # fmt: skip


def _states_meaning(rules: Rules) -> bool:
    """True where the rules say what each value of a mask means."""
    is_counted = rules.source.mask_kind is MaskKind.INSTANCES  # each number is an object
    return bool(rules.source.mask_kind and rules.classes and (is_counted or _has_values(rules)))


def _choose(paths: Sequence[str], look: Looker, rules: Rules, *, is_asked: bool) -> Choice:
    source = rules.source
    if source.image is not None and source.mask is not None:
        return _stated(paths, source.image, source.mask)
    keyword = rules.mask_keyword if is_asked else ""
    hints = Hints(
        keyword=keyword,
        image=Template(source.image) if source.image is not None else None,
        mask=Template(source.mask) if isinstance(source.mask, str) else None,
    )
    choice = choose_reading(paths, look, hints)
    if choice.questions:
        return choice
    if choice.reading is None:
        return Choice(None, findings=(_nothing_pairs(paths, keyword),))
    if keyword and not choice.reading.has_keyword:
        unused = _unused_keyword(keyword, choice.reading)
        return Choice(choice.reading, choice.questions, (*choice.findings, unused))
    return choice


def _stated(paths: Sequence[str], image: str, mask: str | tuple[MaskTemplate, ...]) -> Choice:
    """The reading that the rules state; nothing is inferred."""
    masks = (
        (MaskSource(Template(mask)),)
        if isinstance(mask, str)
        else tuple(MaskSource(Template(m.template), m.class_id) for m in mask)
    )
    pairing = pair_paths(paths, Template(image), masks)
    if pairing.pairs:
        return Choice(Reading(Template(image), masks, pairing))
    finding = Finding(
        code="templates_match_nothing", severity=Severity.ERROR,
        message=f"the templates pair no image with a mask: {image} and "
        + ", ".join(m.template.text for m in masks)
        + f" ({len(pairing.unpaired_images)} images and {len(pairing.unpaired_masks)} masks fit)",
        remedy="correct source.image and source.mask, or leave both null to have them inferred",
    )  # fmt: skip
    return Choice(None, findings=(finding,), rest=pairing)


def _nothing_pairs(paths: Sequence[str], keyword: str) -> Finding:
    if not keyword:
        return Finding(
            code="no_masks", severity=Severity.ERROR, paths=tuple(paths),
            message=f"no mask was found for {counted(len(paths), 'image file')}",
            remedy="put the masks beside the images, or state source.image and source.mask",
        )  # fmt: skip
    count = sum(keyword.casefold() in path.casefold() for path in paths)
    matches = counted(count, "file") if count else "no file"
    return Finding(
        code="keyword_pairs_nothing", severity=Severity.ERROR, paths=tuple(paths),
        message=f"the mask keyword {keyword!r} matches {matches}, and nothing else pairs the "
        f"{counted(len(paths), 'image file')} with masks",
        remedy="correct mask_keyword, add the masks, or state source.image and source.mask",
    )  # fmt: skip


def _unused_keyword(keyword: str, reading: Reading) -> Finding:
    masks = ", ".join(mask.template.text for mask in reading.masks)
    return Finding(
        code="keyword_unused", severity=Severity.INFO,
        message=f"the mask keyword {keyword!r} tells no masks from images here; "
        f"{counted(len(reading.pairing.pairs), 'pair')} found by {reading.image.text} and {masks}",
    )  # fmt: skip


def _meaning(
    folder: Files, pairing: Pairing, look: Looker, rules: Rules, *, masks: Sequence[str]
) -> Meaning:
    """What the masks mean, and on how many of them that rests."""
    looks = {path: seen for path in masks if isinstance(seen := look(path), Look)}
    if not looks:
        return Meaning(rules.source.mask_kind, rules.classes)
    several = [path for path, seen in looks.items() if seen.value_count > 2][:MAX_SHAPES]
    shapes = [compactness_of(folder / path) for path in several]
    census = census_of(list(looks.values()), compactness=median(shapes) if shapes else 0.0)
    is_many = any(len(pair.masks) > 1 and None in pair.class_ids for pair in pairing.pairs)
    meaning = meaning_of(census, rules, is_many=is_many)
    total = sum(len(pair.masks) for pair in pairing.pairs)
    note = Finding(
        code="masks_looked_at", severity=Severity.INFO,
        message=f"mask kind and classes rest on {len(looks)} of {counted(total, 'mask file')}",
        looked_at=len(looks), of=total,
    )  # fmt: skip
    return replace(meaning, findings=(*meaning.findings, note))


def _resolved(given: Rules, choice: Choice, meaning: Meaning) -> Rules:
    """The rules with all that is beyond doubt filled in; what a person wrote stays."""
    reading = choice.reading
    assert reading is not None  # the caller's condition
    source = given.source.model_copy(
        update={
            "image": reading.image.text,
            "mask": _mask_field(reading),
            "mask_kind": given.source.mask_kind or meaning.kind,
        }
    )
    classes = _named(given.classes, meaning.classes, _classes_by_file(reading))
    ignored = given.ignore_values or (() if _has_values(given) else meaning.ignore_values)
    return given.model_copy(update={"source": source, "classes": classes, "ignore_values": ignored})


def _mask_field(reading: Reading) -> str | tuple[MaskTemplate, ...]:
    if reading.masks[0].class_id is None:
        return reading.masks[0].template.text
    return tuple(
        MaskTemplate(template=mask.template.text, class_id=mask.class_id)
        for mask in reading.masks
        if mask.class_id is not None
    )


def _has_values(rules: Rules) -> bool:
    return any(rule.source_values for rule in rules.classes or ())


def _classes_by_file(reading: Reading) -> list[int]:
    return sorted({mask.class_id for mask in reading.masks if mask.class_id is not None})


def _named(
    given: tuple[ClassRule, ...] | None,
    inferred: tuple[ClassRule, ...] | None,
    by_file: Sequence[int],
) -> tuple[ClassRule, ...] | None:
    """The given classes, with the values that were inferred where none is stated."""
    values = {rule.id: rule.source_values for rule in inferred or ()}
    if by_file and inferred is not None:
        object_values = next((v for number, v in values.items() if number), ())
        values = {0: values.get(0, ()), **dict.fromkeys(by_file, object_values)}
        inferred = (
            ClassRule(id=0, name="background", source_values=values[0]),
            *(ClassRule(id=i, name=f"class_{i}", source_values=values[i]) for i in by_file),
        )
    if given is None or any(rule.source_values for rule in given):
        return given or inferred
    return tuple(
        rule.model_copy(update={"source_values": values.get(rule.id, ())}) for rule in given
    )


def _waits(_path: str) -> str:
    return "it waits for the answer to the question about source.mask"


def _why_not(path: str) -> str:
    if is_derived(path):
        return "its name says prediction, overlay or preview, not truth"
    return "its name fits neither the images nor the masks"
