"""Masks that belong to the image of another pair, told by sizes and by what is in the pictures."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dataset_rules.checks.thumbnails import Glimpse, MaskGlimpse, stacked
from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.pairing.pairs import Pair
from dataset_rules.pixels.images import Header

# Correlation of image and mask, in standard deviations of the correlations of strangers. Among
# 400 pairs some stranger comes to 3 by chance, but hardly one comes to 4 both ways.
CLEAR = 4.0
MIN_PAIRS = 6  # fewer say nothing of what is usual
MAX_PAIRS = 2_500  # pairs that are compared with each other: 25 MB
MAX_STRANGERS = 1_000_000  # correlations that tell what is usual

Matrix = NDArray[np.float32]


def swapped_by_size(pairs: Sequence[Pair], headers: Mapping[str, Header]) -> list[Finding]:
    """Two pairs in which each image has exactly the size of the other's mask."""
    sizes: dict[tuple[tuple[int, int], tuple[int, int]], list[Pair]] = defaultdict(list)
    for pair in pairs:
        image, mask = headers.get(pair.image), headers.get(pair.masks[0])
        if image and mask and image.size_px != mask.size_px:
            sizes[image.size_px, mask.size_px].append(pair)
    return [
        _swap(ones[0], sizes[mask, image][0], "each image has the size of the other's mask")
        for (image, mask), ones in sizes.items()
        if image < mask and len(ones) == 1 and len(sizes.get((mask, image), ())) == 1
    ]


def swapped_by_content(
    pairs: Sequence[Pair], images: Mapping[str, Glimpse], masks: Mapping[str, MaskGlimpse]
) -> list[Finding]:
    """Two pairs whose masks fit each other's images, where masks fit their own as a rule.

    Args:
        pairs: of the source.
        images: path of an image -> what was seen of it.
        masks: path of an image -> what was seen of its mask.
    """
    seen = [pair for pair in pairs if pair.image in images and pair.image in masks]
    seen = [pair for pair in seen if 0 < masks[pair.image].object_share < 1][:MAX_PAIRS]
    if len(seen) < MIN_PAIRS:
        return []
    fit = _fit(
        _unit(stacked([images[pair.image].pixels for pair in seen])),
        _unit(stacked([masks[pair.image].pixels for pair in seen])),
    )
    own = fit.diagonal()
    best = fit.argmax(axis=1)
    if np.median(own) < CLEAR:
        return []
    return [
        _swap(seen[i], seen[j], "each mask fits the other's image and not its own")
        for i, j in enumerate(best.tolist())
        if i < j and best[j] == i and _is_clear(fit, i, j)
    ]


def _fit(images: Matrix, masks: Matrix) -> Matrix:
    """Correlation of each image with each mask, in standard deviations of those of strangers."""
    likeness = images @ masks.T
    strangers = likeness.ravel()[:-1].reshape(len(likeness) - 1, -1)[:, 1:]  # all but the diagonal
    few = strangers[:: 1 + strangers.size // MAX_STRANGERS].ravel()
    sign = np.sign(np.median(likeness.diagonal()) - np.median(few)) or 1.0
    centre, spread = sign * few.mean(), max(float(few.std()), 1e-9)
    likeness *= sign / spread
    likeness -= centre / spread
    return likeness


def _is_clear(fit: Matrix, i: int, j: int) -> bool:
    usual = 0.5 * float(np.median(fit.diagonal()))
    return all(
        fit[one, other] > max(CLEAR, usual) and fit[one, other] > fit[one, one] + CLEAR
        for one, other in ((i, j), (j, i))
    )


def _unit(smalls: NDArray[np.float32]) -> Matrix:
    flat = smalls.reshape(len(smalls), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return flat


def _swap(one: Pair, other: Pair, why: str) -> Finding:
    return Finding(
        code="likely_swap", severity=Severity.WARNING,
        paths=(one.image, one.masks[0], other.image, other.masks[0]),
        message=f"the masks of two pairs seem to be exchanged: {why}",
        remedy="look at both; rename the masks if they are, or exclude the pairs",
    )  # fmt: skip
