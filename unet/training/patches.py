"""Patch sampling and augmentation; random generators are seeded by seed, step and position.

Shape suffixes: B batch, C channels, H height, W width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from dataset_rules.artifacts.dataset import Sample, Split, read_dataset, read_sample
from dataset_rules.pixels.images import Pixels
from unet.measurement.stains import scale_stains
from unet.network.preprocessing import black_level, normalized, rescaled
from unet.objects.targets import distance_map, objects_of
from unet.planning.plan import Plan

CACHE_BYTES = 2 << 30  # decoded samples kept in memory; others are read again when drawn


@dataclass(frozen=True)
class PreparedSample:
    """A sample as the network's input, at the plan's scale."""

    image: NDArray[np.float32]  # HWC, about 0..1
    black: float | None  # light at 0, relative to 1; stained images on bright ground only
    mask: NDArray[np.uint8]  # HW class ids, 255 ignore
    distance: NDArray[np.uint8]  # HW, 0..255


@dataclass(frozen=True)
class Batch:
    """Patches of one step."""

    image_BCHW: Tensor  # float32
    mask_BHW: Tensor  # int64, 255 ignore
    distance_B1HW: Tensor  # float32, 0..1

    def to(self, device: str) -> "Batch":
        """The batch on a device; to a GPU asynchronously, from pinned memory."""
        if device == "cpu":
            return self
        parts = (self.image_BCHW, self.mask_BHW, self.distance_B1HW)
        return Batch(*(part.pin_memory().to(device, non_blocking=True) for part in parts))


def prepare(folder: Path, sample: Sample, plan: Plan) -> PreparedSample:
    """Read and normalise a sample, and resize it to the plan's scale."""
    image, mask, instances = read_sample(folder, sample)
    distance = distance_map(objects_of(mask, instances))
    small = rescaled(image, plan.scale)
    height, width = small.shape[:2]
    if plan.scale != 1:
        mask = cv2.resize(mask, (width, height), interpolation=cv2.INTER_NEAREST)
        distance = cv2.resize(distance, (width, height), interpolation=cv2.INTER_AREA)
    dark = black_level(image) if plan.channels == 3 else None
    return PreparedSample(normalized(small, channels=plan.channels), dark, mask, distance)


class Patches:
    """Draws batches of augmented patches; caches decoded samples up to a size limit."""

    def __init__(
        self,
        samples: Sequence[tuple[Path, Sample]],
        plan: Plan,
        *,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.samples = samples
        self.plan = plan
        self.cache_bytes = cache_bytes
        self._lock = Lock()
        self._cache: dict[int, PreparedSample] = {}
        self._cached_bytes = 0

    def batch(self, step: int, share: range | None = None) -> Batch:
        """The batch of a step, or a share of it; depends on the plan and the step only.

        Each patch has its own generator, seeded by seed, step and position in the batch, so that
        any thread or process can draw it.
        """
        batch, patch_px = self.plan.sizes(step)
        drawn = [self._patch(step, place, patch_px) for place in (share or range(batch))]
        image, mask, distance = (np.stack(part) for part in zip(*drawn, strict=True))
        image_BCHW = torch.from_numpy(image).permute(0, 3, 1, 2)
        return Batch(
            image_BCHW.contiguous(memory_format=torch.channels_last),
            torch.from_numpy(mask.astype(np.int64)),
            torch.from_numpy(distance.astype(np.float32) / 255)[:, None],
        )

    def _index(self, step: int, position: int) -> int:
        """Each sample once per epoch, in an order that depends on the epoch's number."""
        drawn = step * self.plan.sizes(step)[0] + position
        epoch, place = divmod(drawn, len(self.samples))
        order = np.random.default_rng([self.plan.seed, 1, epoch]).permutation(len(self.samples))
        return int(order[place])

    def _sample(self, index: int) -> PreparedSample:
        if index in self._cache:
            return self._cache[index]
        prepared = prepare(*self.samples[index], self.plan)
        size = sum(a.nbytes for a in (prepared.image, prepared.mask, prepared.distance))
        with self._lock:  # shared by drawing threads
            if index not in self._cache and self._cached_bytes + size <= self.cache_bytes:
                self._cache[index] = prepared
                self._cached_bytes += size
        return prepared

    def clear_cache(self) -> None:
        """Free the memory of decoded samples, and cache none from now on."""
        with self._lock:
            self._cache, self._cached_bytes, self.cache_bytes = {}, 0, 0

    def _patch(
        self, step: int, place: int, patch_px: int
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.uint8]]:
        rng = np.random.default_rng([self.plan.seed, step, place])
        sample = self._sample(self._index(step, place))
        matrix = _random_transform(sample.mask.shape, self.plan, rng, patch_px)
        patch = (patch_px, patch_px)
        image = _warp(sample.image, matrix, patch, cv2.INTER_LINEAR)
        mask = _warp(sample.mask, matrix, patch, cv2.INTER_NEAREST)
        distance = _warp(sample.distance, matrix, patch, cv2.INTER_LINEAR)
        if image.ndim == 2:
            image = image[..., None]
        if sample.black is not None and self.plan.stain_jitter:
            image = _jitter_stains(image, sample.black, self.plan.stain_jitter, rng)
        return _jitter_colours(image, self.plan, rng), mask, distance


