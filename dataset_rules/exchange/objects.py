"""The objects of a sample as pixel lists, and a canvas that turns pixel lists into masks."""

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.dataset import IGNORE
from dataset_rules.ground.errors import RulesError
from dataset_rules.masks.decode import MAX_OBJECTS, DecodedMask
from dataset_rules.pixels.images import Pixels

Index = NDArray[np.int64]
CONNECTIVITY = 4  # pixels that touch only at a corner belong to different objects, as in training


@dataclass(frozen=True)
class Object:
    """The pixels of one object and one class."""

    number: int  # in the instance map; 0 if the dataset has no instances
    class_id: int  # 255: ignored pixels
    rows: Index
    columns: Index


def objects_in(label: Pixels, instances: Pixels | None) -> Iterator[Object]:
    """All foreground and ignored pixels as objects, ordered by number and class.

    Pixels of a class outside known objects become one object per connected component; ignored
    pixels outside objects form a single object.
    """
    numbers = np.zeros(label.shape, np.int64) if instances is None else instances.astype(np.int64)
    inside = np.where((numbers > 0) & (label != 0), (numbers << 8) | label, 0)
    for key, rows, columns in _pixels_by(inside):
        yield Object(key >> 8, key & 255, rows, columns)
    loose = np.where(numbers > 0, 0, label)
    for class_id in np.unique(loose[loose != 0]).tolist():
        area = (loose == class_id).astype(np.uint8)
        parts = area if class_id == IGNORE else cv2.connectedComponents(area, None, CONNECTIVITY)[1]
        for _, rows, columns in _pixels_by(parts):
            yield Object(0, class_id, rows, columns)


def numbered(label: Pixels) -> NDArray[np.int64]:
    """Connected components of each class, numbered from 1; ignored pixels are 0."""
    numbers = np.zeros(label.shape, np.int64)
    parts = (item for item in objects_in(label, None) if item.class_id != IGNORE)
    for number, item in enumerate(parts, start=1):
        numbers[item.rows, item.columns] = number
    return numbers


def _pixels_by(keys: Pixels) -> Iterator[tuple[int, Index, Index]]:
    """Each nonzero value in ascending order, with the rows and columns of its pixels."""
    flat = keys.ravel()
    places = np.flatnonzero(flat)
    places = places[np.argsort(flat[places], kind="stable")]
    if not len(places):
        return
    for part in np.split(places, np.flatnonzero(np.diff(flat[places])) + 1):
        rows, columns = np.divmod(part, keys.shape[1])
        yield int(flat[part[0]]), rows, columns


class Canvas:
    """A label mask and an instance map on which objects are painted; later ones win."""

    def __init__(self, height: int, width: int) -> None:
        self.label = np.zeros((height, width), np.uint8)
        self.instances = np.zeros((height, width), np.uint16)
        self.overlap_px = 0

    def paint(self, item: Object) -> None:
        """Paint an object over earlier ones; number 0 paints only its class.

        Raises:
            RulesError: if its number does not fit into an instance map.
        """
        if item.number > MAX_OBJECTS:
            raise RulesError(
                "too many objects in one image", expected=f"at most {MAX_OBJECTS}",
                found=str(item.number),
            )  # fmt: skip
        at = (item.rows, item.columns)
        self.overlap_px += int(np.count_nonzero(self.instances[at]))
        self.label[at] = item.class_id
        self.instances[at] = item.number

    def decoded(self, *, has_objects: bool = True) -> DecodedMask:
        """The painted masks."""
        return DecodedMask(self.label, self.instances if has_objects else None, self.overlap_px)
