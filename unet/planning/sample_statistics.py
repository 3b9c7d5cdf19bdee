"""Statistics of one sample; the fingerprint of a dataset is made of them."""

from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.dataset import Sample, read_sample
from dataset_rules.pixels.images import Pixels
from unet.objects.targets import depths, objects_of, touching_pixels
from unet.planning.intensity_levels import levels_of

BRIGHT = 0.6  # of the full range: minimum median of a stained image on a light background
DARKEST = 1 / 255  # of the full range, so that black has a finite optical density
FOURTH = np.s_[::4, ::4]  # every fourth row and column is enough for intensities


@dataclass(frozen=True)
class SampleFacts:
    """Counts and measurements of one image and its masks."""

    size: tuple[int, int]
    pixels: NDArray[np.int64]  # per value of the label mask, 256
    thickness_px: NDArray[np.float32]  # inscribed diameter per object
    area_px: NDArray[np.int64]  # per object
    apart_px: NDArray[np.float64]  # distance between the centres of nearest neighbours
    touching: int  # objects that touch another
    is_coloured: bool
    bit_depth: int
    intensity: NDArray[np.float64]  # 0.5th, 50th and 99.8th percentile, of the full range
    light: NDArray[np.float64]  # mean per channel (3) of the normalised image
    density: NDArray[np.float64]  # mean optical density per channel, natural log

    @property
    def is_bright(self) -> bool:
        """A coloured image on a light background: stained, in transmitted light."""
        return self.is_coloured and bool(self.intensity[1] > BRIGHT)


def sample_facts(folder: Path, sample: Sample) -> SampleFacts:
    """Read and measure a sample."""
    image, mask, instances = read_sample(folder, sample)
    objects = objects_of(mask, instances)
    _, radius = depths(objects)
    area = np.bincount(objects.ravel(), minlength=len(radius))[1:]
    levels = image[FOURTH].astype(np.float64) / float(np.iinfo(image.dtype).max)
    low, span = levels_of([image])
    density = -np.log(np.maximum(levels, DARKEST)).reshape(levels.shape[0] * levels.shape[1], -1)
    return SampleFacts(
        size=(mask.shape[0], mask.shape[1]),
        pixels=np.bincount(mask.ravel(), minlength=256),
        thickness_px=2 * radius[1:][radius[1:] > 0],
        area_px=area[area > 0],
        apart_px=nearest_distances(_centres(objects)),
        touching=len(np.unique(objects[touching_pixels(objects)])),
        is_coloured=_is_coloured(image),
        bit_depth=8 * image.dtype.itemsize,
        intensity=np.percentile(levels, [0.5, 50, 99.8]),
        light=np.resize((image[FOURTH].mean(axis=(0, 1)) - low) / span, 3),
        density=np.resize(density.mean(axis=0), 3),
    )


def _is_coloured(image: Pixels) -> bool:
    return image.ndim == 3 and bool(np.ptp(image[FOURTH], axis=2).any())


def _centres(objects: NDArray[np.int32]) -> NDArray[np.float64]:
    """Row and column of each object's centre (N, 2)."""
    present = np.unique(objects[objects > 0])
    if not len(present):
        return np.zeros((0, 2))
    rows, columns = np.nonzero(objects)
    number = objects[rows, columns]
    area = np.bincount(number)[present]
    sums = [np.bincount(number, weights=axis)[present] for axis in (rows, columns)]
    return np.stack([total / area for total in sums], axis=1)


def nearest_distances(centres: NDArray[np.float64]) -> NDArray[np.float64]:
    """Distance from each point (N, 2) to its nearest neighbour (N,); empty below two points."""
    if len(centres) < 2:
        return np.zeros(0)
    points = centres.astype(np.float32)
    found = cv2.BFMatcher(cv2.NORM_L2).knnMatch(points, points, k=2)
    return np.array([pair[1].distance for pair in found])
