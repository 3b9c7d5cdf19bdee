"""Objects of a foreground that arrives from top to bottom: exact, in the memory of a few rows.

A connected component is split once it is complete, from its own pixels alone. So its objects and
their numbers do not depend on the heights of the blocks. Rows are returned down to the first
incomplete component.
"""

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from unet.objects.splitting import MARGIN_PX, SplitSettings, split_component

MAX_PENDING_PX = 24 << 20  # pixels of pending rows: 3,072 rows of 8,192 px, 838 of 30,000
MIN_PENDING_ROWS = 512
CELL_PX = 2048  # maximum side of what is split at once, which takes 100 bytes per pixel


@dataclass(frozen=True)
class LabelRows:
    """Finished rows of an image: class ids (uint8, HW) and object numbers (int32, HW)."""

    mask: NDArray[np.uint8]
    instances: NDArray[np.int32]


class StreamingSplitter:
    """Takes rows of foreground and returns the rows that are final.

    A component taller than the maximum number of pending rows is cut there, and one larger than a
    cell is cut along a grid; an object continues across a cut if each of the two pieces has most
    of its contact with the other.
    """

    def __init__(
        self, settings: SplitSettings, size_px: tuple[int, ...], *, max_rows: int | None = None
    ) -> None:
        self.settings = settings
        self.height, self.width = size_px
        self.max_rows = max_rows or max(MIN_PENDING_ROWS, MAX_PENDING_PX // self.width)
        self._top = 0  # image row of the first buffered row
        self._returned = 0  # rows returned so far
        self._pending = np.zeros((0, self.width), np.uint8)  # foreground not split yet
        self._classes = np.zeros((0, self.width), np.uint8)
        self._distance = np.zeros((0, self.width), np.float32)
        self._ids = np.zeros((0, self.width), np.int32)  # of objects, in order of discovery
        self._numbers = [0]  # final number of each id
        self._unnumbered: dict[int, int] = {}  # ids without a number -> their first pixels
        self._count = 0  # of numbered objects

    def push(
        self,
        foreground: NDArray[np.bool_],
        distance: NDArray[np.float32],
        classes: NDArray[np.uint8],
    ) -> LabelRows:
        """Take the next rows (HW each); returns the rows that are finished, maybe none."""
        self._pending = np.concatenate([self._pending, foreground.view(np.uint8)])
        self._distance = np.concatenate([self._distance, distance])
        self._classes = np.concatenate([self._classes, classes])
        self._ids = np.concatenate([self._ids, np.zeros(classes.shape, np.int32)])
        received = self._top + len(self._pending)
        finished = self._split_components(received)
        if finished < received and received - self._returned > self.max_rows:
            finished = self._split_components(received, is_cut=True)
        return self._take(finished)

    def _split_components(self, received: int, *, is_cut: bool = False) -> int:
        """Split the complete components; returns the row above which nothing is pending."""
        count, components, stats, _ = cv2.connectedComponentsWithStats(
            self._pending, connectivity=8
        )
        is_pending = np.zeros(count, np.uint8)
        if received < self.height and not is_cut:
            is_pending[1:] = self._top + stats[1:, 1] + stats[1:, 3] + MARGIN_PX > received
        for number in np.flatnonzero(is_pending == 0)[1:].tolist():
            left, top, width, height, area = stats[number].tolist()
            if area >= self.settings.min_area_px:
                self._split(components, number, (top, top + height), (left, left + width))
        self._pending = is_pending[components]
        tops = stats[is_pending > 0, 1]
        return self._top + int(tops.min()) if len(tops) else received

    def _split(
        self,
        components: NDArray[np.int32],
        number: int,
        rows: tuple[int, int],
        columns: tuple[int, int],
    ) -> None:
        """Split one component, given by its row and column ranges, and give its objects ids.

        A component that does not fit into a cell is cut along a grid anchored to the image.
        """
        if max(rows[1] - rows[0], columns[1] - columns[0]) <= CELL_PX:
            self._split_cell(components, number, rows, columns)
            return
        for top, bottom in _cells(*rows, offset=self._top):
            for left, right in _cells(*columns):
                self._split_cell(components, number, (top, bottom), (left, right))

    def _split_cell(
        self,
        components: NDArray[np.int32],
        number: int,
        rows: tuple[int, int],
        columns: tuple[int, int],
    ) -> None:
        top, left = max(0, rows[0] - MARGIN_PX), max(0, columns[0] - MARGIN_PX)
        window = (slice(top, rows[1] + MARGIN_PX), slice(left, columns[1] + MARGIN_PX))
        inside = (slice(rows[0] - top, rows[1] - top), slice(columns[0] - left, columns[1] - left))
        component = np.zeros(self._distance[window].shape, bool)
        component[inside] = components[rows[0] : rows[1], columns[0] : columns[1]] == number
        objects = split_component(component, self._distance[window], self.settings)[inside]
        known = self._known_ids(objects, rows[0], columns[0])
        found, first, areas = np.unique(objects, return_index=True, return_counts=True)
        ids = np.zeros(int(found[-1]) + 1, np.int32)
        for label, index, area in zip(found.tolist(), first.tolist(), areas.tolist(), strict=True):
            if label and (area >= self.settings.min_area_px or label in known):
                row, column = divmod(index, objects.shape[1])
                pixel = (self._top + rows[0] + row) * self.width + columns[0] + column
                ids[label] = self._id_of(known.get(label), pixel)
        target = self._ids[rows[0] : rows[1], columns[0] : columns[1]]
        np.copyto(target, ids[objects], where=objects > 0)

    def _id_of(self, known: int | None, pixel: int) -> int:
        """A new id for an object with this first pixel, or the known one of what it continues."""
        object_id = known if known is not None else len(self._numbers)
        if known is None:
            self._numbers.append(0)
        if self._numbers[object_id] == 0:
            self._unnumbered[object_id] = min(pixel, self._unnumbered.get(object_id, pixel))
        return object_id

    def _known_ids(self, objects: NDArray[np.int32], top: int, left: int) -> dict[int, int]:
        """Objects that continue across a cut above or to the left: label -> id.

        Without a cut there are none: components do not touch each other.
        """
        rows, columns = objects.shape
        above = self._ids[top - 1, left : left + columns] if top else None
        to_left = self._ids[top : top + rows, left - 1] if left else None
        found: dict[int, int] = {}
        for line, ids in ((objects[0], above), (objects[:, 0], to_left)):
            if ids is not None and ids[line > 0].any():
                found |= _best_contacts(line, ids)
        return found

    def _take(self, finished: int) -> LabelRows:
        """Number the objects that begin above a row and return all rows above it."""
        end = finished * self.width
        for _, object_id in sorted(
            (first, i) for i, first in self._unnumbered.items() if first < end
        ):
            self._count += 1
            self._numbers[object_id] = self._count
            del self._unnumbered[object_id]
        rows = slice(self._returned - self._top, finished - self._top)
        instances = np.asarray(self._numbers, np.int32)[self._ids[rows]]
        mask = np.where(instances > 0, self._classes[rows], np.uint8(0))
        self._returned = finished
        self._drop(max(0, finished - MARGIN_PX - self._top))
        return LabelRows(mask, instances)

    def _drop(self, rows: int) -> None:
        self._top += rows
        self._pending = self._pending[rows:].copy()
        self._classes = self._classes[rows:].copy()
        self._distance = self._distance[rows:].copy()
        self._ids = self._ids[rows:].copy()


def _cells(start: int, stop: int, *, offset: int = 0) -> list[tuple[int, int]]:
    """Intervals of an axis between the grid lines; `offset` is the image coordinate of 0."""
    first = -(-(start + offset + 1) // CELL_PX) * CELL_PX - offset
    ends = [*range(first, stop, CELL_PX), stop]
    return list(zip([start, *ends[:-1]], ends, strict=True))


def _best_contacts(line: NDArray[np.int32], ids: NDArray[np.int32]) -> dict[int, int]:
    """Labels along a cut -> ids beyond it, where both have most of their contact together."""
    found = {}
    for label in np.unique(line[(line > 0) & (ids > 0)]).tolist():
        met, counts = np.unique(ids[(line == label) & (ids > 0)], return_counts=True)
        object_id, contact = int(met[counts.argmax()]), int(counts.max())
        if 2 * contact >= max(int((line == label).sum()), int((ids == object_id).sum())):
            found[label] = object_id
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
    splitter = StreamingSplitter(settings, foreground.shape, max_rows=len(foreground))
    ones = np.ones(foreground.shape, np.uint8)
    return splitter.push(foreground, distance, ones).instances
