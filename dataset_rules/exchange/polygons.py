"""Pixels of an object <-> one closed outline, rasterised the way YOLO trainers do it.

A trainer rounds the corners down to pixels and fills with `cv2.fillPoly`, which includes the
edge. So an outline runs through the centres of the object's outermost pixels. A hole is connected
by a cut that runs to the left inside the object, without any loss. The parts of an object are
joined by the shortest line, which adds the pixels under it.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.exchange.objects import Index
from dataset_rules.pixels.images import Pixels

Points = NDArray[np.int64]  # (n, 2): column and row
Path = list[tuple[int, int]]  # a closed path: the last point is the first
OUTER = -1  # the outer ring, as opposed to those around holes
MIN_CORNERS = 3  # fewer would be read as a box


def outline_of(rows: Index, columns: Index) -> Points:
    """The corners (at least three) of one outline around all pixels of an object."""
    top, left = int(rows.min()), int(columns.min())
    area = np.zeros((int(rows.max()) - top + 1, int(columns.max()) - left + 1), np.uint8)
    area[rows - top, columns - left] = 1
    corners = _corners(_joined(_paths(area), area.shape))
    while len(corners) < MIN_CORNERS:
        corners.append(corners[-1])
    moved: Points = np.array(corners, np.int64) + np.array([left, top])
    return moved


def filled(points: Points) -> tuple[Index, Index]:
    """Rows and columns of the pixels inside an outline (column, row), filled as by a trainer."""
    left, top = points.min(0)
    width, height = points.max(0) - (left, top) + 1
    area = np.zeros((height, width), np.uint8)
    cv2.fillPoly(area, [(points - (left, top)).astype(np.int32)], 1)
    rows, columns = np.nonzero(area)
    return rows + top, columns + left


def _paths(area: Pixels) -> list[Path]:
    """One path per part, the largest part first."""
    count, parts, stats, _ = cv2.connectedComponentsWithStats(area, connectivity=8)
    order = sorted(range(1, count), key=lambda number: -stats[number, cv2.CC_STAT_AREA])
    paths = []
    for number in order:
        left, top, width, height, _ = stats[number]
        part = parts[top : top + height, left : left + width] == number
        paths.append([(x + left, y + top) for x, y in _path(part.astype(np.uint8))])
    return paths


def _path(part: Pixels) -> Path:
    """The path around a part, including each hole by a cut from the left.

    The cut of a hole starts at its leftmost pixel and ends at a ring further left. Holes are
    processed from right to left, so everything attached to a hole is finished before it.
    """
    holes = _holes(part)
    pending: dict[int, dict[tuple[int, int], list[Path]]] = defaultdict(lambda: defaultdict(list))
    starts = sorted(
        ((int(x), int(y), number) for number, (x, y) in _leftmost(holes).items()), reverse=True
    )
    for x, y, number in starts:
        ring = _ring_around(holes == number)
        path = _with_detours(_from(ring, (x - 1, y)), pending.pop(number, {}))
        end = x - 1
        while end > 0 and part[y, end - 1]:
            end -= 1
        beyond = int(holes[y, end - 1]) if end > 0 else 0
        pending[beyond or OUTER][end, y].append(path)
    return _with_detours(_outer_ring(part), pending.pop(OUTER, {}))


def _holes(part: Pixels) -> NDArray[np.int32]:
    """Holes numbered from 1; 0 is the part and everything outside."""
    framed = cv2.copyMakeBorder(part, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    _, regions = cv2.connectedComponents(1 - framed, connectivity=4)
    regions[regions == regions[0, 0]] = 0
    return np.asarray(regions[1:-1, 1:-1], np.int32)


def _leftmost(holes: NDArray[np.int32]) -> dict[int, tuple[int, int]]:
    """Column and row of the leftmost pixel of each hole."""
    columns, rows = np.nonzero(holes.T)
    numbers, first = np.unique(holes[rows, columns], return_index=True)
    places = zip(columns[first].tolist(), rows[first].tolist(), strict=True)
    return dict(zip(numbers.tolist(), places, strict=True))


def _outer_ring(part: Pixels) -> Path:
    contours, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return _closed(contours[0])


def _ring_around(hole: NDArray[np.bool_]) -> Path:
    """The object pixels around a hole."""
    rows, columns = np.nonzero(hole)
    top, left = int(rows.min()) - 1, int(columns.min()) - 1
    wall = 1 - hole[top : int(rows.max()) + 2, left : int(columns.max()) + 2].astype(np.uint8)
    wall = cv2.copyMakeBorder(wall, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=1)
    contours, tree = cv2.findContours(wall, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    inner = next(c for c, links in zip(contours, tree[0], strict=True) if links[3] >= 0)
    return [(x + left - 1, y + top - 1) for x, y in _closed(inner)]


def _closed(contour: Pixels) -> Path:
    points = [(int(x), int(y)) for x, y in contour.reshape(-1, 2)]
    return [*points, points[0]]


def _from(closed: Path, start: tuple[int, int]) -> Path:
    """The same closed path, starting at another point."""
    at = closed.index(start)
    return [*closed[at:-1], *closed[: at + 1]]


def _with_detours(ring: Path, attached: dict[tuple[int, int], list[Path]]) -> Path:
    """The ring with a detour, there and back, along each path attached to one of its points."""
    result: Path = []
    for point in ring:
        result.append(point)
        for path in attached.pop(point, ()):
            result += [*path, point]
    return result


def _joined(paths: Sequence[Path], shape: tuple[int, ...]) -> Path:
    """One path through all parts, each joined to the previous ones at the nearest point."""
    whole = paths[0]
    for path in paths[1:]:
        far = np.ones(shape, np.uint8)
        done = np.array(whole)
        far[done[:, 1], done[:, 0]] = 0
        distance = cv2.distanceTransform(far, cv2.DIST_L2, 5)
        here = min(path, key=lambda point: float(distance[point[1], point[0]]))
        there = int(((done - here) ** 2).sum(1).argmin())
        whole = [*whole[: there + 1], *_from(path, here), *whole[there:]]
    return whole


def _corners(path: Path) -> Path:
    """The points where a closed path turns; the others on straight runs are redundant."""
    points = path[:-1]
    return [p for p, turns in zip(points, _turns(points), strict=True) if turns] or points[:1]


def _turns(points: Path) -> Iterator[bool]:
    for before, here, after in zip(
        [points[-1], *points[:-1]], points, [*points[1:], points[0]], strict=True
    ):
        incoming, outgoing = _heading(before, here), _heading(here, after)
        yield incoming is None or incoming != outgoing


def _heading(start: tuple[int, int], end: tuple[int, int]) -> tuple[int, int] | None:
    """The direction of a step along a row, column or diagonal; None for any other step."""
    across, down = end[0] - start[0], end[1] - start[1]
    if across and down and abs(across) != abs(down):
        return None
    return int(np.sign(across)), int(np.sign(down))
