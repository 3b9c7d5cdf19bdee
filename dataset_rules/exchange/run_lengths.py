"""COCO run-length encoding: pixels in column order, alternating runs of absent and present.

pycocotools encodes runs and rasterises polygons. When decoding, it does not check that the runs
cover the image (it returns uninitialised memory), so we decode them ourselves.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from dataset_rules.exchange.objects import Index
from dataset_rules.ground.errors import RulesError


def packed(rows: Index, columns: Index, height: int, width: int) -> str:
    """The compressed run lengths of pixels in an image of this size."""
    places = np.sort(columns * height + rows)
    gaps = np.flatnonzero(np.diff(places) != 1)
    starts = places[np.r_[0, gaps + 1]]
    ends = places[np.r_[gaps, len(places) - 1]] + 1
    edges = np.stack([starts, ends], axis=1).ravel()
    runs = np.diff(np.r_[0, edges, height * width])
    runs = runs[:-1] if runs[-1] == 0 else runs
    counted = {"size": [height, width], "counts": runs.tolist()}
    text: bytes = coco_mask.frPyObjects(counted, height, width)["counts"]
    return text.decode("ascii")


def unpacked(segmentation: Any, height: int, width: int) -> tuple[Index, Index]:
    """Rows and columns of a `segmentation`: run lengths, compressed or not, or polygons.

    Raises:
        RulesError: if it is invalid or belongs to an image of another size.
    """
    if isinstance(segmentation, list):
        runs = _runs_of_text(_rasterised(segmentation, height, width))
    elif isinstance(segmentation, dict):
        _check_size(segmentation.get("size"), height, width)
        counts = segmentation.get("counts")
        runs = _runs_of_text(counts) if isinstance(counts, str) else _runs_of_list(counts)
    else:
        raise RulesError(
            "the segmentation is neither polygons nor run lengths", found=repr(segmentation)[:60]
        )
    size_px = height * width
    if ((runs < 0) | (runs > size_px)).any() or runs.sum() != size_px:
        raise RulesError(
            "the run lengths do not cover the image", expected=f"{size_px} pixels",
            found=f"{runs.sum()} pixels, the longest run {runs.max(initial=0)}",
        )  # fmt: skip
    return _pixels(runs, height)


def _pixels(runs: Index, height: int) -> tuple[Index, Index]:
    ends = np.cumsum(runs)
    lengths, starts = runs[1::2], ends[: len(runs) - 1 : 2]
    total = int(lengths.sum())
    within = np.arange(total) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    columns, rows = np.divmod(np.repeat(starts, lengths) + within, height)
    return rows, columns


def _runs_of_list(counts: Any) -> Index:
    is_list = isinstance(counts, list) and all(
        isinstance(run, int) and not isinstance(run, bool) and 0 <= run < 1 << 40 for run in counts
    )
    if not is_list:
        raise RulesError("the run lengths are not a list of numbers", found=repr(counts)[:60])
    return np.array(counts, np.int64)


def _runs_of_text(text: str) -> Index:
    """Decode 5 bits per character, the sixth is a continuation flag; deltas from the third run."""
    runs: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 40:
            raise RulesError("the compressed run lengths are damaged", found=repr(text[:40]))
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        value -= (bits & 16) << (shift - 4)
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise RulesError("the compressed run lengths are truncated", found=repr(text[-40:]))
    return np.array(runs, np.int64)


def _rasterised(polygons: Sequence[Any], height: int, width: int) -> str:
    flat = [np.asarray(polygon, np.float64) for polygon in polygons if _is_polygon(polygon)]
    if not flat or len(flat) != len(polygons):
        raise RulesError(
            "a polygon is not a list of numbers x, y, ...", expected="6 numbers or more",
            found=repr(polygons)[:60],
        )  # fmt: skip
    limit = 2 * max(height, width)  # polygons far outside waste time and memory, and are mistakes
    if any(not np.isfinite(p).all() or (abs(p) > limit).any() for p in flat):
        raise RulesError(
            "a polygon is outside the image", expected=f"x below {width}, y below {height}",
            found=f"up to {max(float(abs(p).max()) for p in flat):g}",
        )  # fmt: skip
    runs = coco_mask.frPyObjects([p.tolist() for p in flat], height, width)
    text: bytes = coco_mask.merge(runs)["counts"]
    return text.decode("ascii")


def _is_polygon(value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) >= 6
        and len(value) % 2 == 0
        and all(isinstance(number, int | float) for number in value)
    )


def _check_size(size: Any, height: int, width: int) -> None:
    if size != [height, width]:
        raise RulesError(
            "the run lengths belong to an image of another size", expected=f"[{height}, {width}]",
            found=repr(size)[:60],
        )  # fmt: skip


def box_of(rows: Index, columns: Index) -> NDArray[np.int64]:
    """Left, top, width and height in pixels."""
    left, top = columns.min(), rows.min()
    return np.array([left, top, columns.max() - left + 1, rows.max() - top + 1])
