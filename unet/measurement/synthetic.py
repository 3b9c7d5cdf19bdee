"""A synthetic IHC set: fields of blue and brown nuclei, drawn in optical density.

Each nucleus, its border and whether it is positive are known exactly, so predictions can be
compared with the truth. Light is absorbed as in a slide (Beer-Lambert); then uneven
illumination, blur and noise of the microscope are added. The same seed gives the same pixels.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, gaussian_filter, label

from dataset_rules.ground.disk import write_file, write_json
from dataset_rules.pixels.images import encode
from unet.measurement.stains import mix_stains

Array = NDArray[Any]
Random = np.random.Generator
Place = tuple[float, float]  # row, column
Window = tuple[slice, ...]

RADIUS_PX = (9.5, 13.0)  # long half-axis; nuclei of 6 to 9 um at 20x (0.35 um per pixel)
AXIS_RATIO = (0.65, 1.0)  # short axis / long axis
COVERAGE = (0.12, 0.30)  # share of the field covered by nuclei: about 25 to 60 in 256 x 256
TOUCHING = 0.4  # share of nuclei placed against an earlier one
MAX_CUT = 0.10  # of a nucleus's area that a touching neighbour may cover
DAB_POSITIVE = (0.36, 1.05)  # OD in brown nuclei: weak to strong; measured as positive from 0.2
DAB_NEGATIVE = (0.0, 0.05)
HAEMATOXYLIN_POSITIVE = (0.10, 0.30)  # the counterstain shows through the brown
HAEMATOXYLIN_NEGATIVE = (0.30, 0.75)
BLUR_PX = 0.7
NOISE = 0.010  # standard deviation of the sensor's noise, as a share of white

TRUTH = "truth.json"
SLIDES, MASKS = "Slides scan 3", "annotations final"


@dataclass(frozen=True)
class Field:
    """One field of view with its ground truth."""

    image: Array  # HW3, uint8, RGB
    instances: Array  # HW, uint16, 0 background, 1..n nuclei
    positive: Array  # (n,), bool: is nucleus i + 1 brown

    @property
    def count(self) -> int:
        """Number of nuclei."""
        return len(self.positive)

    @property
    def positive_count(self) -> int:
        """Number of brown nuclei."""
        return int(self.positive.sum())


def draw_field(rng: Random, *, height_px: int = 256, width_px: int = 256) -> Field:
    """Draw a field of nuclei, with random number and share of positive ones (0.1 to 0.9)."""
    instances = _place_nuclei(rng, (height_px, width_px))
    positive = rng.random(int(instances.max())) < rng.uniform(0.1, 0.9)
    haematoxylin, dab = _stain(rng, instances, positive)
    return Field(_photograph(rng, mix_stains(haematoxylin, dab)), instances, positive)


def write_messy_folder(folder: Path, seed: int, fields: int = 40) -> None:
    """Write a typical laboratory folder: pairs with inconsistent names, and junk.

    Images and 16-bit instance maps are in two directories under different names. Existing files
    are kept, so an interrupted run resumes.
    """
    for number in range(1, fields + 1):
        name = f"IHC_{number:03d}"
        image_path = folder / SLIDES / f"{name}.png"
        mask_path = folder / MASKS / f"{name}_nuclei.png"
        if not (image_path.is_file() and mask_path.is_file()):
            field = draw_field(np.random.default_rng([seed, number]))
            _write(image_path, encode(field.image, ".png"))
            _write(mask_path, encode(field.instances, ".png"))
    _write_junk(folder, np.random.default_rng([seed, 0]))


def write_unseen_fields(folder: Path, seed: int, fields: int = 8) -> list[Path]:
    """Write images for prediction, and `truth.json` with the true counts; returns their paths.

    Its format is `{"fields": [{"name", "count", "positive_count"}]}`.
    """
    paths, truth = [], []
    for number in range(1, fields + 1):
        field = draw_field(np.random.default_rng([seed, number]))
        path = folder / f"unseen_{number:02d}.png"
        _write(path, encode(field.image, ".png"))
        truth.append(
            {"name": path.stem, "count": field.count, "positive_count": field.positive_count}
        )
        paths.append(path)
    write_json(folder / TRUTH, {"fields": truth})
    return paths


def read_truth(folder: Path) -> dict[str, tuple[int, int]]:
    """Name of each unseen field -> true number of nuclei and of positive nuclei."""
    document = json.loads((folder / TRUTH).read_bytes())
    return {f["name"]: (int(f["count"]), int(f["positive_count"])) for f in document["fields"]}


def _place_nuclei(rng: Random, size: tuple[int, int]) -> Array:
    """Instance map of single and touching nuclei that cover a share of the field."""
    instances: Array = np.zeros(size, np.uint16)
    centres: list[Place] = []
    mean_area_px = np.pi * np.mean(RADIUS_PX) ** 2 * np.mean(AXIS_RATIO)
    for _ in range(max(1, round(rng.uniform(*COVERAGE) * instances.size / mean_area_px))):
        outline = _Outline.draw(rng)
        if centres and rng.random() < TOUCHING:
            centre = _place_against(rng, outline, instances, centres[rng.integers(len(centres))])
        else:
            centre = _place_apart(rng, outline, instances)
        if centre is not None:
            centres.append(centre)
            window, mask = outline.mask(instances.shape, centre)
            instances[window][mask & (instances[window] == 0)] = len(centres)
    return instances


@dataclass(frozen=True)
class _Outline:
    """An ellipse whose radius varies with the angle."""

    axes_px: tuple[float, float]
    rotation: float  # radians
    wobble: Array  # (k, 2): amplitude as a share of the radius, and phase, of waves 2, 3, ...

    @classmethod
    def draw(cls, rng: Random) -> "_Outline":
        long_px = rng.uniform(*RADIUS_PX)
        amplitudes = rng.normal(0, 0.035, 4) / np.sqrt(np.arange(1, 5))
        phases = rng.uniform(0, 2 * np.pi, 4)
        return cls(
            (long_px, long_px * rng.uniform(*AXIS_RATIO)),
            rng.uniform(0, np.pi),
            np.stack([amplitudes, phases], axis=1),
        )

    def mask(self, size: tuple[int, ...], centre: Place) -> tuple[Window, Array]:
        """The window of the field around the nucleus, and its mask there (HW bool)."""
        margin_px = 1.5 * self.axes_px[0]
        window = tuple(
            slice(max(0, int(at - margin_px)), min(side, int(at + margin_px) + 1))
            for at, side in zip(centre, size, strict=True)
        )
        rows, cols = np.ogrid[window]
        angle = np.arctan2(rows - centre[0], cols - centre[1])
        along, across = np.cos(angle - self.rotation), np.sin(angle - self.rotation)
        radius = 1 / np.hypot(along / self.axes_px[0], across / self.axes_px[1])
        for wave, (amplitude, phase) in enumerate(self.wobble, start=2):
            radius = radius * (1 + amplitude * np.cos(wave * angle + phase))
        return window, np.hypot(rows - centre[0], cols - centre[1]) <= radius


def _place_apart(rng: Random, outline: _Outline, instances: Array) -> Place | None:
    """A centre at least 2 pixels away from all other nuclei; None after 30 attempts."""
    taken = binary_dilation(instances > 0, iterations=2)
    for _ in range(30):
        centre = (rng.uniform(2, taken.shape[0] - 2), rng.uniform(2, taken.shape[1] - 2))
        window, mask = outline.mask(taken.shape, centre)
        if not (mask & taken[window]).any():
            return centre
    return None


def _place_against(
    rng: Random, outline: _Outline, instances: Array, partner: Place
) -> Place | None:
    """A centre where the nucleus touches its partner with minimal overlap; None after 8 tries."""
    for _ in range(8):
        angle = rng.uniform(0, 2 * np.pi)
        row, col = float(np.sin(angle)), float(np.cos(angle))
        for distance_px in np.arange(2.6 * RADIUS_PX[1], RADIUS_PX[0], -0.75):
            centre = (partner[0] + distance_px * row, partner[1] + distance_px * col)
            if not _is_inside(centre, instances.shape):
                continue
            window, mask = outline.mask(instances.shape, centre)
            if (mask & (instances[window] > 0)).any():
                if _fits(mask, instances[window]):
                    return centre
                break
    return None


def _is_inside(centre: Place, size: tuple[int, ...]) -> bool:
    return all(2 <= place <= side - 2 for place, side in zip(centre, size, strict=True))


def _fits(mask: Array, instances: Array) -> bool:
    """True if the uncovered part of the nucleus is connected and nearly all of it."""
    free = mask & (instances == 0)
    fits: bool = label(free)[1] == 1 and free.sum() >= (1 - MAX_CUT) * mask.sum()
    return fits


def _stain(rng: Random, instances: Array, positive: Array) -> tuple[Array, Array]:
    """Optical density of haematoxylin and DAB, each HW."""
    n = len(positive)
    blue = np.where(
        positive, rng.uniform(*HAEMATOXYLIN_POSITIVE, n), rng.uniform(*HAEMATOXYLIN_NEGATIVE, n)
    )
    brown = np.where(positive, rng.uniform(*DAB_POSITIVE, n), rng.uniform(*DAB_NEGATIVE, n))
    chromatin = _clouds(rng, instances.shape, grain_px=1.5, strength=0.22)
    haze_blue, haze_brown = _haze(rng, instances, np.append(False, positive))
    haematoxylin = np.append(0.0, blue)[instances] * chromatin + haze_blue
    dab = np.append(0.0, brown)[instances] * chromatin + haze_brown
    return haematoxylin, dab


def _haze(rng: Random, instances: Array, is_brown: Array) -> tuple[Array, Array]:
    """Faint stain of cytoplasm and stroma, weaker away from nuclei; brown leaks from brown ones."""
    clouds = _clouds(rng, instances.shape, grain_px=14, strength=0.35)
    near = gaussian_filter((instances > 0).astype(float), 7)
    near_brown = gaussian_filter(is_brown[instances].astype(float), 5)
    blue = (rng.uniform(0.02, 0.05) + rng.uniform(0.05, 0.12) * near) * clouds
    brown = (rng.uniform(0.0, 0.02) + rng.uniform(0.03, 0.08) * near_brown) * clouds
    return blue, brown


def _clouds(rng: Random, size: tuple[int, ...], *, grain_px: float, strength: float) -> Array:
    """Smooth random factor around 1, never below 0.2; strength is its standard deviation."""
    noise = gaussian_filter(rng.standard_normal(size), grain_px, mode="wrap")
    factor: Array = np.clip(1 + strength * noise / noise.std(), 0.2, None)
    return factor


def _photograph(rng: Random, transmitted: Array) -> Array:
    """The camera's image (uint8 RGB) of the transmitted light (HW3, 0..1)."""
    height_px, width_px = transmitted.shape[:2]
    row, col = np.meshgrid(
        np.linspace(-1, 1, height_px), np.linspace(-1, 1, width_px), indexing="ij"
    )
    tilt, fall = rng.uniform(-0.05, 0.05, 2), rng.uniform(0.0, 0.07)  # 5 %: an off-axis lamp
    light = 1 + tilt[0] * row + tilt[1] * col - fall * (row**2 + col**2)
    lamp = np.array([0.955, 0.945, 0.93]) * rng.uniform(0.95, 1.0)  # slightly warm, not clipped
    image_float = gaussian_filter(transmitted, (BLUR_PX, BLUR_PX, 0)) * light[..., None] * lamp
    image_float += rng.normal(0, NOISE, image_float.shape) * np.sqrt(
        np.maximum(image_float, 0.05)
    )  # shot noise
    image: Array = (np.clip(image_float, 0, 1) * 255).round().astype(np.uint8)
    return image


def _write_junk(folder: Path, rng: Random) -> None:
    """Write files typical of such folders that belong to no pair."""
    orphan = encode(draw_field(rng).image, ".png")
    junk = {
        f"{SLIDES}/IHC_900.png": orphan,  # scanned, never annotated
        f"{SLIDES}/Thumbs.db": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(504),
        f"{SLIDES}/._IHC_001.png": b"\x00\x05\x16\x07\x00\x02\x00\x00Mac OS X        " + bytes(64),
        f"{MASKS}/.DS_Store": b"\x00\x00\x00\x01Bud1" + bytes(64),
        "notes.txt": b"IHC_900 still to be annotated. Masks are 16 bit, open them in Fiji.\n",
    }
    for name, data in junk.items():
        _write(folder / name, data)


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_file(path, data)
