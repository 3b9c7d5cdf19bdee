"""Calibration of probabilities: reliability bins and expected calibration error.

Shape suffixes: K classes, H height, W width.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BINS = 15  # of equal width, as in Guo et al. 2017


@dataclass(frozen=True)
class Reliability:
    """Pixels binned by predicted probability; one entry per bin."""

    pixels: tuple[int, ...]
    predicted: tuple[float, ...]  # sum of the probabilities
    true: tuple[int, ...]  # pixels of the class

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(
            tuple(a + b for a, b in zip(self.pixels, other.pixels, strict=True)),
            tuple(a + b for a, b in zip(self.predicted, other.predicted, strict=True)),
            tuple(a + b for a, b in zip(self.true, other.true, strict=True)),
        )

    @property
    def error(self) -> float | None:
        """Expected calibration error: mean over the pixels of |predicted - true share| of a bin.

        Source: Guo et al. 2017, On Calibration of Modern Neural Networks, eq. 3, for the
        probability of one class rather than of the predicted one: most pixels are background,
        predicted with confidence.
        """
        total = sum(self.pixels)
        gap = sum(abs(p - t) for p, t in zip(self.predicted, self.true, strict=True))
        return gap / total if total else None

    def document(self) -> dict[str, Any]:
        """The bins that contain pixels, and the error over all."""
        rows = zip(self.pixels, self.predicted, self.true, strict=True)
        return {
            "expected_calibration_error": self.error,
            "bins": [
                {"from": i / len(self.pixels), "to": (i + 1) / len(self.pixels), "pixels": n,
                 "probability": predicted / n, "share": true / n}
                for i, (n, predicted, true) in enumerate(rows) if n
            ],
        }  # fmt: skip


def reliability(
    prob: NDArray[np.float32], is_true: NDArray[np.bool_], known: NDArray[np.bool_]
) -> Reliability:
    """The known pixels (all HW) in `BINS` bins of probability; the last bin includes 1."""
    predicted, true = prob[known].astype(np.float64), is_true[known]
    index = np.clip((predicted * BINS).astype(np.int64), 0, BINS - 1)
    return Reliability(
        tuple(map(int, np.bincount(index, minlength=BINS))),
        tuple(map(float, np.bincount(index, predicted, minlength=BINS))),
        tuple(map(int, np.bincount(index[true], minlength=BINS))),
    )


def total_reliability(parts: Iterable[Reliability]) -> Reliability:
    """The sum of all bins."""
    return sum(parts, Reliability((0,) * BINS, (0.0,) * BINS, (0,) * BINS))
