"""Count and score stained nuclei: mean DAB density per nucleus, positive share, H-score."""

from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import mean

from dataset_rules.ground.errors import UserError
from unet.measurement.morphometry import Shape, measure_shapes
from unet.measurement.stains import separate_stains

Array = NDArray[Any]

COUNT_TOLERANCE = 0.10  # of the known count
SHARE_TOLERANCE = 0.05  # 5 points of the positive share


class Intensity(StrEnum):
    """Strength of a nucleus's brown stain."""

    NEGATIVE = "negative"
    WEAK = "1+"
    MODERATE = "2+"
    STRONG = "3+"


@dataclass(frozen=True)
class Thresholds:
    """Lower bounds of a nucleus's mean DAB optical density for weak, moderate and strong.

    Source: the defaults of QuPath's positive cell detection (Bankhead et al. 2017, Sci Rep
        7:16878) for "Nucleus: DAB OD mean", with unit stain vectors like ours.
    """

    weak_od: float = 0.2
    moderate_od: float = 0.4
    strong_od: float = 0.6

    def __post_init__(self) -> None:
        """Refuse thresholds that are not in ascending order."""
        if not 0 < self.weak_od <= self.moderate_od <= self.strong_od:
            raise UserError(
                "the DAB thresholds are not in ascending order",
                expected="0 < weak <= moderate <= strong",
                found=f"{self.weak_od:g}, {self.moderate_od:g}, {self.strong_od:g}",
                remedy="give optical densities such as 0.2, 0.4, 0.6",
            )  # fmt: skip

    def intensity(self, dab_od: float) -> Intensity:
        """Intensity class for a mean DAB optical density."""
        reached = sum(dab_od >= t for t in (self.weak_od, self.moderate_od, self.strong_od))
        return list(Intensity)[reached]


@dataclass(frozen=True)
class Nucleus:
    """One nucleus: shape, mean optical density of both stains, intensity class."""

    shape: Shape
    haematoxylin_od_mean: float
    dab_od_mean: float
    intensity: Intensity

    @property
    def is_positive(self) -> bool:
        """True from 1+ up."""
        return self.intensity is not Intensity.NEGATIVE

    def row(self) -> dict[str, Any]:
        """Columns of the table, rounded to 4 places, finer than any measurement."""
        columns = {
            **asdict(self.shape),
            "haematoxylin_od_mean": self.haematoxylin_od_mean,
            "dab_od_mean": self.dab_od_mean,
        }
        rounded = {k: round(v, 4) if isinstance(v, float) else v for k, v in columns.items()}
        return {**rounded, "intensity": str(self.intensity), "is_positive": self.is_positive}


@dataclass(frozen=True)
class Measurements:
    """All nuclei of one image, or of several pooled."""

    nuclei: tuple[Nucleus, ...]

    @property
    def count(self) -> int:
        """Number of nuclei."""
        return len(self.nuclei)

    @property
    def positive_count(self) -> int:
        """Number of positive nuclei."""
        return sum(nucleus.is_positive for nucleus in self.nuclei)

    @property
    def positive_share(self) -> float | None:
        """Positive nuclei / nuclei, 0..1 (the labelling index); None without nuclei."""
        return self.positive_count / self.count if self.count else None

    @property
    def h_score(self) -> float | None:
        """1 x %weak + 2 x %moderate + 3 x %strong, 0..300; None without nuclei.

        Source: McCarty et al. 1985, Arch Pathol Lab Med 109:716.
        """
        if not self.count:
            return None
        steps = list(Intensity)
        return 100 * sum(steps.index(nucleus.intensity) for nucleus in self.nuclei) / self.count

    @property
    def intensities(self) -> dict[Intensity, int]:
        """Number of nuclei per intensity class."""
        found = [nucleus.intensity for nucleus in self.nuclei]
        return {step: found.count(step) for step in Intensity}

    def summary(self) -> dict[str, Any]:
        """The scores as a JSON object."""
        share, score = self.positive_share, self.h_score
        return {
            "count": self.count,
            "positive_count": self.positive_count,
            "positive_share": None if share is None else round(share, 4),
            "h_score": None if score is None else round(score, 2),
            "intensities": {str(step): n for step, n in self.intensities.items()},
        }


@dataclass(frozen=True)
class Comparison:
    """Counts found and known counts."""

    found: int
    found_positive: int
    known: int
    known_positive: int

    @property
    def count_error(self) -> float | None:
        """(found - known) / known; None if the known count is 0."""
        return (self.found - self.known) / self.known if self.known else None

    @property
    def share_error(self) -> float | None:
        """Positive share found - known, -1..1; None if one of them is undefined."""
        if not (self.found and self.known):
            return None
        return self.found_positive / self.found - self.known_positive / self.known

    @property
    def is_within(self) -> bool:
        """True if the count is within 10 % and the share within 5 points."""
        if self.count_error is None or self.share_error is None:
            return self.found == self.known
        return abs(self.count_error) <= COUNT_TOLERANCE and abs(self.share_error) <= SHARE_TOLERANCE


def compare_counts(found: Measurements, known: int, known_positive: int) -> Comparison:
    """Compare the measurements of an image (or a pool) with its known counts."""
    return Comparison(found.count, found.positive_count, known, known_positive)


def pool_measurements(parts: tuple[Measurements, ...]) -> Measurements:
    """Pool the nuclei of all parts: every nucleus has the same weight, not every image."""
    return Measurements(tuple(nucleus for part in parts for nucleus in part.nuclei))


def pool_comparisons(parts: tuple[Comparison, ...]) -> Comparison:
    """Compare the sums over all parts."""
    return Comparison(
        sum(c.found for c in parts),
        sum(c.found_positive for c in parts),
        sum(c.known for c in parts),
        sum(c.known_positive for c in parts),
    )


def measure(
    image: Array,
    instances: Array,
    *,
    pixel_size_um: float | None = None,
    thresholds: Thresholds | None = None,
) -> Measurements:
    """Measure shape, stain and intensity class of every object in an image.

    The mean over the whole nucleus counts, which is robust to a border off by a pixel.

    Args:
        image: HW3, uint8 or uint16, RGB, bright field.
        instances: HW, unsigned integers, 0 is background.
        pixel_size_um: side of a pixel; without it only the `_px` columns are filled.
        thresholds: for mean DAB optical density; QuPath's by default.

    Raises:
        UserError: if image and map differ in size, or the image is not RGB.
    """
    if image.shape[:2] != instances.shape:
        raise UserError(
            "image and mask differ in size", expected=f"a mask of {_size(image)}",
            found=_size(instances), remedy="use a mask of the image's size",
        )  # fmt: skip
    limits = thresholds or Thresholds()
    stains = separate_stains(image)
    shapes = measure_shapes(instances, pixel_size_um=pixel_size_um)
    labels = np.array([shape.label for shape in shapes], dtype=np.int64)
    blue_N, brown_N = (mean(od, instances, labels) for od in (stains.haematoxylin, stains.dab))
    return Measurements(
        tuple(
            Nucleus(shape, float(blue), float(brown), limits.intensity(float(brown)))
            for shape, blue, brown in zip(shapes, blue_N, brown_N, strict=True)
        )
    )


def _size(pixels: Array) -> str:
    return f"{pixels.shape[0]} x {pixels.shape[1]} px"
