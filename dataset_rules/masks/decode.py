"""Source masks -> label mask (class per pixel) and instance map (object number per pixel)."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np

from dataset_rules.artifacts.dataset import IGNORE
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import Pixels, read_header, read_image, read_mask
from dataset_rules.pixels.values import crop_panel, gray_if_equal, values_in
from dataset_rules.rules.fields import ClassRule, MaskKind, SourceValue
from dataset_rules.rules.rules import Rules

MAX_OBJECTS = 65_535  # in one image: instance maps are uint16
JPEG_GAP = 32  # minimum difference of two values that stay distinguishable after JPEG
UNKNOWN = 256  # lookup entry of a value that belongs to no class
_BLOCK = 1 << 20  # pixels whose distances to all colours are in memory at once


@dataclass(frozen=True)
class DecodedMask:
    """The decoded mask files of one image."""

    label: Pixels  # HW, uint8: class ids, 255 ignore
    instances: Pixels | None = None  # HW, uint16: object numbers, 0 none
    overlap_px: int = 0  # pixels claimed by more than one object
    empty_files: int = 0  # mask files without objects


def decode_masks(
    paths: Sequence[Path], class_ids: Sequence[int | None], rules: Rules
) -> DecodedMask:
    """Decode the label mask of an image, and its instance map if the source has objects.

    Where objects overlap, the one whose file comes later in `paths` wins.

    Args:
        paths: the mask files, in order.
        class_ids: the class of each file if classes have separate files, else None.
        rules: with mask kind and classes set.

    Raises:
        RulesError: if a file is damaged, sizes differ or a value belongs to no class.
    """
    kind = rules.source.mask_kind
    if kind is MaskKind.INSTANCES:
        return _numbered_objects(paths, class_ids, rules)
    if kind is MaskKind.INSTANCE_FILES:
        return _object_files(paths, class_ids, rules)
    return DecodedMask(_merged(paths, class_ids, rules))


def decode_label(path: Path, rules: Rules) -> Pixels:
    """Class ids (HW, uint8) of one mask file."""
    table = _table_of(rules)
    if rules.source.mask_kind is MaskKind.COLORS:
        return _nearest_color(_as_color(_panel(read_image(path), rules)), table)
    values = gray_if_equal(_panel(read_mask(path), rules))
    if values.ndim == 3:
        raise RulesError(
            "the mask is coloured", where=str(path), expected="one value per pixel",
            remedy='set "mask_kind": "colors" in source',
        )  # fmt: skip
    if rules.source.mask_kind in {MaskKind.LABEL, MaskKind.TEXT}:
        return (_decode_jpeg if _is_jpeg(path) else _decode_exact)(values, table, path)
    return _nearest_value(values, table)


def _panel(pixels: Pixels, rules: Rules) -> Pixels:
    panel = rules.source.panel
    return pixels if panel is None else crop_panel(pixels, panel, panel.mask)


def _table_of(rules: Rules) -> list[tuple[SourceValue, int]]:
    """Every source value with its class id."""
    classes: tuple[ClassRule, ...] = rules.classes or ()
    known = [(value, rule.id) for rule in classes for value in rule.source_values]
    ignored: list[tuple[SourceValue, int]] = [(value, IGNORE) for value in rules.ignore_values]
    return [*known, *ignored, *((value, 0) for value in rules.drop)]


def _decode_exact(values: Pixels, table: Sequence[tuple[SourceValue, int]], path: Path) -> Pixels:
    lookup = np.full(np.iinfo(values.dtype).max + 1, UNKNOWN, np.uint16)
    for value, class_id in table:
        if isinstance(value, int) and value < len(lookup):
            lookup[value] = class_id
    present = values_in(values) if values.dtype == np.uint8 else np.unique(values)
    unknown = [int(value) for value in present if lookup[value] == UNKNOWN]
    if unknown:
        raise RulesError(
            "the mask holds values of no class", where=str(path),
            expected=", ".join(str(value) for value, _ in table),
            found=", ".join(map(str, unknown[:10])),
            remedy="give them a class in the rules or list them in ignore_values",
        )  # fmt: skip
    return _apply_lookup(values, lookup.astype(np.uint8))


def _is_jpeg(path: Path) -> bool:
    return path.suffix.lower() in {".jpg", ".jpeg"} and read_header(path).format == "JPEG"


def _decode_jpeg(values: Pixels, table: Sequence[tuple[SourceValue, int]], path: Path) -> Pixels:
    """JPEG changes values slightly: they can be recovered if the class values are far apart."""
    known = sorted(value for value, _ in table if isinstance(value, int))
    if any(right - left < JPEG_GAP for left, right in pairwise(known)):
        raise RulesError(
            "JPEG has damaged the class numbers of the mask beyond repair", where=str(path),
            expected=f"values at least {JPEG_GAP} apart", found=", ".join(map(str, known)),
            remedy="store label masks as PNG",
        )  # fmt: skip
    return _nearest_value(values, table)


def _nearest_value(values: Pixels, table: Sequence[tuple[SourceValue, int]]) -> Pixels:
    """Map each grey value to the nearest one in the table, the higher one at equal distance."""
    known = sorted((value, class_id) for value, class_id in table if isinstance(value, int))
    points = np.array([value for value, _ in known], np.int64)
    ids = np.array([class_id for _, class_id in known], np.uint8)
    edges = (points[1:] + points[:-1] + 1) // 2
    lookup = ids[np.searchsorted(edges, np.arange(np.iinfo(values.dtype).max + 1), side="right")]
    return _apply_lookup(values, lookup)


def _apply_lookup(values: Pixels, lookup: Pixels) -> Pixels:
    """The table entry of each value."""
    steps = np.flatnonzero(lookup[1:] != lookup[:-1]) + 1
    if len(steps) == 1 and lookup[0] == 0 and lookup[-1] == 1:  # 6 times faster than a table
        return np.asarray(values >= int(steps[0])).view(np.uint8)
    if values.dtype == np.uint8 and lookup.dtype == np.uint8:
        return np.asarray(cv2.LUT(values, lookup))  # 4 times faster than indexing
    found: Pixels = lookup[values]
    return found


def _nearest_color(pixels: Pixels, table: Sequence[tuple[SourceValue, int]]) -> Pixels:
    points = np.array([_as_triple(value) for value, _ in table], np.float32)
    ids = np.array([class_id for _, class_id in table], np.uint8)
    flat = pixels.reshape(-1, 3)
    label = np.empty(len(flat), np.uint8)
    for start in range(0, len(flat), _BLOCK):
        block = flat[start : start + _BLOCK].astype(np.float32)
        distances = np.stack([((block - point) ** 2).sum(1) for point in points])
        label[start : start + _BLOCK] = ids[distances.argmin(0)]
    return label.reshape(pixels.shape[:2])


def _as_color(values: Pixels) -> Pixels:
    return values if values.ndim == 3 else np.repeat(values[..., None], 3, axis=2)


def _as_triple(value: SourceValue) -> tuple[int, int, int]:
    return (value, value, value) if isinstance(value, int) else value


def _numbered_objects(
    paths: Sequence[Path], class_ids: Sequence[int | None], rules: Rules
) -> DecodedMask:
    """Instance maps, one per class if classes have separate files; numbering continues."""
    label = instances = None
    overlap_px = 0
    for path, class_id in zip(paths, class_ids, strict=True):
        numbers, ignored = _numbers_of(path, rules)
        if label is None or instances is None:
            label, instances = np.zeros(numbers.shape, np.uint8), np.zeros(numbers.shape, np.uint16)
        _check_size(path, numbers, label)
        area, offset = numbers > 0, int(instances.max())
        if offset and offset + int(numbers.max()) > MAX_OBJECTS:
            raise RulesError("too many objects in one image", where=str(path))
        overlap_px += int(np.count_nonzero(instances[area]))
        label[area] = _object_class(rules) if class_id is None else class_id
        instances[area] = numbers[area] + offset
        label[ignored] = IGNORE
    assert label is not None  # every pair has at least one mask file
    return DecodedMask(label, instances, overlap_px)


def _numbers_of(path: Path, rules: Rules) -> tuple[Pixels, Pixels]:
    """Object numbers except those that the rules drop or ignore, and the ignored pixels."""
    values = gray_if_equal(_panel(read_mask(path), rules))
    if values.ndim == 3:
        raise RulesError(
            "an instance map has one number per pixel", where=str(path), found="a coloured image"
        )
    ignored = np.isin(values, [v for v in rules.ignore_values if isinstance(v, int)])
    dropped = np.isin(values, [v for v in rules.drop if isinstance(v, int)])
    return np.where(ignored | dropped, 0, values).astype(np.uint16), ignored


def _object_class(rules: Rules) -> int:
    return next((rule.id for rule in rules.classes or () if rule.id != 0), 1)


def _object_files(
    paths: Sequence[Path], class_ids: Sequence[int | None], rules: Rules
) -> DecodedMask:
    if len(paths) > MAX_OBJECTS:
        raise RulesError(
            "too many objects in one image", where=str(paths[0].parent),
            expected=f"at most {MAX_OBJECTS}", found=str(len(paths)),
        )  # fmt: skip
    label = instances = None
    overlap_px = empty_files = 0
    for number, (path, class_id) in enumerate(zip(paths, class_ids, strict=True), start=1):
        own = decode_label(path, rules)
        if label is None or instances is None:
            label, instances = np.zeros_like(own), np.zeros(own.shape, np.uint16)
        _check_size(path, own, label)
        area = (own != 0) & (own != IGNORE)
        label[own == IGNORE] = IGNORE
        overlap_px += int(np.count_nonzero(instances[area]))
        empty_files += not area.any()
        label[area] = own[area] if class_id is None else class_id
        instances[area] = number
    assert label is not None  # every pair has at least one mask file
    return DecodedMask(label, instances, overlap_px, empty_files)


def _merged(paths: Sequence[Path], class_ids: Sequence[int | None], rules: Rules) -> Pixels:
    """Merge the files of several classes into one label mask, later files on top."""
    merged: Pixels | None = None
    for path, class_id in zip(paths, class_ids, strict=True):
        own = decode_label(path, rules)
        if class_id is not None:
            own = np.where((own != 0) & (own != IGNORE), np.uint8(class_id), own)
        if merged is None:
            merged = own
            continue
        _check_size(path, own, merged)
        merged = np.where(own != 0, own, merged)
    assert merged is not None  # every pair has at least one mask file
    return merged


def _check_size(path: Path, mask: Pixels, other: Pixels) -> None:
    if mask.shape != other.shape:
        raise RulesError(
            "the masks of one image have different sizes", where=str(path),
            expected=f"{other.shape[0]} x {other.shape[1]}",
            found=f"{mask.shape[0]} x {mask.shape[1]}",
        )  # fmt: skip
