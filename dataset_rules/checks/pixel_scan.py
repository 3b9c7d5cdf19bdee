"""Decode the files of a source, a sample of them or all, and keep thumbnails."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from dataset_rules.artifacts.dataset import Sample
from dataset_rules.checks.thumbnails import (
    ImageThumbnail,
    MaskThumbnail,
    image_thumbnail,
    mask_thumbnail,
)
from dataset_rules.ground.documents import Document
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding
from dataset_rules.ground.parallel import parallel_map
from dataset_rules.masks.decode import decode_masks
from dataset_rules.pairing.pairs import Pair
from dataset_rules.pixels.images import (
    Header,
    is_opaque,
    read_image,
)
from dataset_rules.rules.rules import Rules
from dataset_rules.sources.files import Files
from dataset_rules.sources.headers import Survey, error_summary, sample_paths

# Default limits of the doctor: about 10 s of CPU time for any source.
MAX_IMAGES, MAX_IMAGE_PIXELS = 6_000, 150_000_000
MAX_PAIRS, MAX_MASK_PIXELS = 1_000, 60_000_000
MIN_FILES = 8  # regardless of their size

Tick = Callable[[], None]


class PairThumbnails(Document):
    """Thumbnails of a pair, taken while the formatter makes its sample."""

    image: ImageThumbnail
    mask: MaskThumbnail


@dataclass
class PixelScan:
    """Decoded images and label masks, by image path."""

    images: dict[str, ImageThumbnail] = field(default_factory=dict)
    masks: dict[str, MaskThumbnail] = field(default_factory=dict)
    transparent: list[str] = field(default_factory=list)  # files with transparent pixels
    damage: dict[str, str] = field(default_factory=dict)
    of_images: int = 0
    of_pairs: int = 0


def sampled(
    paths: Sequence[str], pixels: Mapping[str, int], max_files: int, *, max_pixels: int
) -> list[str]:
    """Sample paths by their hash, up to a number of files and of pixels."""
    chosen: list[str] = []
    total = 0
    for path in sample_paths(paths, max_files):
        total += pixels.get(path, 0)
        if total > max_pixels and len(chosen) >= MIN_FILES:
            break
        chosen.append(path)
    return chosen


def scan_pixels(
    files: Files,
    images: Sequence[str],
    pairs: Sequence[Pair],
    survey: Survey,
    *,
    rules: Rules,
    is_full: bool,
    tick: Tick,
) -> PixelScan:
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
    scan = PixelScan(of_images=len(images), of_pairs=len(pairs))
    images = [p for p in images if p in survey.headers and survey.headers[p].pages == 1]
    sound = [p for p in pairs if not survey.damage.keys() & {p.image, *p.masks}]
    known = sound if rules.classes and rules.source.mask_kind else []
    if not is_full:
        images, known = _sampled_images(images, survey), _sampled_pairs(known, survey)
    _scan_images(scan, files, images, survey, tick)
    _scan_masks(scan, files, known, survey, rules=rules, tick=tick)
    return scan


def _sampled_images(images: Sequence[str], survey: Survey) -> list[str]:
    pixels = {path: _pixels(survey, path) for path in images}
    return sampled(images, pixels, MAX_IMAGES, max_pixels=MAX_IMAGE_PIXELS)


def _sampled_pairs(pairs: Sequence[Pair], survey: Survey) -> list[Pair]:
    by_image = {pair.image: pair for pair in pairs}
    pixels = {
        pair.image: sum(_pixels(survey, path) for path in pair.masks) for pair in pairs
    }  # fmt: skip
    chosen = sampled(list(by_image), pixels, MAX_PAIRS, max_pixels=MAX_MASK_PIXELS)
    return [by_image[image] for image in chosen]


def _pixels(survey: Survey, path: str) -> int:
    header = survey.headers.get(path)
    return header.height_px * header.width_px if header else 0


def _scan_images(
    scan: PixelScan, files: Files, images: Sequence[str], survey: Survey, tick: Tick
) -> None:
    def load(path: str) -> tuple[ImageThumbnail | str, bool]:
        file = files / path
        try:
            thumbnail = image_thumbnail(read_image(file))
            return thumbnail, survey.headers[path].has_alpha and not is_opaque(file)
        except RulesError as error:
            return error_summary(error), False

    for path, (found, is_transparent) in zip(images, parallel_map(load, images), strict=True):
        if isinstance(found, str):
            scan.damage[path] = found
        else:
            scan.images[path] = found
        scan.transparent += [path] * is_transparent
        tick()


def _scan_masks(
    scan: PixelScan,
    files: Files,
    pairs: Sequence[Pair],
    survey: Survey,
    *,
    rules: Rules,
    tick: Tick,
) -> None:
    def load(pair: Pair) -> tuple[MaskThumbnail | str, list[str]]:
        files_of_pair = [files / path for path in pair.masks]
        try:
            found = mask_thumbnail(decode_masks(files_of_pair, pair.class_ids, rules).label)
            return found, list(_transparent(pair.masks, files_of_pair, survey))
        except RulesError as error:
            return error_summary(error), []

    for pair, (found, transparent) in zip(pairs, parallel_map(load, pairs), strict=True):
        if isinstance(found, str):
            scan.damage[pair.masks[0]] = found
        else:
            scan.masks[pair.image] = found
        scan.transparent += transparent
        tick()


def _transparent(
    paths: Sequence[str], files_of_pair: Sequence[Path], survey: Survey
) -> Iterator[str]:  # fmt: skip
    for path, file in zip(paths, files_of_pair, strict=True):
        header = survey.headers.get(path)
        if header and header.has_alpha and not is_opaque(file):
            yield path


def transparent_files(files: Files, headers: Mapping[str, Header]) -> tuple[str, ...]:
    """The files with transparent pixels."""
    return tuple(path for path, header in headers.items()
                 if header.has_alpha and not is_opaque(files / path))  # fmt: skip


class Outcome(Document):
    """The result of a task: samples (several with tiles), the hash of each file, thumbnails."""

    samples: tuple[Sample, ...]
    content: dict[str, str]
    written: dict[str, str]  # SHA-256 of each file's bytes: a power cut may truncate it
    findings: tuple[Finding, ...] = ()
    seen: PairThumbnails | None = None
    see_through: tuple[str, ...] = ()  # files with transparent pixels
