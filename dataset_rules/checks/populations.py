"""Detect two kinds of images in one source, such as stained tissue and electron microscopy."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dataset_rules.checks.thumbnails import ImageThumbnail
from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.pixels.images import Header

MIN_IMAGES = 8  # fewer are not representative
MIN_SHARE = 0.02  # of the images: the smaller kind, and at least two images
# Minimum gap between the kinds, relative to the range of the middle 90 % of the wider one: it may
# be narrower if the files of the two also differ in size or storage format.
GAP, GAP_OF_OTHER_FILES = 2.0, 0.75
MIN_GAP = {"colour": 15.0, "brightness": 30.0}  # of 255
MIN_ALONE = 60.0  # gap in brightness that separates kinds by itself

_MEASURES: dict[str, Callable[[ImageThumbnail], float]] = {
    "colour": lambda thumbnail: thumbnail.colour,
    "brightness": lambda thumbnail: thumbnail.brightness,
}
_NAMES = {"colour": ("grey or nearly", "coloured"), "brightness": ("dark", "bright")}


def check_populations(
    images: Mapping[str, ImageThumbnail], headers: Mapping[str, Header]
) -> list[Finding]:
    """One finding if the images fall into two kinds with nothing in between, else none."""
    paths = sorted(images)
    if len(paths) < MIN_IMAGES:
        return []
    for name, measure in _MEASURES.items():
        values = np.array([measure(images[path]) for path in paths])
        edge, gap, spread = _widest_gap(values)
        is_high = values > edge
        is_other = not _forms(paths, is_high, headers) & _forms(paths, ~is_high, headers)
        min_gap = MIN_GAP[name] if is_other or name == "colour" else MIN_ALONE
        if gap >= min_gap and gap >= spread * (GAP_OF_OTHER_FILES if is_other else GAP):
            return [_two_kinds(paths, is_high, _NAMES[name])]
    return []


def _forms(
    paths: Sequence[str], chosen: NDArray[np.bool_], headers: Mapping[str, Header]
) -> set[tuple[object, ...]]:
    """The sizes and storage formats of the chosen files."""
    found = (headers[path] for path, keep in zip(paths, chosen, strict=True) if keep)
    return {(header.size_px, header.mode, header.bits) for header in found}


def _widest_gap(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Middle and width of the widest gap, and the larger spread of the values on either side."""
    ordered = np.sort(values)
    few = max(2, int(np.ceil(MIN_SHARE * len(ordered))))
    place = few - 1 + int(np.diff(ordered)[few - 1 : len(ordered) - few].argmax())
    sides = (ordered[: place + 1], ordered[place + 1 :])
    spread = max(float(np.ptp(np.quantile(side, (0.05, 0.95)))) for side in sides)
    gap = float(ordered[place + 1] - ordered[place])
    return float(ordered[place] + gap / 2), gap, spread


def _two_kinds(paths: Sequence[str], is_high: NDArray[np.bool_], names: tuple[str, str]) -> Finding:
    high = [path for path, above in zip(paths, is_high, strict=True) if above]
    low = [path for path, above in zip(paths, is_high, strict=True) if not above]
    smaller = low if len(low) <= len(high) else high
    return Finding(
        code="two_populations", severity=Severity.WARNING, paths=tuple(smaller),
        message=f"the images are of two kinds with nothing between: {len(low)} are {names[0]}, "
        f"{len(high)} {names[1]}; the paths are those of the smaller kind",
        remedy="if they do not belong together, list one kind in source.exclude, or format two "
        "datasets",
        looked_at=len(paths),
    )  # fmt: skip
