"""Composites: files that show several panels of one size side by side, one of them the mask.

A composite is known by its borders: at each of them neighbouring pixels differ more than they do
nearly anywhere else. What nothing else pairs is examined for it, some files of each folder.
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
from dataset_rules.pixels.values import panel_of
from dataset_rules.rules.fields import Panel
from dataset_rules.rules.template import escape
from dataset_rules.sources.files import Files

MAX_PANELS = 8  # along one side
MIN_SIDE_PX = 8  # a panel that is smaller is no image
MAX_DECODED = 4  # files of a folder
MAX_FOLDERS = 20
STEEP = 1.5  # times the usual (95th percentile) step in the panels beside it is one at a border
MOST = 0.7  # of some files of a folder are composites of one shape
MASK = 0.6  # likeness from which a panel is a mask


@dataclass(frozen=True)
class Composites:
    """The composites of a folder: how many panels each has, and which of them are masks."""

    template: str
    paths: tuple[str, ...]
    columns: int
    rows: int
    masks: tuple[int, ...]
    photographs: tuple[int, ...]
    is_repeated: bool  # every panel shows the same

    @property
    def panel(self) -> Panel | None:
        """Image and mask, where one panel alone is a mask; the first photograph is the image."""
        if len(self.masks) != 1 or not self.photographs:
            return None
        image, mask = self.photographs[0], self.masks[0]
        return Panel(columns=self.columns, rows=self.rows, image=image, mask=mask)

    @property
    def is_certain(self) -> bool:
        """True where there is nothing but one image and one mask."""
        return self.panel is not None and self.columns * self.rows == 2


def composites_among(folder: Files, paths: Sequence[str]) -> list[Composites]:
    """The composites among files that nothing pairs, folder by folder and suffix by suffix."""
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for path in sorted(paths):
        place, _, name = path.rpartition("/")
        alike[place, name.rpartition(".")[2]].append(path)
    groups = list(alike.items())[:MAX_FOLDERS]
    found = (_composites(folder, place, suffix, files) for (place, suffix), files in groups)
    return [made for made in found if made is not None]


def _composites(folder: Files, place: str, suffix: str, paths: Sequence[str]) -> Composites | None:
    """Composites of one shape; None where one of some files is none."""
    seen = [
        pixels for path in paths[:MAX_DECODED] if (pixels := _pixels(folder / path)) is not None
    ]
    grids = [_grid_of(pixels) for pixels in seen]
    usual = max(set(grids), key=grids.count, default=None)
    if usual is None or grids.count(usual) < MOST * len(grids):
        return None
    columns, rows = usual
    seen = [pixels for pixels, grid in zip(seen, grids, strict=True) if grid == usual]
    likeness = np.mean([_likenesses(pixels, columns, rows) for pixels in seen], axis=0)
    repeated = all(_is_repeated(pixels, columns, rows) for pixels in seen)
    return Composites(
        template="/".join([*([escape(place)] if place else []), f"{{name}}.{escape(suffix)}"]),
        paths=tuple(paths),
        columns=columns,
        rows=rows,
        masks=tuple(int(i) for i in np.flatnonzero(likeness > MASK)),
        photographs=tuple(int(i) for i in np.flatnonzero(likeness < PHOTOGRAPH)),
        is_repeated=repeated,
    )


def _pixels(file: Path) -> Pixels | None:
    try:
        return read_image(file)
    except RulesError:
        return None  # told of where damage is looked for


def _grid_of(pixels: Pixels) -> tuple[int, int] | None:
    """Columns and rows; None for an image that is one panel."""
    columns, rows = _panels_along(pixels), _panels_along(np.swapaxes(pixels, 0, 1))
    return (columns, rows) if columns * rows > 1 else None


def _panels_along(pixels: Pixels) -> int:
    """The greatest number of equal panels at all of whose borders the pixels step."""
    width = pixels.shape[1]
    if width < 2 * MIN_SIDE_PX:
        return 1
    steps = np.abs(np.diff(pixels.astype(np.int32), axis=1))
    steps = steps.reshape(len(steps), width - 1, -1).mean(axis=2)
    counts = [n for n in range(MAX_PANELS, 1, -1) if width % n == 0 and width // n >= MIN_SIDE_PX]
    # The outline of an object steps in a few rows only; two dark panels touch in most rows alike.
    ways = (np.median(steps, axis=0), steps.mean(axis=0))
    found = (n for n in counts if any(_steps_at_borders(way, width // n) for way in ways))
    return next(found, 1)


def _steps_at_borders(steps: Pixels, side: int) -> bool:
    """True where each border is steeper than what is usual in the panels on both its sides."""
    inside = [float(np.percentile(steps[i : i + side - 1], 95)) for i in range(0, len(steps), side)]
    borders = steps[side - 1 :: side]
    return all(
        border > STEEP * max(left, right)
        for border, left, right in zip(borders, inside[:-1], inside[1:], strict=True)
    )


def _panels(pixels: Pixels, columns: int, rows: int) -> list[Pixels]:
    whole = Panel(columns=columns, rows=rows, image=0, mask=1)
    return [panel_of(pixels, whole, index) for index in range(columns * rows)]


def _likenesses(pixels: Pixels, columns: int, rows: int) -> list[float]:
    return [likeness_of(panel) for panel in _panels(pixels, columns, rows)]


def _is_repeated(pixels: Pixels, columns: int, rows: int) -> bool:
    first, *others = _panels(pixels, columns, rows)
    return all(np.array_equal(first, other) for other in others)


def composite_finding(found: Composites) -> Finding:
    """What the composites hold, and the lines of the rules by which they can be read."""
    count, panel = found.columns * found.rows, found.panel
    head = f"{counted(len(found.paths), 'file')} show {count} panels side by side"
    if panel is None:
        said = (
            "all panels are the same"
            if found.is_repeated
            else "image and mask cannot be told apart"
        )
        none = "" if found.masks else ", and none looks like a mask: they hold no label"
        remedy = "exclude them, or name the panels in source.panel"
        return _finding(found, f"{head}; {said}{none}", remedy)
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
