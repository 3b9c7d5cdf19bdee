"""Resize an image and its masks to the size in the rules; mask values are never blended."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from dataset_rules.artifacts.dataset import IGNORE
from dataset_rules.ground.errors import RulesError
from dataset_rules.pixels.images import Pixels
from dataset_rules.pixels.values import values_in
from dataset_rules.rules.fields import Fit
from dataset_rules.rules.rules import Rules

SAME_SCALE = 0.01  # relative difference of horizontal and vertical scale that is ignored
HALF, QUARTER = 128, 64  # coverage of a pixel; 255 is full
# A class is thin if it would lose more than this share of its area. Membranes of 6 px lose 0.11
# when shrunk 4x, 0.24 when shrunk 8x; nuclei of 20 px: 0.06 and 0.14; lines of 1 px: 0.99.
THIN = 0.15
UNCOUNTABLE = 256  # pixels; more than an 8-bit counter can hold


@dataclass(frozen=True)
class Part:
    """An image with its masks; `suffix` identifies a tile.

    All have the same size, unless the image was decoded smaller because it will shrink anyway.
    """

    image: Pixels
    label: Pixels
    instances: Pixels | None
    suffix: str = ""
    scale: float | None = 1.0  # source pixels per pixel; None if it differs between sides


def fitted(part: Part, rules: Rules) -> list[Part]:
    """Fit the part to the size in the rules; returns several parts with `tile`.

    Raises:
        RulesError: with `crop`, if the image is smaller than the requested size.
    """
    if rules.fit is Fit.KEEP:
        return [part]
    size = _size_of(rules)
    match rules.fit:
        case Fit.STRETCH:
            return [_stretched(part, size)]
        case Fit.PAD:
            return [_padded(_shrunk(part, size), size)]
        case Fit.CROP:
            return [_cropped(part, size)]
        case _:
            return _tiles(_padded(part, size), size, rules.overlap)


def scaled_by_rules(image: Pixels, rules: Rules) -> Pixels:
    """The whole image at the scale of `fitted`; unchanged with keep, crop and tile."""
    if rules.fit not in {Fit.STRETCH, Fit.PAD}:
        return image
    part, size = Part(image, np.zeros(image.shape[:2], np.uint8), None), _size_of(rules)
    return (_stretched if rules.fit is Fit.STRETCH else _shrunk)(part, size).image


def _size_of(rules: Rules) -> tuple[int, int]:
    if rules.height is None or rules.width is None:
        raise ValueError(f"fit '{rules.fit}' without height and width")  # the rules reject this
    return rules.height, rules.width


def _stretched(part: Part, size: tuple[int, int]) -> Part:
    height, width = part.label.shape
    if (height, width) == size:
        return part
    label = resize_label(part.label, size)
    down, right = height / size[0], width / size[1]
    return replace(
        part,
        image=_resized(part.image, size, is_halved=part.image.shape[:2] != (height, width)),
        label=label,
        instances=_resized_instances(part.instances, label),
        scale=(down * right) ** 0.5 if abs(down / right - 1) < SAME_SCALE else None,
    )


def resize_image(image: Pixels, size: tuple[int, int]) -> Pixels:
    """The image at (height, width): area mean if it shrinks, cubic if it grows."""
    shrinks = size[0] <= image.shape[0] and size[1] <= image.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=how))


def _resized(image: Pixels, size: tuple[int, int], *, is_halved: bool) -> Pixels:
    """Like `resize_image`; an image decoded at half size is already smoothed.

    A 3x reduction leaves at least 1.5x. Up to 2x, interpolation is closer to the area mean of all
    pixels than a second mean is (43 dB instead of 41), and takes a third of the time.
    """
    if is_halved and all(old <= 2 * new for old, new in zip(image.shape[:2], size, strict=True)):
        return np.asarray(
            cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR_EXACT)
        )
    return resize_image(image, size)


def resize_label(label: Pixels, size: tuple[int, int]) -> Pixels:
    """The label mask at (height, width): each pixel gets the class with the largest area in it.

    A thin class, which would lose much of its area, also gets the background pixels that it runs
    through.
    """
    ids = values_in(label)
    if len(ids) == 1:
        return np.full(size, ids[0], label.dtype)
    shares = _shares(label, ids, size)
    # At equal shares the last one painted wins: a thin object over the background.
    first, *others = sorted(ids, key=lambda number: (number != 0, -number))
    best, resized = shares[first].copy(), np.full(size, first, label.dtype)
    for class_id in others:
        np.copyto(resized, class_id, where=shares[class_id] >= best)
        np.maximum(best, shares[class_id], out=best)
    for class_id in reversed(ids):
        if class_id not in {0, IGNORE} and _is_thin(shares[class_id]):
            resized[_ridge(shares[class_id]) & (resized == 0)] = class_id
    return resized


def _shares(label: Pixels, ids: Sequence[int], size: tuple[int, int]) -> dict[int, Pixels]:
    """Coverage of each pixel by each class, 0 to 255."""
    if len(ids) == 2:
        is_indicator = list(ids) == [0, 1]  # already 1 for the class and 0 elsewhere
        share = _share(label if is_indicator else _is_class(label, ids[1]), size)
        return {ids[0]: 255 - share, ids[1]: share}
    return {class_id: _share(_is_class(label, class_id), size) for class_id in ids}


def _is_class(label: Pixels, class_id: int) -> Pixels:
    return np.asarray(label == class_id).view(np.uint8)


def _share(indicator: Pixels, size: tuple[int, int]) -> Pixels:
    """Coverage of each resized pixel, 0 to 255; `indicator` is 1 inside the class, else 0."""
    down, right = (old // new for old, new in zip(indicator.shape, size, strict=True))
    if indicator.shape == (down * size[0], right * size[1]) and down * right < UNCOUNTABLE:
        return _counted_share(indicator, down, right)
    area = np.negative(indicator)  # 0 and 255
    shrinks = size[0] <= area.shape[0] and size[1] <= area.shape[1]
    how = cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR
    return np.asarray(cv2.resize(area, (size[1], size[0]), interpolation=how))


def _counted_share(indicator: Pixels, down: int, right: int) -> Pixels:
    """The area mean for integer factors: three times faster than `cv2.resize`."""
    bands = indicator.reshape(indicator.shape[0] // down, down, -1)
    rows = bands[:, 0].copy()
    for step in range(1, down):
        rows += bands[:, step]
    shares = np.round(255 * np.arange(UNCOUNTABLE) / (down * right)).astype(np.uint8)
    return np.asarray(cv2.LUT(_sums(rows, right), shares))


def _sums(rows: Pixels, count: int) -> Pixels:
    """Sums (below 256) of `count` neighbours in each row of 8-bit values."""
    word = {2: np.uint16, 4: np.uint32, 8: np.uint64}.get(count)
    if word is not None:  # one multiplication whose highest byte is the sum: twice as fast
        ones = word(int.from_bytes(b"\1" * count, "big"))
        sums: Pixels = ((rows.view(word) * ones) >> word(8 * (count - 1))).astype(np.uint8)
        return sums
    cells = rows.reshape(len(rows), -1, count)
    sums = cells[..., 0].copy()
    for step in range(1, count):
        sums += cells[..., step]
    return sums


def _is_thin(share: Pixels) -> bool:
    """True if much of the area of a class is in pixels that it covers less than half."""
    lost = cv2.threshold(share, HALF - 1, 0, cv2.THRESH_TOZERO_INV)[1]
    return bool(cv2.sumElems(lost)[0] > THIN * cv2.sumElems(share)[0])


def _ridge(share: Pixels) -> Pixels:
    """Pixels with a coverage of at least a quarter that is higher than on both sides."""
    framed = np.pad(share, 1)
    up, down = framed[:-2, 1:-1], framed[2:, 1:-1]
    left, right = framed[1:-1, :-2], framed[1:-1, 2:]
    crest = ((share > up) & (share >= down)) | ((share > left) & (share >= right))
    ridge: Pixels = crest & (share >= QUARTER)
    return ridge


def _resized_instances(instances: Pixels | None, label: Pixels) -> Pixels | None:
    """Object numbers by nearest pixel, made consistent with the objects of the label mask."""
    if instances is None:
        return None
    height, width = label.shape
    is_object = (label != 0) & (label != IGNORE)
    near = _nearest(instances, (height, width))
    missed = is_object & (near == 0)
    if missed.any():  # no object covers the centre of the pixel: use the highest number in reach
        reach = [
            max(3, -(-old // new)) for old, new in zip(instances.shape, near.shape, strict=True)
        ]
        grown = np.asarray(cv2.dilate(instances, np.ones(reach, np.uint8)))
        near = np.where(missed, _nearest(grown, (height, width)), near)
    return np.where(is_object, near, np.uint16(0))


def _nearest(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    how = cv2.INTER_NEAREST_EXACT
    return np.asarray(cv2.resize(pixels, (size[1], size[0]), interpolation=how))


def _shrunk(part: Part, size: tuple[int, int]) -> Part:
    """Shrunk to fit, keeping the aspect ratio; never enlarged."""
    return _stretched(part, _inside(part.label.shape, size))


def _inside(shape: tuple[int, ...], size: tuple[int, int]) -> tuple[int, int]:
    height, width = shape[:2]
    factor = min(1.0, size[0] / height, size[1] / width)
    return max(1, int(height * factor)), max(1, int(width * factor))


def shrunk_size(size_px: tuple[int, int], rules: Rules) -> tuple[int, int] | None:
    """Height and width after scaling an image of this size; None if it is not scaled."""
    match rules.fit:
        case Fit.STRETCH:
            return _size_of(rules)
        case Fit.PAD:
            return _inside(size_px, _size_of(rules))
        case _:
            return None


def _padded(part: Part, size: tuple[int, int]) -> Part:
    """In the upper left corner of a canvas of at least `size`; the padding is ignored."""
    bottom = max(0, size[0] - part.image.shape[0])
    right = max(0, size[1] - part.image.shape[1])
    instances = part.instances
    return replace(
        part,
        image=_pad_to(part.image, bottom, right, value=0),
        label=_pad_to(part.label, bottom, right, value=IGNORE),
        instances=None if instances is None else _pad_to(instances, bottom, right, value=0),
    )


def _pad_to(pixels: Pixels, bottom: int, right: int, *, value: int) -> Pixels:
    width = [(0, bottom), (0, right), (0, 0)][: pixels.ndim]
    return np.pad(pixels, width, constant_values=value)


def _cropped(part: Part, size: tuple[int, int]) -> Part:
    """The centre of the image."""
    top, left = (part.image.shape[axis] - size[axis] for axis in (0, 1))
    if top < 0 or left < 0:
        raise RulesError(
            "the image is too small to crop",
            expected=f"at least {size[0]} x {size[1]}",
            found=f"{part.image.shape[0]} x {part.image.shape[1]}",
            remedy="choose fit 'pad' or 'stretch', or a smaller size",
        )  # fmt: skip
    return _window(part, (top // 2, left // 2), size)


def _tiles(part: Part, size: tuple[int, int], overlap: int) -> list[Part]:
    """Tiles that cover the image; the last one of a row or column ends at the border."""
    rows, columns = (_origins(part.image.shape[axis], size[axis], overlap) for axis in (0, 1))
    return [
        _window(part, (top, left), size, suffix=f"_r{i}c{j}")
        for i, top in enumerate(rows)
        for j, left in enumerate(columns)
    ]


def _origins(length_px: int, tile_px: int, overlap_px: int) -> list[int]:
    last = length_px - tile_px
    return [*range(0, last, tile_px - overlap_px), last]


def _window(
    part: Part, origin: tuple[int, int], size: tuple[int, int], *, suffix: str = ""
) -> Part:
    area = tuple(slice(start, start + side) for start, side in zip(origin, size, strict=True))
    instances = None if part.instances is None else part.instances[area]
    return replace(
        part, image=part.image[area], label=part.label[area], instances=instances, suffix=suffix
    )
