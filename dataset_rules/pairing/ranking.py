"""Choose how to read a source: the templates that pair its images with its masks.

Every candidate is joined over all files and weighted by its evidence: the words in which image
and mask differ, the pixels of some files, and their sizes. Two candidates of similar weight that
give the same file different partners lead to a question to the user, never to a choice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dataset_rules.ground.findings import Finding, Question, Severity
from dataset_rules.masks.profile import PHOTOGRAPH, FileProfile, Profiler, cover_same_area
from dataset_rules.pairing.candidates import Candidate, candidates_among
from dataset_rules.pairing.class_files import (
    class_note,
    class_sources,
    have_disjoint_objects,
    numbered_classes,
)
from dataset_rules.pairing.keywords import Role, roles_in
from dataset_rules.pairing.pairs import MaskSource, Pairing, pair_paths
from dataset_rules.pixels.text_mask import is_text_mask
from dataset_rules.rules.fields import Panel
from dataset_rules.rules.template import OBJECT, Template

MAX_TRIED = 40  # candidates that are joined over all files, best supported first
MAX_PROFILED = 5  # pairs of a candidate whose pixels are read
RIVAL_SHARE = 0.7  # of the best weight; a reading above this is a rival
MIN_CLASS_SHARE = 0.25  # of the images: those with a file of a given class
MIN_LIKENESS_GAP = 0.15  # difference in likeness to a mask that counts as evidence

# Weights of evidence, multiplied by the number of pairs: a mask word alone outweighs any evidence
# in the pixels, since predictions look like masks too.
KEYWORD, TRUTH_WORD, IMAGE_WORD, PIXELS = 8, 4, 1, 2
OTHER_SIZES = 0.5  # factor if no mask has the size of its image
MASK_AS_IMAGE = 0.5  # factor if the images look like masks themselves
ALL_THE_SAME = 0.2  # factor if the masks of different images are all the same
MIN_MASKS = 3  # for that comparison
MASK_LIKE = 0.8  # likeness above which a file looks like a mask


@dataclass(frozen=True)
class Reading:
    """A way to read the source, with the weight of its evidence."""

    image: Template
    masks: tuple[MaskSource, ...]
    pairing: Pairing
    weight: float = 0.0
    has_keyword: bool = False
    panel: Panel | None = None  # if every file contains image and mask


@dataclass(frozen=True)
class Choice:
    """The reading (None if nothing pairs or a question is open), with questions and findings."""

    reading: Reading | None
    questions: tuple[Question, ...] = ()
    findings: tuple[Finding, ...] = ()
    rest: Pairing | None = None  # if files match the given templates but none of them pair


@dataclass(frozen=True)
class Hints:
    """What the user specified: a mask keyword, or one of the two templates."""

    keyword: str = ""
    image: Template | None = None
    mask: Template | None = None

    def allows(self, pairing: Pairing) -> bool:
        """True if all images and masks match the given templates."""
        images = [pair.image for pair in pairing.pairs]
        masks = [path for pair in pairing.pairs for path in pair.masks]
        return _all_match(images, self.image) and _all_match(masks, self.mask)


def choose_reading(paths: Sequence[str], profile: Profiler, hints: Hints) -> Choice:
    """The unambiguous reading of image files; a question if two are close."""
    readings = _readings(candidates_among(paths), paths, profile, hints)
    if not readings or readings[0].pairing.unpaired_images or readings[0].pairing.others:
        padded = _readings(candidates_among(paths, padded=True), paths, profile, hints)
        readings = max(readings, padded, key=_best_weight)
    return _choice(readings, paths, profile) if readings else Choice(None)


def _best_weight(readings: Sequence[Reading]) -> float:
    return readings[0].weight if readings else 0.0


def _all_match(paths: Iterable[str], template: Template | None) -> bool:
    return template is None or all(template.match(path) is not None for path in paths)


def _readings(
    candidates: Sequence[Candidate], paths: Sequence[str], profile: Profiler, hints: Hints
) -> list[Reading]:
    weighted = [_weighted(c, paths, profile, hints) for c in candidates[:MAX_TRIED]]
    found = _without_single_objects([reading for reading in weighted if reading is not None])
    return sorted(found, key=lambda r: (-r.weight, r.image.text, r.masks[0].template.text))


def _without_single_objects(readings: Sequence[Reading]) -> list[Reading]:
    """Drop readings that take one numbered file of an image (`7_obj1`) for its whole mask."""
    numbered = [r for r in readings if OBJECT in r.masks[0].template.fields]
    taken = {r.image: {path for p in r.pairing.pairs for path in p.masks} for r in numbered}
    return [
        r for r in readings
        if r in numbered
        or not {path for p in r.pairing.pairs for path in p.masks} <= taken.get(r.image, set())
    ]  # fmt: skip


def _weighted(
    candidate: Candidate, paths: Sequence[str], profile: Profiler, hints: Hints
) -> Reading | None:
    """The weighted reading of a candidate; None if there is evidence against it or none for it."""
    image, mask = Template(candidate.image), MaskSource(Template(candidate.mask))
    has_keyword = _has_keyword(candidate, hints.keyword)
    words = _weight_of_words(candidate, has_keyword=has_keyword)
    if words is None:
        return None
    pairing = pair_paths(paths, image, (mask,))
    if not pairing.pairs or not hints.allows(pairing):
        return None
    if mask.template.has_many and (
        _has_derived(pairing) or not have_disjoint_objects(pairing, profile)
    ):
        return None
    if is_text_mask(mask.template.text) and _differ_in_size(pairing, profile):
        return None
    pixels = _weight_of_pixels(pairing, profile)
    if pixels is None or (pixels == 0 and words < TRUTH_WORD):
        return None
    evidence = (1 + words + pixels) * (OTHER_SIZES if _differ_in_size(pairing, profile) else 1.0)
    evidence *= _factor_of_images(pairing, profile) * _factor_of_masks(pairing, profile)
    return Reading(image, (mask,), pairing, len(pairing.pairs) * evidence, has_keyword)


def _has_keyword(candidate: Candidate, keyword: str) -> bool:
    wanted = keyword.casefold()
    return bool(wanted) and (
        wanted in candidate.mask_words.casefold() and wanted not in candidate.image_words.casefold()
    )


def _weight_of_words(candidate: Candidate, *, has_keyword: bool) -> int | None:
    """Evidence in the words that differ; None if they indicate the opposite."""
    image, mask = roles_in(candidate.image_words), roles_in(candidate.mask_words)
    if has_keyword:
        return KEYWORD + TRUTH_WORD
    is_derived = Role.DERIVED in image | mask
    is_reversed = Role.TRUTH in image - mask or Role.IMAGE in mask - image - {Role.TRUTH}
    if is_derived or (is_reversed and Role.TRUTH not in mask - image):
        return None
    is_truth, is_image = Role.TRUTH in mask - image, Role.IMAGE in image - mask
    return TRUTH_WORD * is_truth + IMAGE_WORD * is_image


def _weight_of_pixels(pairing: Pairing, profile: Profiler) -> int | None:
    """Evidence in the pixels; None if the images look more like masks than the masks do.

    One of two photographs is always flatter; that alone does not make it a mask.
    """
    gaps, likenesses = [], []
    for image, mask in _some_pairs(pairing):
        one, other = profile(image), profile(mask)
        if isinstance(one, FileProfile) and isinstance(other, FileProfile):
            gaps.append(other.likeness - one.likeness)
            likenesses.append(other.likeness)
    if not gaps:
        return 0
    gap = sum(gaps) / len(gaps)
    is_mask = gap > MIN_LIKENESS_GAP and sum(likenesses) / len(likenesses) > PHOTOGRAPH
    return None if gap < -MIN_LIKENESS_GAP else PIXELS * is_mask


def _differ_in_size(pairing: Pairing, profile: Profiler) -> bool:
    """True if some pairs were read and no mask has the size of its image."""
    found = [(profile(image), profile(mask)) for image, mask in _some_pairs(pairing)]
    sizes = [
        (one.size_px, other.size_px)
        for one, other in found
        if isinstance(one, FileProfile) and isinstance(other, FileProfile)
    ]
    return bool(sizes) and all(one != other for one, other in sizes)


def _factor_of_masks(pairing: Pairing, profile: Profiler) -> float:
    """Below 1 if all masks are the same: the field of view, not its objects."""
    profiles = [
        found for _, mask in _some_pairs(pairing) if isinstance(found := profile(mask), FileProfile)
    ]
    drawn = [found for found in profiles if found.grid]
    same = len(drawn) >= MIN_MASKS and cover_same_area(drawn)
    return ALL_THE_SAME if same else 1.0


def _factor_of_images(pairing: Pairing, profile: Profiler) -> float:
    """Below 1 if the supposed images look like masks: labels paired with predictions."""
    profiles = [
        found
        for image, _ in _some_pairs(pairing)
        if isinstance(found := profile(image), FileProfile)
    ]
    return MASK_AS_IMAGE if profiles and min(s.likeness for s in profiles) > MASK_LIKE else 1.0


def _has_derived(pairing: Pairing) -> bool:
    """True if predictions or overlays are among the mask files."""
    masks = [path.rpartition("/")[2] for pair in pairing.pairs for path in pair.masks]
    return any(Role.DERIVED in roles_in(name) for name in masks)


def _some_pairs(pairing: Pairing) -> list[tuple[str, str]]:
    """An evenly spaced sample of the pairs."""
    step = max(1, len(pairing.pairs) // MAX_PROFILED)
    return [(pair.image, pair.masks[0]) for pair in pairing.pairs[::step][:MAX_PROFILED]]


def _choice(readings: Sequence[Reading], paths: Sequence[str], profile: Profiler) -> Choice:
    best = readings[0]
    if OBJECT in best.masks[0].template.fields:
        numbered = numbered_classes(best.masks[0].template, best.pairing, profile)
        if numbered:
            best = replace(best, masks=numbered, pairing=pair_paths(paths, best.image, numbered))
    rivals = [
        r for r in readings[1:] if r.weight >= RIVAL_SHARE * best.weight and _conflict(best, r)
    ]
    of_classes = class_sources(
        [(r.masks[0].template, r.pairing) for r in readings if _may_be_class(r, best)], profile
    )
    if of_classes and all(r.masks[0].template in {m.template for m in of_classes} for r in rivals):
        merged = replace(best, masks=of_classes, pairing=pair_paths(paths, best.image, of_classes))
        return Choice(merged, findings=(class_note(of_classes),))
    if not rivals:
        notes = () if best.masks[0].class_id is None else (class_note(best.masks),)
        return Choice(best, findings=(*notes, *_other_layouts(best, readings[1:])))
    return Choice(None, questions=(_which_mask([best, *rivals]),))


def _may_be_class(reading: Reading, best: Reading) -> bool:
    """True for masks of the same images with about the same evidence per pair."""
    own, other = (r.weight / len(r.pairing.pairs) for r in (reading, best))
    if reading.masks[0].template.has_many or best.masks[0].template.has_many:
        return False
    is_common = len(reading.pairing.pairs) >= MIN_CLASS_SHARE * len(best.pairing.pairs)
    return is_common and reading.image == best.image and own >= RIVAL_SHARE * other


def _conflict(a: Reading, b: Reading) -> bool:
    """True if some file has different partners in the two readings."""
    partners = {path: pair for pair in a.pairing.pairs for path in (pair.image, *pair.masks)}
    return any(
        partners.get(path, pair) != pair
        for pair in b.pairing.pairs
        for path in (pair.image, *pair.masks)
    )


def _which_mask(readings: Sequence[Reading]) -> Question:
    options = tuple(
        {"image": r.image.text, "mask": r.masks[0].template.text} for r in readings
    )  # fmt: skip
    return Question(
        field="source.mask",
        why=f"{len(readings)} readings match the files about equally: which files are the masks? "
        'Masks of several classes go together: "mask": [{"template": …, "class": 1}, …]',
        options=options,
    )


def _other_layouts(best: Reading, others: Iterable[Reading]) -> list[Finding]:
    """Files that the chosen templates leave out but another layout would pair."""
    taken = {path for pair in best.pairing.pairs for path in (pair.image, *pair.masks)}
    findings = []
    for other in others:
        pairs = [p for p in other.pairing.pairs if taken.isdisjoint((p.image, *p.masks))]
        if len(pairs) == len(other.pairing.pairs) and len(pairs) > 1:
            taken |= {path for pair in pairs for path in (pair.image, *pair.masks)}
            findings.append(_other_layout(other, tuple(pair.image for pair in pairs)))
    return findings


def _other_layout(other: Reading, images: tuple[str, ...]) -> Finding:
    return Finding(
        code="other_layout", severity=Severity.WARNING, paths=images,
        message=f"{len(images)} images pair with masks by other templates and are left out: "
        f"{other.image.text} with {other.masks[0].template.text}",
        remedy="format them as a dataset of their own with these templates in source",
    )  # fmt: skip