def _random_transform(
    shape: tuple[int, ...], plan: Plan, rng: np.random.Generator, patch_px: int
) -> NDArray[np.float64]:
    """2x3 matrix from patch to image: random position, rotation, flip and zoom."""
    half = patch_px / 2
    zoom = np.exp(rng.uniform(np.log(plan.zoom_min), np.log(plan.zoom_max)))
    quarter = rng.integers(4) * np.pi / 2
    angle = quarter + (rng.uniform(-np.pi / 4, np.pi / 4) if rng.random() < 0.5 else 0.0)
    flip = 1 - 2 * int(rng.integers(2))
    rotation = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) / zoom
    rotation[:, 0] *= flip
    half_px = half / zoom  # half the patch's side, in pixels of the image
    centre = [
        rng.uniform(min(half_px, n / 2), max(n - half_px, n / 2)) for n in (shape[1], shape[0])
    ]
    shift = np.array(centre) - 0.5 - rotation @ np.array([half - 0.5, half - 0.5])
    return np.hstack([rotation, shift[:, None]])


def _warp(
    pixels: Pixels, matrix: NDArray[np.float64], size: tuple[int, int], interpolation: int
) -> Pixels:
    return np.asarray(
        cv2.warpAffine(
            pixels,
            matrix,
            size,
            flags=interpolation | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REFLECT_101,
        )
    )


def _jitter_stains(
    image: NDArray[np.float32], dark: float, strength: float, rng: np.random.Generator
) -> NDArray[np.float32]:
    """The image with each stain's optical density scaled by a random factor."""
    factors = np.exp(rng.normal(0, strength, 3))
    light = scale_stains(dark + image * np.float32(1 - dark), factors)
    return np.asarray((light - dark) / (1 - dark), np.float32)


def _jitter_colours(
    image: NDArray[np.float32], plan: Plan, rng: np.random.Generator
) -> NDArray[np.float32]:
    """Random contrast, brightness, gamma, colour balance, blur and noise."""
    strength = plan.colour_jitter
    image = image * np.float32(np.exp(rng.normal(0, 0.25 * strength)))
    image = image + np.float32(rng.normal(0, 0.1 * strength))
    if rng.random() < 0.3:
        gamma = np.exp(rng.normal(0, 0.3 * strength))
        image = np.sign(image) * np.abs(image) ** np.float32(gamma)
    if image.shape[2] == 3 and rng.random() < 0.5:
        image = image * np.exp(rng.normal(0, 0.08 * strength, 3)).astype(np.float32)
    if rng.random() < 0.15:
        sigma = rng.uniform(0.5, 1.2)
        image = cv2.GaussianBlur(image, (0, 0), sigma).reshape(image.shape)
    if rng.random() < 0.15:
        noise = rng.standard_normal(image.shape, np.float32)
        image = image + noise * np.float32(rng.uniform(0.01, 0.06))
    return np.ascontiguousarray(image, np.float32)


def split_samples(
    folders: Sequence[Path],
) -> tuple[list[tuple[Path, Sample]], list[tuple[Path, Sample]]]:
    """Samples to train and to validate on; without 'val', one group of 'train' is held out."""
    samples = [(folder, s) for folder in folders for s in read_dataset(folder).samples]
    training = [item for item in samples if item[1].split is Split.TRAIN]
    held_out = [item for item in samples if item[1].split is Split.VAL]
    if held_out:
        return training, held_out
    groups = sorted({(str(folder.resolve()), s.group) for folder, s in training})
    if len(groups) < 2:
        return training, []
    last = groups[-1]
    inside = [item for item in training if (str(item[0].resolve()), item[1].group) == last]
    return [item for item in training if item not in inside], inside
