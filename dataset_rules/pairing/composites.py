"""Composites: files with several panels of one size side by side, one of them the mask.

A composite is recognised by its panel borders: neighbouring pixels differ more there than almost
anywhere else. Only files that no template pairs are checked, a few per folder.
"""

import json
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.profile import PHOTOGRAPH, likeness_of
from dataset_rules.pixels.images import Pixels, read_image
from dataset_rules.pixels.values import crop_panel
from dataset_rules.rules.fields import Panel
from dataset_rules.rules.template import escape
from dataset_rules.sources.files import Files

MAX_PANELS = 8  # along one side
MIN_SIDE_PX = 8  # of a panel
MAX_DECODED = 4  # files per folder
MAX_FOLDERS = 20
MIN_STEP_RATIO = 1.5  # of the step at a border to the 95th percentile inside its two panels
MIN_SAME_SHAPE = 0.7  # of the decoded files of a folder: composites of one shape
MIN_MASK_LIKENESS = 0.6  # of a panel that is a mask


@dataclass(frozen=True)
class Composites:
    """The composites of a folder: number of panels, and which of them are masks."""

    template: str
    paths: tuple[str, ...]
    columns: int
    rows: int
    masks: tuple[int, ...]
    photographs: tuple[int, ...]
    is_repeated: bool  # all panels are equal

    @property
    def panel(self) -> Panel | None:
        """Image and mask panel if exactly one is a mask; the first photograph is the image."""
        if len(self.masks) != 1 or not self.photographs:
            return None
        image, mask = self.photographs[0], self.masks[0]
        return Panel(columns=self.columns, rows=self.rows, image=image, mask=mask)

    @property
    def is_certain(self) -> bool:
        """True if there is exactly one image and one mask."""
        return self.panel is not None and self.columns * self.rows == 2


def composites_among(folder: Files, paths: Sequence[str]) -> list[Composites]:
    """The composites among unpaired files, by folder and suffix."""
    by_folder: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(paths):
        place, _, name = path.rpartition("/")
        by_folder[place, name.rpartition(".")[2]].append(path)
    groups = list(by_folder.items())[:MAX_FOLDERS]
    found = (_composites(folder, place, suffix, files) for (place, suffix), files in groups)
    return [c for c in found if c is not None]


def _composites(folder: Files, place: str, suffix: str, paths: Sequence[str]) -> Composites | None:
    """Composites of one shape; None if too few of the decoded files are."""
    found = [
        pixels for path in paths[:MAX_DECODED] if (pixels := _pixels(folder / path)) is not None
    ]
    grids = [_grid_of(pixels) for pixels in found]
    usual = max(set(grids), key=grids.count, default=None)
    if usual is None or grids.count(usual) < MIN_SAME_SHAPE * len(grids):
        return None
    columns, rows = usual
    found = [pixels for pixels, grid in zip(found, grids, strict=True) if grid == usual]
    likeness = np.mean([_likenesses(pixels, columns, rows) for pixels in found], axis=0)
    repeated = all(_is_repeated(pixels, columns, rows) for pixels in found)
    return Composites(
        template="/".join([*([escape(place)] if place else []), f"{{name}}.{escape(suffix)}"]),
        paths=tuple(paths),
        columns=columns,
        rows=rows,
        masks=tuple(int(i) for i in np.flatnonzero(likeness > MIN_MASK_LIKENESS)),
        photographs=tuple(int(i) for i in np.flatnonzero(likeness < PHOTOGRAPH)),
        is_repeated=repeated,
    )


def _pixels(file: Path) -> Pixels | None:
    try:
        return read_image(file)
    except RulesError:
        return None  # damage is reported by the damage check


def _grid_of(pixels: Pixels) -> tuple[int, int] | None:
    """Columns and rows; None for an image with a single panel."""
    columns, rows = _panels_along(pixels), _panels_along(np.swapaxes(pixels, 0, 1))
    return (columns, rows) if columns * rows > 1 else None


def _panels_along(pixels: Pixels) -> int:
    """The largest number of equal panels with a step at every border."""
    width = pixels.shape[1]
    if width < 2 * MIN_SIDE_PX:
        return 1
    steps = np.abs(np.diff(pixels.astype(np.int32), axis=1))
    steps = steps.reshape(len(steps), width - 1, -1).mean(axis=2)
    counts = [n for n in range(MAX_PANELS, 1, -1) if width % n == 0 and width // n >= MIN_SIDE_PX]
    # The median ignores object outlines, which step in a few rows only; the mean finds borders
    # between dark panels, which are equal in most rows.
    profiles = (np.median(steps, axis=0), steps.mean(axis=0))
    found = (n for n in counts if any(_steps_at_borders(p, width // n) for p in profiles))
    return next(found, 1)


def _steps_at_borders(steps: Pixels, side: int) -> bool:
    """True if the step at each border exceeds the usual step in the panels on both sides."""
    inside = [float(np.percentile(steps[i : i + side - 1], 95)) for i in range(0, len(steps), side)]
    borders = steps[side - 1 :: side]
    return all(
        border > MIN_STEP_RATIO * max(left, right)
        for border, left, right in zip(borders, inside[:-1], inside[1:], strict=True)
    )


def _panels(pixels: Pixels, columns: int, rows: int) -> list[Pixels]:
    whole = Panel(columns=columns, rows=rows, image=0, mask=1)
    return [crop_panel(pixels, whole, index) for index in range(columns * rows)]


def _likenesses(pixels: Pixels, columns: int, rows: int) -> list[float]:
    return [likeness_of(panel) for panel in _panels(pixels, columns, rows)]


def _is_repeated(pixels: Pixels, columns: int, rows: int) -> bool:
    first, *others = _panels(pixels, columns, rows)
    return all(np.array_equal(first, other) for other in others)


def composite_finding(found: Composites) -> Finding:
    """A finding on the composites, with the rules that would read them."""
    count, panel = found.columns * found.rows, found.panel
    head = f"{counted(len(found.paths), 'file')} show {count} panels side by side"
    if panel is None:
        reason = (
            "all panels are the same"
            if found.is_repeated
            else "image and mask cannot be told apart"
        )
        none = "" if found.masks else ", and none looks like a mask: they hold no label"
        remedy = "exclude them, or name the panels in source.panel"
        return _finding(found, f"{head}; {reason}{none}", remedy)
    lines = json.dumps({"source": {"image": found.template, "panel": panel.model_dump()}})[1:-1]
    return _finding(
        found, f"{head}; panel {panel.mask} (counted from 0) looks like the mask",
        f"to have them read write into the rules {lines}",
    )  # fmt: skip


def _finding(found: Composites, message: str, remedy: str) -> Finding:
    return Finding(
        code="composites", severity=Severity.WARNING, paths=found.paths, message=message,
        remedy=remedy,
    )  # fmt: skip
