"""Choose how a source is to be read: which templates pair its images with its masks.

Every candidate is joined over all files and weighed by what speaks for it: the words in which
image and mask differ, a look at some of the files, their sizes. Two candidates that give the
same file different partners and weigh about the same are a question, never a choice.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from dataset_rules.ground.findings import Finding, Question, Severity
from dataset_rules.masks.profile import PHOTOGRAPH, Look, Looker, show_the_same
from dataset_rules.pairing.candidates import Candidate, candidates_among
from dataset_rules.pairing.class_files import class_note, class_sources, lie_apart, numbered_classes
from dataset_rules.pairing.keywords import Role, roles_in
from dataset_rules.pairing.pairs import MaskSource, Pairing, pair_paths
from dataset_rules.pixels.text_mask import is_text_mask
from dataset_rules.rules.fields import Panel
from dataset_rules.rules.template import OBJECT, Template

MAX_TRIED = 40  # candidates, the best supported first, that are joined over all files
MAX_LOOKED = 5  # pairs of a candidate whose pixels are looked at
CLOSE = 0.7  # a rival of this share of the best weight is as good a reading
USUAL = 0.25  # of the images have a file of each class, at least
CLEAR = 0.15  # likeness to a mask by which one side must exceed the other to count

# Weights of evidence, multiplied by the number of pairs: a word for the mask alone outweighs any
# finding in the pixels, since predictions look like masks, too.
KEYWORD, TRUTH_WORD, IMAGE_WORD, LOOKS = 8, 4, 1, 2
OTHER_SIZES = 0.5  # factor where no mask is as large as its image
MASK_AS_IMAGE = 0.5  # factor where the images look like masks themselves
ALL_THE_SAME = 0.2  # factor where the masks of different images do not differ
FEW = 3  # masks from which that says something
MASK_LIKE = 0.8  # likeness from which a file looks like a mask


@dataclass(frozen=True)
class Reading:
    """A way to read the source, with the weight of what speaks for it."""

    image: Template
    masks: tuple[MaskSource, ...]
    pairing: Pairing
    weight: float = 0.0
    has_keyword: bool = False
    panel: Panel | None = None  # where every file holds its mask, too


@dataclass(frozen=True)
class Choice:
    """The reading, none where nothing pairs or a question is open, and what to know about it."""

    reading: Reading | None
    questions: tuple[Question, ...] = ()
    findings: tuple[Finding, ...] = ()
    rest: Pairing | None = None  # where files fit the stated templates and none of them pair


@dataclass(frozen=True)
class Hints:
    """What a person said of the names: a keyword of masks, one of the two templates."""

    keyword: str = ""
    image: Template | None = None
    mask: Template | None = None

    def allows(self, pairing: Pairing) -> bool:
        """True if all images and masks fit the templates that were given."""
        images = [pair.image for pair in pairing.pairs]
        masks = [path for pair in pairing.pairs for path in pair.masks]
        return _all_fit(images, self.image) and _all_fit(masks, self.mask)


def choose_reading(paths: Sequence[str], look: Looker, hints: Hints) -> Choice:
    """The reading of image files that is beyond doubt; a question where two are close."""
    readings = _readings(candidates_among(paths), paths, look, hints)
    if not readings or readings[0].pairing.unpaired_images or readings[0].pairing.others:
        padded = _readings(candidates_among(paths, padded=True), paths, look, hints)
        readings = max(readings, padded, key=_best_weight)
    return _choice(readings, paths, look) if readings else Choice(None)


def _best_weight(readings: Sequence[Reading]) -> float:
    return readings[0].weight if readings else 0.0


def _all_fit(paths: Iterable[str], template: Template | None) -> bool:
    return template is None or all(template.match(path) is not None for path in paths)


def _readings(
    candidates: Sequence[Candidate], paths: Sequence[str], look: Looker, hints: Hints
) -> list[Reading]:
    weighed = [_weighed(c, paths, look, hints) for c in candidates[:MAX_TRIED]]
    found = _without_single_objects([reading for reading in weighed if reading is not None])
    return sorted(found, key=lambda r: (-r.weight, r.image.text, r.masks[0].template.text))


def _without_single_objects(readings: Sequence[Reading]) -> list[Reading]:
    """Without those that take one of the numbered files of an image (`7_obj1`) for its mask."""
    numbered = [r for r in readings if OBJECT in r.masks[0].template.fields]
    taken = {r.image: {path for p in r.pairing.pairs for path in p.masks} for r in numbered}
    return [
        r for r in readings
        if r in numbered
        or not {path for p in r.pairing.pairs for path in p.masks} <= taken.get(r.image, set())
    ]  # fmt: skip


def _weighed(
    candidate: Candidate, paths: Sequence[str], look: Looker, hints: Hints
) -> Reading | None:
    """The reading of a candidate; None where something speaks against it or nothing for it."""
    image, mask = Template(candidate.image), MaskSource(Template(candidate.mask))
    has_keyword = _has_keyword(candidate, hints.keyword)
    words = _weight_of_words(candidate, has_keyword=has_keyword)
    if words is None:
        return None
    pairing = pair_paths(paths, image, (mask,))
    if not pairing.pairs or not hints.allows(pairing):
        return None
    if mask.template.has_many and (_holds_derived(pairing) or not lie_apart(pairing, look)):
        return None
    if is_text_mask(mask.template.text) and _differ_in_size(pairing, look):
        return None
    looks = _weight_of_looks(pairing, look)
    if looks is None or (looks == 0 and words < TRUTH_WORD):
        return None
    evidence = (1 + words + looks) * (OTHER_SIZES if _differ_in_size(pairing, look) else 1.0)
    evidence *= _factor_of_images(pairing, look) * _factor_of_masks(pairing, look)
    return Reading(image, (mask,), pairing, len(pairing.pairs) * evidence, has_keyword)


def _has_keyword(candidate: Candidate, keyword: str) -> bool:
    wanted = keyword.casefold()
    return bool(wanted) and (
        wanted in candidate.mask_words.casefold() and wanted not in candidate.image_words.casefold()
    )


def _weight_of_words(candidate: Candidate, *, has_keyword: bool) -> int | None:
    """Evidence in the exchanged words; None where they say the opposite."""
    image, mask = roles_in(candidate.image_words), roles_in(candidate.mask_words)
    if has_keyword:
        return KEYWORD + TRUTH_WORD
    is_derived = Role.DERIVED in image | mask
    is_reversed = Role.TRUTH in image - mask or Role.IMAGE in mask - image - {Role.TRUTH}
    if is_derived or (is_reversed and Role.TRUTH not in mask - image):
        return None
    is_truth, is_image = Role.TRUTH in mask - image, Role.IMAGE in image - mask
    return TRUTH_WORD * is_truth + IMAGE_WORD * is_image


def _weight_of_looks(pairing: Pairing, look: Looker) -> int | None:
    """Evidence in the pixels; None where the images look more like masks than the masks.

    Of two photographs one is always flatter: that alone makes it no mask.
    """
    gaps, likenesses = [], []
    for image, mask in _some_pairs(pairing):
        one, other = look(image), look(mask)
        if isinstance(one, Look) and isinstance(other, Look):
            gaps.append(other.likeness - one.likeness)
            likenesses.append(other.likeness)
    if not gaps:
        return 0
    gap = sum(gaps) / len(gaps)
    is_mask = gap > CLEAR and sum(likenesses) / len(likenesses) > PHOTOGRAPH
    return None if gap < -CLEAR else LOOKS * is_mask


def _differ_in_size(pairing: Pairing, look: Looker) -> bool:
    """True where some pair was seen and no mask is as large as its image."""
    seen = [(look(image), look(mask)) for image, mask in _some_pairs(pairing)]
    sizes = [
        (one.size_px, other.size_px)
        for one, other in seen
        if isinstance(one, Look) and isinstance(other, Look)
    ]
    return bool(sizes) and all(one != other for one, other in sizes)


def _factor_of_masks(pairing: Pairing, look: Looker) -> float:
    """Below 1 where all masks show the same: the field of view, not what lies in it."""
    looks = [seen for _, mask in _some_pairs(pairing) if isinstance(seen := look(mask), Look)]
    drawn = [seen for seen in looks if seen.grid]
    same = len(drawn) >= FEW and show_the_same(drawn)
    return ALL_THE_SAME if same else 1.0


def _factor_of_images(pairing: Pairing, look: Looker) -> float:
    """Below 1 where what is taken for images looks like masks: labels beside predictions."""
    looks = [seen for image, _ in _some_pairs(pairing) if isinstance(seen := look(image), Look)]
    return MASK_AS_IMAGE if looks and min(s.likeness for s in looks) > MASK_LIKE else 1.0


def _holds_derived(pairing: Pairing) -> bool:
    """True if predictions or overlays lie among the files that a star takes together."""
    masks = [path.rpartition("/")[2] for pair in pairing.pairs for path in pair.masks]
    return any(Role.DERIVED in roles_in(name) for name in masks)


def _some_pairs(pairing: Pairing) -> list[tuple[str, str]]:
    """Some pairs, spread over all."""
    step = max(1, len(pairing.pairs) // MAX_LOOKED)
    return [(pair.image, pair.masks[0]) for pair in pairing.pairs[::step][:MAX_LOOKED]]


def _choice(readings: Sequence[Reading], paths: Sequence[str], look: Looker) -> Choice:
    best = readings[0]
    if OBJECT in best.masks[0].template.fields:
        numbered = numbered_classes(best.masks[0].template, best.pairing, look)
        if numbered:
            best = replace(best, masks=numbered, pairing=pair_paths(paths, best.image, numbered))
    rivals = [r for r in readings[1:] if r.weight >= CLOSE * best.weight and _conflict(best, r)]
    of_classes = class_sources(
        [(r.masks[0].template, r.pairing) for r in readings if _may_be_class(r, best)], look
    )
    if of_classes and all(r.masks[0].template in {m.template for m in of_classes} for r in rivals):
        merged = replace(best, masks=of_classes, pairing=pair_paths(paths, best.image, of_classes))
        return Choice(merged, findings=(class_note(of_classes),))
    if not rivals:
        notes = () if best.masks[0].class_id is None else (class_note(best.masks),)
        return Choice(best, findings=(*notes, *_other_layouts(best, readings[1:])))
    return Choice(None, questions=(_which_mask([best, *rivals]),))


def _may_be_class(reading: Reading, best: Reading) -> bool:
    """True for masks of the same images for which, pair by pair, about as much speaks."""
    own, other = (r.weight / len(r.pairing.pairs) for r in (reading, best))
    if reading.masks[0].template.has_many or best.masks[0].template.has_many:
        return False
    is_usual = len(reading.pairing.pairs) >= USUAL * len(best.pairing.pairs)
    return is_usual and reading.image == best.image and own >= CLOSE * other


def _conflict(one: Reading, other: Reading) -> bool:
    """True if some file has another partner in the other reading."""
    partners = {path: pair for pair in one.pairing.pairs for path in (pair.image, *pair.masks)}
    return any(
        partners.get(path, pair) != pair
        for pair in other.pairing.pairs
        for path in (pair.image, *pair.masks)
    )


def _which_mask(readings: Sequence[Reading]) -> Question:
    options = tuple(
        {"image": r.image.text, "mask": r.masks[0].template.text} for r in readings
    )  # fmt: skip
    return Question(
        field="source.mask",
        why=f"{len(readings)} readings fit the files about equally: which files are the masks? "
        'Masks of several classes are named together: "mask": [{"template": …, "class": 1}, …]',
        options=options,
    )


def _other_layouts(best: Reading, others: Iterable[Reading]) -> list[Finding]:
    """Files that a second layout would pair, which the chosen templates leave out."""
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
