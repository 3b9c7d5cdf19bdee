"""Two kinds of images in one source, such as stained tissue and electron microscopy."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dataset_rules.checks.thumbnails import Glimpse
from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.pixels.images import Header

MIN_IMAGES = 8  # fewer say nothing of what is usual
MIN_SHARE = 0.02  # of the images that the smaller kind has, and two at least
# Width of the gap between the kinds, in ranges within the middle 90 % of the wider one: it may be
# narrow where the files of the two differ in size or storage as well.
GAP, GAP_OF_OTHER_FILES = 2.0, 0.75
MIN_GAP = {"colour": 15.0, "brightness": 30.0}  # of 255
MIN_ALONE = 60.0  # by which brightness alone tells kinds apart

_MEASURES: dict[str, Callable[[Glimpse], float]] = {
    "colour": lambda glimpse: glimpse.colour,
    "brightness": lambda glimpse: glimpse.brightness,
}
_NAMES = {"colour": ("grey or nearly", "coloured"), "brightness": ("dark", "bright")}


def check_populations(
    images: Mapping[str, Glimpse], headers: Mapping[str, Header]
) -> list[Finding]:
    """One finding where the images fall into two kinds with nothing between, else none."""
    paths = sorted(images)
    if len(paths) < MIN_IMAGES:
        return []
    for name, measure in _MEASURES.items():
        values = np.array([measure(images[path]) for path in paths])
        edge, gap, spread = _widest_gap(values)
        is_high = values > edge
        is_other = not _forms(paths, is_high, headers) & _forms(paths, ~is_high, headers)
        least = MIN_GAP[name] if is_other or name == "colour" else MIN_ALONE
        if gap >= least and gap >= spread * (GAP_OF_OTHER_FILES if is_other else GAP):
            return [_two_kinds(paths, is_high, _NAMES[name])]
    return []


def _forms(
    paths: Sequence[str], chosen: NDArray[np.bool_], headers: Mapping[str, Header]
) -> set[tuple[object, ...]]:
    """The sizes and ways of storage of the chosen files."""
    found = (headers[path] for path, is_one in zip(paths, chosen, strict=True) if is_one)
    return {(header.size_px, header.mode, header.bits) for header in found}


def _widest_gap(values: NDArray[np.float64]) -> tuple[float, float, float]:
    """Middle and width of the widest gap, and the spread of the values on its wider side."""
    ordered = np.sort(values)
    few = max(2, int(np.ceil(MIN_SHARE * len(ordered))))
    place = few - 1 + int(np.diff(ordered)[few - 1 : len(ordered) - few].argmax())
    sides = (ordered[: place + 1], ordered[place + 1 :])
    spread = max(float(np.ptp(np.quantile(side, (0.05, 0.95)))) for side in sides)
    gap = float(ordered[place + 1] - ordered[place])
    return float(ordered[place] + gap / 2), gap, spread


def _two_kinds(paths: Sequence[str], is_high: NDArray[np.bool_], names: tuple[str, str]) -> Finding:
    high = [path for path, is_one in zip(paths, is_high, strict=True) if is_one]
    low = [path for path, is_one in zip(paths, is_high, strict=True) if not is_one]
    smaller = low if len(low) <= len(high) else high
    return Finding(
        code="two_populations", severity=Severity.WARNING, paths=tuple(smaller),
        message=f"the images are of two kinds with nothing between: {len(low)} are {names[0]}, "
        f"{len(high)} {names[1]}; the paths are those of the smaller kind",
        remedy="if they do not belong together, list one kind in source.exclude, or format two "
        "datasets",
        looked_at=len(paths),
    )  # fmt: skip
