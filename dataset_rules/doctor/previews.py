"""Thumbnails of a source for the page: image, label mask and overlay of findings and pairs."""

import base64
from collections.abc import Iterator, Mapping, Sequence

import cv2
import numpy as np

from dataset_rules.artifacts.dataset import IGNORE
from dataset_rules.ground.documents import Document
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding
from dataset_rules.masks.decode import decode_masks
from dataset_rules.pairing.pairs import Pair, Pairing
from dataset_rules.pixels.images import Pixels, encode, read_image, read_mask
from dataset_rules.rules.rules import Rules
from dataset_rules.sources.files import Files
from dataset_rules.sources.headers import error_summary, sample_paths

SIDE_PX = 192  # long side; about 10 kB each
PER_FINDING = 4
MAX_PICTURES = 48  # of findings on one page
MAX_PAIRS = 12  # sample pairs, regardless of findings
QUALITY = 82
# Colours after Okabe and Ito that contrast with brown, blue and pink stain; by class id from 1.
COLOURS = ((0, 255, 120), (255, 220, 0), (0, 200, 255), (255, 80, 200), (255, 140, 0))
IGNORED = (128, 128, 128)
FILL = 0.35


class Picture(Document):
    """Preview of a pair or a single file; images are data URLs."""

    paths: tuple[str, ...]
    image: str | None = None
    mask: str | None = None
    overlay: str | None = None
    error: str | None = None


class Pictures(Document):
    """The pictures of a page."""

    of_findings: dict[int, tuple[Picture, ...]]  # by index of the finding
    ordinary: tuple[Picture, ...]


def pictures_of(
    files: Files, findings: Sequence[Finding], pairing: Pairing, rules: Rules
) -> Pictures:
    """Pictures of the files in findings, and of some sample pairs."""
    pair_of = {path: pair for pair in pairing.pairs for path in (pair.image, *pair.masks)}
    known = {*pair_of, *pairing.unpaired_images, *pairing.unpaired_masks, *pairing.others}
    wanted: dict[int, list[Pair | str]] = {}
    left = MAX_PICTURES
    for index, finding in enumerate(findings):
        chosen = _some_of([p for p in finding.paths if p in known], pair_of)[:left]
        if chosen:
            wanted[index], left = chosen, left - len(chosen)
    chosen_images = sample_paths([pair.image for pair in pairing.pairs], MAX_PAIRS)
    return Pictures(
        of_findings={
            index: tuple(_picture(files, item, rules) for item in items)
            for index, items in wanted.items()
        },
        ordinary=tuple(_picture(files, pair_of[i], rules) for i in sorted(chosen_images)),
    )


def _some_of(paths: Sequence[str], pair_of: Mapping[str, Pair]) -> list[Pair | str]:
    """The pairs or single files that the paths belong to, without repeats."""
    found: dict[str, Pair | str] = {}
    for path in paths:
        pair = pair_of.get(path)
        found.setdefault(pair.image if pair else path, pair or path)
        if len(found) == PER_FINDING:
            break
    return list(found.values())


def _picture(files: Files, item: Pair | str, rules: Rules) -> Picture:
    if isinstance(item, str):
        return Picture(paths=(item,), **dict(_single(files, item)))
    paths = (item.image, *item.masks[:1])
    image, error = _read(files, item.image)
    if image is None:
        return Picture(paths=paths, error=error)
    try:
        label = _label_of(files, item, rules)
    except RulesError as decoding_error:
        return Picture(paths=paths, image=_data_url(image), error=error_summary(decoding_error))
    overlay = _overlay(image, label) if label.shape == image.shape[:2] else None
    return Picture(
        paths=paths, image=_data_url(image), mask=_data_url(_in_colour(_nearest(label)), ".png"),
        overlay=None if overlay is None else _data_url(overlay),
        error=None if overlay is not None else "image and mask differ in size",
    )  # fmt: skip


def _single(files: Files, path: str) -> Iterator[tuple[str, str | None]]:
    image, error = _read(files, path)
    yield "image", None if image is None else _data_url(image)
    yield "error", error


def _read(files: Files, path: str) -> tuple[Pixels | None, str | None]:
    try:
        return _as_rgb8(read_image(files / path)), None
    except RulesError as error:
        return None, error_summary(error)


def _label_of(files: Files, pair: Pair, rules: Rules) -> Pixels:
    """The label mask; if its meaning is unknown, the brighter half of the values is class 1."""
    mask_files = [files / path for path in pair.masks]
    if rules.classes and rules.source.mask_kind:
        return decode_masks(mask_files, pair.class_ids, rules).label
    values = read_mask(mask_files[0])
    grey = values if values.ndim == 2 else values.max(axis=2)
    return np.asarray(grey > int(grey.max()) // 2, np.uint8)


def _as_rgb8(image: Pixels) -> Pixels:
    """The image as 8-bit RGB, at full size."""
    if image.dtype == np.uint16:
        low, high = np.percentile(image, (0.5, 99.5))
        scaled = (image.astype(np.float32) - low) / max(1.0, float(high - low))
        image = (scaled.clip(0, 1) * 255).astype(np.uint8)
    return image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)


def _size(pixels: Pixels) -> tuple[int, int]:
    """Width and height of the thumbnail; smaller images keep their size."""
    scale = min(1.0, SIDE_PX / max(pixels.shape[:2]))
    return max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale))


def _area(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.resize(pixels, _size(pixels), interpolation=cv2.INTER_AREA))


def _nearest(label: Pixels) -> Pixels:
    return np.asarray(cv2.resize(label, _size(label), interpolation=cv2.INTER_NEAREST_EXACT))


def _in_colour(label: Pixels) -> Pixels:
    table = np.zeros((256, 3), np.uint8)
    table[1:] = [COLOURS[(number - 1) % len(COLOURS)] for number in range(1, 256)]
    table[IGNORE] = IGNORED
    return table[label]


def _overlay(image: Pixels, label: Pixels) -> Pixels:
    """The thumbnail with its objects lightly filled and outlined."""
    small, classes = _area(image), _nearest(label)
    edge = cv2.morphologyEx(classes, cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8)) > 0
    share = np.where(edge & (classes > 0), 1.0, FILL * (classes > 0))[..., None]
    return np.asarray(small * (1 - share) + _in_colour(classes) * share, np.uint8)


def _data_url(pixels: Pixels, suffix: str = ".jpg") -> str:
    kind = {".jpg": "jpeg", ".png": "png"}[suffix]
    data = base64.b64encode(encode(_area(pixels), suffix, quality=QUALITY)).decode()
    return f"data:image/{kind};base64,{data}"
