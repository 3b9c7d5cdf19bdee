"""Objects of foreground that comes from top to bottom: joined exactly, in the memory of some rows.

A connected part is split once all of it is known, from its own pixels alone. So its objects, and
their numbers, are the same whatever the heights of the blocks. Rows are given out as far down as
no part waits for more.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unet.objects.splitting import MARGIN_PX, SplitSettings, split_part

MOST_WAITING_PX = 24 << 20  # pixels of rows that wait: 3,072 rows of 8,192 px, 838 of 30,000
LEAST_WAITING_ROWS = 512
CELL_PX = 2048  # side of the parts that are split at once: it takes 100 bytes a pixel


@dataclass(frozen=True)
class FoundRows:
    """Finished rows of an image: class ids (uint8, HW) and object numbers (int32, HW)."""

    mask: NDArray[np.uint8]
    instances: NDArray[np.int32]


class ObjectRows:
    """Takes rows of foreground, gives the rows that are certain.

    A part taller than the rows that may wait is cut there, and one larger than a cell along the
    lines of a grid; an object goes on beyond a cut where the two pieces have most of their
    contact with each other.
    """

    def __init__(
        self, settings: SplitSettings, size_px: tuple[int, ...], *, most_rows: int | None = None
    ) -> None:
        self.settings = settings
        self.height, self.width = size_px
        self.most_rows = most_rows or max(LEAST_WAITING_ROWS, MOST_WAITING_PX // self.width)
        self._top = 0  # the image's row at which the kept rows begin
        self._given = 0  # rows given out
        self._todo = np.zeros((0, self.width), np.uint8)  # foreground of parts not split yet
        self._classes = np.zeros((0, self.width), np.uint8)
        self._distance = np.zeros((0, self.width), np.float32)
        self._names = np.zeros((0, self.width), np.int32)  # of objects, in the order they were met
        self._numbers = [0]  # final number of each name
        self._unnumbered: dict[int, int] = {}  # names without number, and their first pixels
        self._numbered = 0

    def push(
        self,
        foreground: NDArray[np.bool_],
        distance: NDArray[np.float32],
        classes: NDArray[np.uint8],
    ) -> FoundRows:
        """Take the next rows (HW each); returns the rows that are finished, maybe none."""
        self._todo = np.concatenate([self._todo, foreground.view(np.uint8)])
        self._distance = np.concatenate([self._distance, distance])
        self._classes = np.concatenate([self._classes, classes])
        self._names = np.concatenate([self._names, np.zeros(classes.shape, np.int32)])
        known = self._top + len(self._todo)
        finished = self._split_parts(known)
        if finished < known and known - self._given > self.most_rows:
            finished = self._split_parts(known, is_cut=True)
        return self._give(finished)

    def _split_parts(self, known: int, *, is_cut: bool = False) -> int:
        """Split what is complete; returns the row above which nothing waits."""
        count, parts, stats, _ = cv2.connectedComponentsWithStats(self._todo, connectivity=8)
        waits = np.zeros(count, np.uint8)
        if known < self.height and not is_cut:
            waits[1:] = self._top + stats[1:, 1] + stats[1:, 3] + MARGIN_PX > known
        for number in np.flatnonzero(waits == 0)[1:].tolist():
            left, top, width, height, area = stats[number].tolist()
            if area >= self.settings.min_area_px:
                self._split(parts, number, (top, top + height), (left, left + width))
        self._todo = waits[parts]
        waiting = stats[waits > 0, 1]
        return self._top + int(waiting.min()) if len(waiting) else known

    def _split(
        self, parts: NDArray[np.int32], number: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        """Split one part, given by its first and last rows and columns, and name its objects.

        A part that fits no cell is cut along the lines of a grid that lies on the image.
        """
        if max(rows[1] - rows[0], columns[1] - columns[0]) <= CELL_PX:
            self._split_cell(parts, number, rows, columns)
            return
        for top, bottom in _cells(*rows, offset=self._top):
            for left, right in _cells(*columns):
                self._split_cell(parts, number, (top, bottom), (left, right))

    def _split_cell(
        self, parts: NDArray[np.int32], number: int, rows: tuple[int, int], columns: tuple[int, int]
    ) -> None:
        top, left = max(0, rows[0] - MARGIN_PX), max(0, columns[0] - MARGIN_PX)
        window = (slice(top, rows[1] + MARGIN_PX), slice(left, columns[1] + MARGIN_PX))
        inside = (slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left))
        part = np.zeros(self._distance[window].shape, bool)
        part[inside] = parts[rows[0] : rows[1], columns[0] : columns[1]] == number
        objects = split_part(part, self._distance[window], self.settings)[inside]
        known = self._goes_on(objects, rows[0], columns[0])
        found, first, areas = np.unique(objects, return_index=True, return_counts=True)
        names = np.zeros(int(found[-1]) + 1, np.int32)
        for label, place, area in zip(found.tolist(), first.tolist(), areas.tolist(), strict=True):
            if label and (area >= self.settings.min_area_px or label in known):
                row, column = divmod(place, objects.shape[1])
                pixel = (self._top + rows[0] + row) * self.width + columns[0] + column
                names[label] = self._name(known.get(label), pixel)
        place = self._names[rows[0] : rows[1], columns[0] : columns[1]]
        np.copyto(place, names[objects], where=objects > 0)

    def _name(self, known: int | None, pixel: int) -> int:
        """The name of an object with this first pixel: a new one, or that of what it goes on."""
        name = known if known is not None else len(self._numbers)
        if known is None:
            self._numbers.append(0)
        if self._numbers[name] == 0:
            self._unnumbered[name] = min(pixel, self._unnumbered.get(name, pixel))
        return name

    def _goes_on(self, objects: NDArray[np.int32], top: int, left: int) -> dict[int, int]:
        """Which objects go on from beyond a cut above or to the left: label -> name.

        Without a cut there is none: parts do not touch each other.
        """
        rows, columns = objects.shape
        above = self._names[top - 1, left : left + columns] if top else None
        beside = self._names[top : top + rows, left - 1] if left else None
        found: dict[int, int] = {}
        for line, names in ((objects[0], above), (objects[:, 0], beside)):
            if names is not None and names[line > 0].any():
                found |= _most_of_each_other(line, names)
        return found

    def _give(self, finished: int) -> FoundRows:
        """Number what begins above a row and hand out all rows above it."""
        end = finished * self.width
        for _, name in sorted((first, n) for n, first in self._unnumbered.items() if first < end):
            self._numbered += 1
            self._numbers[name] = self._numbered
            del self._unnumbered[name]
        rows = slice(self._given - self._top, finished - self._top)
        instances = np.asarray(self._numbers, np.int32)[self._names[rows]]
        mask = np.where(instances > 0, self._classes[rows], np.uint8(0))
        self._given = finished
        self._forget(max(0, finished - MARGIN_PX - self._top))
        return FoundRows(mask, instances)

    def _forget(self, rows: int) -> None:
        self._top += rows
        self._todo = self._todo[rows:].copy()
        self._classes = self._classes[rows:].copy()
        self._distance = self._distance[rows:].copy()
        self._names = self._names[rows:].copy()


def _cells(start: int, stop: int, *, offset: int = 0) -> list[tuple[int, int]]:
    """Stretches of an axis between the lines of the grid; `offset` is where the axis begins."""
    first = -(-(start + offset + 1) // CELL_PX) * CELL_PX - offset
    ends = [*range(first, stop, CELL_PX), stop]
    return list(zip([start, *ends[:-1]], ends, strict=True))


def _most_of_each_other(line: NDArray[np.int32], names: NDArray[np.int32]) -> dict[int, int]:
    """Labels along a cut and the names beyond it that have most of their contact together."""
    found = {}
    for label in np.unique(line[(line > 0) & (names > 0)]).tolist():
        met, counts = np.unique(names[(line == label) & (names > 0)], return_counts=True)
        name, contact = int(met[counts.argmax()]), int(counts.max())
        if 2 * contact >= max(int((line == label).sum()), int((names == name).sum())):
            found[label] = name
    return found


def split_objects(
    foreground: NDArray[np.bool_], distance: NDArray[np.float32], settings: SplitSettings
) -> NDArray[np.int32]:
    """Objects of a whole foreground (HW), numbered from 1 in row order of their first pixel.

    Args:
        foreground: HW.
        distance: learned, normalised distance to the border, HW float32, 0..1.
        settings: thresholds.
    """
    rows = ObjectRows(settings, foreground.shape, most_rows=len(foreground))
    ones = np.ones(foreground.shape, np.uint8)
    return rows.push(foreground, distance, ones).instances
