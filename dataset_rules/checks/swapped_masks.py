"""Detect swapped masks of two pairs by image size and by content."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from dataset_rules.checks.thumbnails import ImageThumbnail, MaskThumbnail, stacked
from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.pairing.pairs import Pair
from dataset_rules.pixels.images import Header

# Correlation of image and mask, in standard deviations of the correlations of unrelated images and
# masks. Among 400 pairs some unrelated two reach 3 by chance, but hardly any reach 4 both ways.
MIN_FIT = 4.0
MIN_PAIRS = 6  # fewer are not representative
MAX_PAIRS = 2_500  # pairs that are compared with each other: 25 MB
MAX_UNRELATED = 1_000_000  # correlations in the reference distribution

Matrix = NDArray[np.float32]


def swapped_by_size(pairs: Sequence[Pair], headers: Mapping[str, Header]) -> list[Finding]:
    """Two pairs in which each image has exactly the size of the other pair's mask."""
    sizes: dict[tuple[tuple[int, int], tuple[int, int]], list[Pair]] = defaultdict(list)
    for pair in pairs:
        image, mask = headers.get(pair.image), headers.get(pair.masks[0])
        if image and mask and image.size_px != mask.size_px:
            sizes[image.size_px, mask.size_px].append(pair)
    return [
        _swap(group[0], sizes[mask, image][0], "each image has the size of the other's mask")
        for (image, mask), group in sizes.items()
        if image < mask and len(group) == 1 and len(sizes.get((mask, image), ())) == 1
    ]


def swapped_by_content(
    pairs: Sequence[Pair], images: Mapping[str, ImageThumbnail], masks: Mapping[str, MaskThumbnail]
) -> list[Finding]:
    """Two pairs whose masks match each other's image, in a source whose masks usually match.

    Args:
        pairs: of the source.
        images: image path -> its thumbnail.
        masks: image path -> thumbnail of its mask.
    """
    usable = [pair for pair in pairs if pair.image in images and pair.image in masks]
    usable = [pair for pair in usable if 0 < masks[pair.image].object_share < 1][:MAX_PAIRS]
    if len(usable) < MIN_PAIRS:
        return []
    fit = _fit(
        _unit(stacked([images[pair.image].pixels for pair in usable])),
        _unit(stacked([masks[pair.image].pixels for pair in usable])),
    )
    own = fit.diagonal()
    best = fit.argmax(axis=1)
    if np.median(own) < MIN_FIT:
        return []
    return [
        _swap(usable[i], usable[j], "each mask fits the other's image and not its own")
        for i, j in enumerate(best.tolist())
        if i < j and best[j] == i and _is_clear(fit, i, j)
    ]


def _fit(images: Matrix, masks: Matrix) -> Matrix:
    """Correlation of each image with each mask, in standard deviations of unrelated ones."""
    fit = images @ masks.T
    unrelated = fit.ravel()[:-1].reshape(len(fit) - 1, -1)[:, 1:]  # all but the diagonal
    sample = unrelated[:: 1 + unrelated.size // MAX_UNRELATED].ravel()
    sign = np.sign(np.median(fit.diagonal()) - np.median(sample)) or 1.0
    centre, spread = sign * sample.mean(), max(float(sample.std()), 1e-9)
    fit *= sign / spread
    fit -= centre / spread
    return fit


def _is_clear(fit: Matrix, i: int, j: int) -> bool:
    usual = 0.5 * float(np.median(fit.diagonal()))
    return all(
        fit[a, b] > max(MIN_FIT, usual) and fit[a, b] > fit[a, a] + MIN_FIT
        for a, b in ((i, j), (j, i))
    )


def _unit(smalls: NDArray[np.float32]) -> Matrix:
    flat = smalls.reshape(len(smalls), -1)
    flat -= flat.mean(axis=1, keepdims=True)
    flat /= np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-9)
    return flat


def _swap(a: Pair, b: Pair, why: str) -> Finding:
    return Finding(
        code="likely_swap", severity=Severity.WARNING,
        paths=(a.image, a.masks[0], b.image, b.masks[0]),
        message=f"the masks of two pairs seem to be exchanged: {why}",
        remedy="look at both; rename the masks if they are, or exclude the pairs",
    )  # fmt: skip
