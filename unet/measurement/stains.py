"""Optical density and colour deconvolution of IHC: haematoxylin (blue) and DAB (brown).

Shapes: H height, W width; last axis RGB. Optical density (OD) has no unit; it is a base-10 log.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dataset_rules.ground.errors import UserError

Array = NDArray[Any]

# RGB absorption of the pure stains, Ruifrok & Johnston 2001, "Quantification of histochemical
# staining by color deconvolution", Anal Quant Cytol Histol 23:291-299 (values as in their ImageJ
# macro and in QuPath); normalised to unit length below, so that OD is comparable between stains.
HAEMATOXYLIN = (0.650, 0.704, 0.286)
DAB = (0.268, 0.570, 0.776)
EOSIN = (0.072, 0.990, 0.105)
MIN_LIGHT = 1e-2  # share of transmitted light; darker than any stain

BLOCKS = 8  # per side; each must be larger than a nucleus to contain background
BRIGHT_PERCENTILE = 95  # of a block: above its tissue, below hot pixels
FIT_ROUNDS = 4  # until blocks covered by tissue have little weight
MIN_BLOCK_PX = 16  # for smaller images, white is constant


@dataclass(frozen=True)
class Stains:
    """Optical density of each stain, HW float32; noise may make it slightly negative."""

    haematoxylin: Array
    dab: Array
    residual: Array  # explained by neither stain: red blood cells, pigment, refraction


def stain_matrix() -> Array:
    """Rows: unit RGB absorption of haematoxylin, DAB, and the direction orthogonal to both (3x3).

    Source: Ruifrok & Johnston 2001; an absent third stain is replaced by the cross product.
    """
    blue, brown = (np.array(v) / np.linalg.norm(v) for v in (HAEMATOXYLIN, DAB))
    orthogonal = np.cross(blue, brown)
    return np.stack([blue, brown, orthogonal / np.linalg.norm(orthogonal)])


def separate_stains(image: Array, white: Array | None = None) -> Stains:
    """Optical density of each stain in every pixel.

    Args:
        image: HW3, uint8 or uint16, RGB.
        white: light without tissue, HW3 or (3,), in the image's units; estimated by default.

    Raises:
        UserError: if the image is not RGB.

    Source: OD = -log10(I / I0) (Beer-Lambert), amounts = OD times the inverse of the stain
        matrix (Ruifrok & Johnston 2001).
    """
    if image.ndim != 3 or image.shape[2] != 3:
        raise UserError(
            "stains can only be separated in colour images", expected="an RGB image",
            found=f"shape {image.shape}", remedy="measure the colour image instead of a grey copy",
        )  # fmt: skip
    density = optical_density(image, estimate_white(image) if white is None else white)
    amounts = density @ np.linalg.inv(stain_matrix()).astype(np.float32)
    return Stains(amounts[..., 0], amounts[..., 1], amounts[..., 2])


def mix_stains(haematoxylin: Array, dab: Array) -> Array:
    """Share of transmitted light, HW3 in 0..1, for the optical density of each stain (HW)."""
    density = np.stack([haematoxylin, dab], axis=-1) @ stain_matrix()[:2]
    transmitted: Array = 10.0**-density
    return transmitted


def scale_stains(light: Array, factors: Array) -> Array:
    """Transmitted light (..., 3, 1 = all) with the density of each stain scaled by its factor.

    Stains are haematoxylin, eosin and DAB, those of H&E and IHC. There is no residual, because
    three stains span all colours.

    Source: Tellez et al. 2018, "Whole-slide mitosis detection in H&E breast histology using PHH3
        as a reference", section on augmentation; matrix of Ruifrok & Johnston 2001.
    """
    density = -np.log10(np.clip(light, MIN_LIGHT, None))
    vectors = np.array([HAEMATOXYLIN, EOSIN, DAB])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    mixing = np.linalg.inv(vectors) @ np.diag(factors) @ vectors
    transmitted: Array = 10.0 ** -(density @ mixing.astype(np.float32))
    return transmitted


def optical_density(image: Array, white: Array) -> Array:
    """-log10(image / white), HW3 float32; black is treated as grey level 1 of 255."""
    darkest = np.iinfo(image.dtype).max / 255 if image.dtype.kind == "u" else 1.0
    light = np.maximum(image.astype(np.float32), darkest)
    density: Array = np.log10(np.maximum(white, darkest) / light).astype(np.float32)
    return density


def estimate_white(image: Array) -> Array:
    """Estimate the light without tissue in each pixel: HW3 float32 in the image's units.

    Fits a quadratic surface per channel to the bright pixels of a grid of blocks. It follows
    uneven illumination; blocks below the surface (tissue) are down-weighted in each round. A
    uniform haze of stain counts as background.
    """
    height_px, width_px = image.shape[:2]
    if min(height_px, width_px) < BLOCKS * MIN_BLOCK_PX:
        white = np.percentile(image, BRIGHT_PERCENTILE, axis=(0, 1)).astype(np.float32)
        return np.broadcast_to(white, image.shape)
    bright, places = _bright_blocks(image)
    rows, cols = np.linspace(-1, 1, height_px), np.linspace(-1, 1, width_px)
    terms = _quadratic_terms(rows[:, None], cols[None, :])
    channels = [_surface(terms, _fit_from_above(places, values)) for values in bright.T]
    lowest, highest = bright.min(axis=0), bright.max(axis=0)
    surface: Array = np.clip(np.stack(channels, axis=-1), lowest, highest).astype(np.float32)
    return surface


def _bright_blocks(image: Array) -> tuple[Array, Array]:
    """Bright values (N3) and the quadratic terms of the centre (N6) of each block."""
    values, centres = [], []
    for i, band in enumerate(np.array_split(image, BLOCKS, axis=0)):
        for j, block in enumerate(np.array_split(band, BLOCKS, axis=1)):
            # by luminance, so that all channels use the same pixels
            luminance = block.sum(axis=2, dtype=np.uint32)
            is_bright = luminance >= np.percentile(luminance, BRIGHT_PERCENTILE)
            values.append(block[is_bright].mean(axis=0))
            centres.append((2 * (i + 0.5) / BLOCKS - 1, 2 * (j + 0.5) / BLOCKS - 1))
    row, col = np.array(centres).T
    return np.array(values), np.stack(_quadratic_terms(row, col), axis=-1)


def _quadratic_terms(row: Array, col: Array) -> list[Array]:
    """1, r, c, r^2, rc, c^2 for places in -1..1, broadcast against each other."""
    return [np.ones_like(row * col), *np.broadcast_arrays(row, col, row**2, row * col, col**2)]


def _fit_from_above(places_N6: Array, values_N: Array) -> Array:
    """Weights (6,) of the surface; values more than 2 % below it get a low weight."""
    weights_N = np.ones(len(values_N))
    solution: Array = np.zeros(6)
    for _ in range(FIT_ROUNDS):
        scaled = places_N6 * weights_N[:, None]
        solution = np.linalg.lstsq(scaled, values_N * weights_N, rcond=None)[0]
        below_N = (places_N6 @ solution - values_N) / max(float(values_N.max()), 1.0)
        weights_N = np.where(below_N > 0.02, 0.05, 1.0)
    return solution


def _surface(terms: list[Array], weights: Array) -> Array:
    surface: Array = sum(w * term for w, term in zip(weights, terms, strict=True))
    return surface
