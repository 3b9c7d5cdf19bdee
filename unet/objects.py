"""Objects of foreground that comes from top to bottom: joined exactly, in the memory of some rows.

A connected part is split once all of it is known, from its own pixels alone. So its objects, and
their numbers, are the same whatever the heights of the blocks. Rows are given out as far down as
no part waits for more.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unet.instances import MARGIN_PX, SplitSettings, split_part

MOST_WAITING_PX = 1 << 25  # pixels of rows that wait; 4,096 rows of 8,192 px, 1,118 of 30,000
LEAST_WAITING_ROWS = 1024


@dataclass(frozen=True)
class FoundRows:
    """Finished rows of an image: class ids (uint8, HW) and object numbers (int32, HW)."""

    mask: NDArray[np.uint8]
    instances: NDArray[np.int32]


class ObjectRows:
    """Takes rows of foreground, gives the rows that are certain.

    A part taller than the rows that may wait is cut there; an object goes on below the cut where
    the two pieces have most of their contact with each other.
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
        self._unnumbered: list[tuple[int, int]] = []  # first pixel of an object, and its name
        self._numbered = 0
        self._cut: tuple[int, NDArray[np.int32]] | None = None  # row below a cut, names above it

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
            self._cut = (known, self._names[-1].copy())
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
        """Split one part, given by its first and last rows and columns, and name its objects."""
        top, left = max(0, rows[0] - MARGIN_PX), max(0, columns[0] - MARGIN_PX)
        window = (slice(top, rows[1] + MARGIN_PX), slice(left, columns[1] + MARGIN_PX))
        objects = split_part(parts[window] == number, self._distance[window], self.settings)
        above = self._goes_on(objects[rows[0] - top], self._top + rows[0], left)
        found, first, areas = np.unique(objects, return_index=True, return_counts=True)
        names = np.zeros(int(found[-1]) + 1, np.int32)
        for label, place, area in zip(found.tolist(), first.tolist(), areas.tolist(), strict=True):
            if label in above:
                names[label] = above[label]
            elif label and area >= self.settings.min_area_px:
                row, column = divmod(place, objects.shape[1])
                pixel = (self._top + top + row) * self.width + left + column
                names[label] = len(self._numbers)
                self._unnumbered.append((pixel, len(self._numbers)))
                self._numbers.append(0)
        np.copyto(self._names[window], names[objects], where=objects > 0)

    def _goes_on(self, line: NDArray[np.int32], row: int, left: int) -> dict[int, int]:
        """Which objects of a part's first row go on from above a cut: label -> name."""
        if self._cut is None or self._cut[0] != row:
            return {}
        names = self._cut[1]
        above, found = names[left : left + len(line)], {}
        for label in np.unique(line[(line > 0) & (above > 0)]).tolist():
            met, counts = np.unique(above[(line == label) & (above > 0)], return_counts=True)
            name, contact = int(met[counts.argmax()]), int(counts.max())
            if 2 * contact >= max(int((line == label).sum()), int((names == name).sum())):
                found[label] = name
        return found

    def _give(self, finished: int) -> FoundRows:
        """Number what begins above a row and hand out all rows above it."""
        ready = sorted(item for item in self._unnumbered if item[0] < finished * self.width)
        self._unnumbered = [item for item in self._unnumbered if item[0] >= finished * self.width]
        for _, name in ready:
            self._numbered += 1
            self._numbers[name] = self._numbered
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
