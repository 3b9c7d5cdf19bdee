"""Files and rules -> reading: templates in the rules are used, the rest is inferred."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.profile import Profiler
from dataset_rules.pairing.composites import composite_finding, composites_among
from dataset_rules.pairing.file_lists import check_lists, lists_among
from dataset_rules.pairing.pairs import MaskSource, pair_panels, pair_paths
from dataset_rules.pairing.ranking import Choice, Hints, Reading, choose_reading
from dataset_rules.pixels.text_mask import find_text_masks, is_text_mask
from dataset_rules.rules.fields import SourceRule
from dataset_rules.rules.rules import Rules
from dataset_rules.rules.template import Template
from dataset_rules.sources.files import Files
from dataset_rules.sources.headers import sample_paths
from dataset_rules.sources.inventory import Entry, Kind

MAX_SNIFFED = 20  # text files that are opened to check for masks


def infer_reading(
    folder: Files,
    entries: Sequence[Entry],
    profile: Profiler,
    rules: Rules,
    *,
    has_user_rules: bool,
) -> Choice:
    """Choose how to read the source, with findings and questions.

    Args:
        folder: the files of the source.
        entries: of all files.
        profile: returns the profile of a file.
        rules: decisions made so far.
        has_user_rules: the user wrote the rules, so their mask keyword is meaningful.
    """
    source = rules.source
    images = [entry.path for entry in entries if entry.kind is Kind.IMAGE]
    texts = [entry.path for entry in entries if entry.kind is Kind.OTHER]
    if source.image is not None and (source.mask is not None or source.panel is not None):
        choice = _explicit(images, [*filter(is_text_mask, texts)], source)
    else:
        choice = _inferred(folder, images, texts, profile, _Request(rules, has_user_rules))
    pairing = choice.rest if choice.reading is None else choice.reading.pairing
    others = images if pairing is None else pairing.others
    composites = [] if choice.questions or source.panel else composites_among(folder, others)
    return _with_findings(choice, [
        *check_lists(lists_among(folder, texts, images)), *map(composite_finding, composites),
    ])  # fmt: skip


@dataclass(frozen=True)
class _Request:
    """The user's rules, or the defaults."""

    rules: Rules
    has_user_rules: bool

    @property
    def keyword(self) -> str:
        return self.rules.mask_keyword if self.has_user_rules else ""

    @property
    def hints(self) -> Hints:
        source = self.rules.source
        return Hints(
            keyword=self.keyword,
            image=None if source.image is None else Template(source.image),
            mask=Template(source.mask) if isinstance(source.mask, str) else None,
        )


def _inferred(
    folder: Files, images: Sequence[str], texts: Sequence[str], profile: Profiler, request: _Request
) -> Choice:
    """The reading of the images alone, else with text masks, else of composite panels."""
    choice = choose_reading(images, profile, request.hints)
    grids = [] if choice.reading or choice.questions else _grids(folder, texts)
    if grids:
        choice = choose_reading([*images, *grids], profile, request.hints)
    if choice.questions:
        return choice
    if choice.reading is None:
        panels = _of_panels(folder, images, request.rules)
        return panels or Choice(None, findings=(_no_pairs(images, request.keyword),))
    if request.keyword and not choice.reading.has_keyword:
        return _with_findings(choice, [_unused_keyword(request.keyword, choice.reading)])
    return choice


def _grids(folder: Files, texts: Sequence[str]) -> list[str]:
    """The text files that look like masks: those sniffed, or all if most of a sample do."""
    candidates = [path for path in texts if is_text_mask(path)]
    sample = sample_paths(candidates, MAX_SNIFFED)
    found = find_text_masks((path, folder / path) for path in sample)
    if len(sample) == len(candidates):
        return found
    return candidates if 2 * len(found) > len(sample) else []


def _of_panels(folder: Files, images: Sequence[str], rules: Rules) -> Choice | None:
    """The reading of composites of one image and one mask, if there is nothing else."""
    found = composites_among(folder, images)
    panel = found[0].panel if len(found) == 1 else None
    if panel is None or not found[0].is_certain or rules.source.mask is not None:
        return None
    image = Template(rules.source.image or found[0].template)
    pairing = pair_panels(images, image)
    return Choice(Reading(image, (), pairing, panel=panel)) if pairing.pairs else None


def _explicit(images: Sequence[str], texts: Sequence[str], source: SourceRule) -> Choice:
    """The reading specified by the rules; nothing is inferred."""
    assert source.image is not None  # ensured by the caller
    image, masks, paths = Template(source.image), _mask_sources(source), [*images, *texts]
    pairing = pair_paths(paths, image, masks) if source.panel is None else pair_panels(paths, image)
    text_files = set(texts)  # those that match no template are not part of the dataset
    others = tuple(path for path in pairing.others if path not in text_files)
    pairing = replace(pairing, others=others)
    if pairing.pairs:
        return Choice(Reading(image, masks, pairing, panel=source.panel))
    finding = Finding(
        code="templates_match_nothing", severity=Severity.ERROR,
        message=f"the templates pair no image with a mask: {source.image} and "
        + (", ".join(m.template.text for m in masks) or "its panels")
        + f" ({len(pairing.unpaired_images)} images and {len(pairing.unpaired_masks)} masks match)",
        remedy="correct source.image and source.mask, or set both to null to have them inferred",
    )  # fmt: skip
    return Choice(None, findings=(finding,), rest=pairing)


def _mask_sources(source: SourceRule) -> tuple[MaskSource, ...]:
    if source.mask is None:
        return ()
    if isinstance(source.mask, str):
        return (MaskSource(Template(source.mask)),)
    return tuple(MaskSource(Template(m.template), m.class_id) for m in source.mask)


def _with_findings(choice: Choice, findings: Sequence[Finding]) -> Choice:
    return replace(choice, findings=(*choice.findings, *findings))


def _no_pairs(paths: Sequence[str], keyword: str) -> Finding:
    if not keyword:
        return Finding(
            code="no_masks", severity=Severity.ERROR, paths=tuple(paths),
            message=f"no mask was found for {counted(len(paths), 'image file')}",
            remedy="put the masks next to the images, or set source.image and source.mask",
        )  # fmt: skip
    count = sum(keyword.casefold() in path.casefold() for path in paths)
    matches = counted(count, "file") if count else "no file"
    return Finding(
        code="keyword_pairs_nothing", severity=Severity.ERROR, paths=tuple(paths),
        message=f"the mask keyword {keyword!r} matches {matches}, and no other pattern pairs the "
        f"{counted(len(paths), 'image file')} with masks",
        remedy="correct mask_keyword, add the masks, or set source.image and source.mask",
    )  # fmt: skip


def _unused_keyword(keyword: str, reading: Reading) -> Finding:
    masks = ", ".join(mask.template.text for mask in reading.masks)
    return Finding(
        code="keyword_unused", severity=Severity.INFO,
        message=f"the mask keyword {keyword!r} tells no masks from images here; "
        f"{counted(len(reading.pairing.pairs), 'pair')} found by {reading.image.text} and {masks}",
    )  # fmt: skip
