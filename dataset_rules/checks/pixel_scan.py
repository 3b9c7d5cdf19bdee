"""Decode the files of a source, a sample of them or all, and keep thumbnails."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_rules.artifacts.dataset import Sample
from dataset_rules.checks.thumbnails import Glimpse, MaskGlimpse, glimpse_of, mask_glimpse_of
from dataset_rules.ground.documents import Document
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding
from dataset_rules.ground.parallel import each
from dataset_rules.masks.decode import decode_masks
from dataset_rules.pairing.pairs import Pair
from dataset_rules.pixels.images import (
    Header,
    is_opaque,
    read_image,
)
from dataset_rules.rules.rules import Rules
from dataset_rules.sources.files import Files
from dataset_rules.sources.headers import Survey, sample_of, told

# Default limits of the doctor: about 10 s of CPU time for any source.
MAX_IMAGES, MAX_IMAGE_PIXELS = 6_000, 150_000_000
MAX_PAIRS, MAX_MASK_PIXELS = 1_000, 60_000_000
MIN_FILES = 8  # regardless of their size

Tick = Callable[[], None]


class Seen(Document):
    """Thumbnails of a pair, taken while the formatter makes its sample."""

    image: Glimpse
    mask: MaskGlimpse


@dataclass
class Observed:
    """Decoded images and label masks, by image path."""

    images: dict[str, Glimpse] = field(default_factory=dict)
    masks: dict[str, MaskGlimpse] = field(default_factory=dict)
    see_through: list[str] = field(default_factory=list)  # files with transparent pixels
    damage: dict[str, str] = field(default_factory=dict)
    of_images: int = 0
    of_pairs: int = 0


def sampled(
    paths: Sequence[str], pixels: Mapping[str, int], most: int, *, most_pixels: int
) -> list[str]:
    """Sample paths by their hash, up to a number of files and of pixels."""
    chosen: list[str] = []
    total = 0
    for path in sample_of(paths, most):
        total += pixels.get(path, 0)
        if total > most_pixels and len(chosen) >= MIN_FILES:
            break
        chosen.append(path)
    return chosen


def observe(
    files: Files,
    images: Sequence[str],
    pairs: Sequence[Pair],
    survey: Survey,
    *,
    rules: Rules,
    is_full: bool,
    tick: Tick,
) -> Observed:
    """Decode images, and masks if the rules define the meaning of their values.

    Args:
        files: of the source.
        images: to be compared with each other.
        pairs: of the source.
        survey: the headers of all these files.
        rules: possibly incomplete.
        is_full: decode everything, not a sample.
        tick: called after each file.
    """
    seen = Observed(of_images=len(images), of_pairs=len(pairs))
    images = [p for p in images if p in survey.headers and survey.headers[p].pages == 1]
    sound = [p for p in pairs if not survey.damage.keys() & {p.image, *p.masks}]
    known = sound if rules.classes and rules.source.mask_kind else []
    if not is_full:
        images, known = _sampled_images(images, survey), _sampled_pairs(known, survey)
    _scan_images(seen, files, images, survey, tick)
    _scan_masks(seen, files, known, survey, rules=rules, tick=tick)
    return seen


def _sampled_images(images: Sequence[str], survey: Survey) -> list[str]:
    pixels = {path: _pixels(survey, path) for path in images}
    return sampled(images, pixels, MAX_IMAGES, most_pixels=MAX_IMAGE_PIXELS)


def _sampled_pairs(pairs: Sequence[Pair], survey: Survey) -> list[Pair]:
    by_image = {pair.image: pair for pair in pairs}
    pixels = {
        pair.image: sum(_pixels(survey, path) for path in pair.masks) for pair in pairs
    }  # fmt: skip
    chosen = sampled(list(by_image), pixels, MAX_PAIRS, most_pixels=MAX_MASK_PIXELS)
    return [by_image[image] for image in chosen]


def _pixels(survey: Survey, path: str) -> int:
    header = survey.headers.get(path)
    return header.height_px * header.width_px if header else 0


def _scan_images(
    seen: Observed, files: Files, images: Sequence[str], survey: Survey, tick: Tick
) -> None:
    def look(path: str) -> tuple[Glimpse | str, bool]:
        held = files / path
        try:
            glimpse = glimpse_of(read_image(held))
            return glimpse, survey.headers[path].has_alpha and not is_opaque(held)
        except RulesError as error:
            return told(error), False

    for path, (found, is_transparent) in zip(images, each(look, images), strict=True):
        if isinstance(found, str):
            seen.damage[path] = found
        else:
            seen.images[path] = found
        seen.see_through += [path] * is_transparent
        tick()


def _scan_masks(
    seen: Observed, files: Files, pairs: Sequence[Pair], survey: Survey, *, rules: Rules, tick: Tick
) -> None:
    def look(pair: Pair) -> tuple[MaskGlimpse | str, list[str]]:
        held = [files / path for path in pair.masks]
        try:
            found = mask_glimpse_of(decode_masks(held, pair.class_ids, rules).label)
            return found, list(_transparent(pair.masks, held, survey))
        except RulesError as error:
            return told(error), []

    for pair, (found, transparent) in zip(pairs, each(look, pairs), strict=True):
        if isinstance(found, str):
            seen.damage[pair.masks[0]] = found
        else:
            seen.masks[pair.image] = found
        seen.see_through += transparent
        tick()


def _transparent(
    paths: Sequence[str], held: Sequence[Path], survey: Survey
) -> Iterator[str]:  # fmt: skip
    for path, file in zip(paths, held, strict=True):
        header = survey.headers.get(path)
        if header and header.has_alpha and not is_opaque(file):
            yield path


def see_through_among(files: Files, headers: Mapping[str, Header]) -> tuple[str, ...]:
    """The files with transparent pixels."""
    return tuple(path for path, header in headers.items()
                 if header.has_alpha and not is_opaque(files / path))  # fmt: skip


class Outcome(Document):
    """The result of a task: samples (several with tiles), the hash of each file, thumbnails."""

    samples: tuple[Sample, ...]
    content: dict[str, str]
    written: dict[str, str]  # SHA-256 of each file's bytes: a power cut may truncate it
    findings: tuple[Finding, ...] = ()
    seen: Seen | None = None
    see_through: tuple[str, ...] = ()  # files with transparent pixels
