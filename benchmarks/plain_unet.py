"""Baseline: a plain U-Net with 31 million parameters and a standard training loop.

    python benchmarks/plain_unet.py DATASET --minutes 10

Float32, eager, Adam at 1e-3, cross-entropy, patches of 256 px in batches of 8, rotated and flipped.
Prints the mean Dice over the images of the test split, computed as in `unetops evaluate`.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import torch
from reference import PlainUNet
from torch import nn

from dataset_rules.artifacts.dataset import IGNORE, Split, read_dataset, read_sample
from unet.scoring.metrics import pixel_counts

WIDTHS = (64, 128, 256, 512, 1024)
PATCH_PX, BATCH = 256, 8


def plain_unet() -> PlainUNet:
    """The untrained network."""
    return PlainUNet(WIDTHS)


def _scaled(image: np.ndarray) -> np.ndarray:
    color = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    return color.astype(np.float32) / np.iinfo(image.dtype).max


def _patch(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple:
    down, right = (max(0, PATCH_PX - n) for n in mask.shape)
    image = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REFLECT_101)
    mask = cv2.copyMakeBorder(mask, 0, down, 0, right, cv2.BORDER_REFLECT_101)
    top, left = (int(rng.integers(n - PATCH_PX + 1)) for n in mask.shape)
    quarters, is_flipped = int(rng.integers(4)), bool(rng.integers(2))
    crops = [a[top : top + PATCH_PX, left : left + PATCH_PX] for a in (image, mask)]
    return tuple(np.rot90(a[:, ::-1] if is_flipped else a, quarters).copy() for a in crops)


def train(dataset: Path, *, seconds: float) -> tuple[PlainUNet, int]:
    """Train for a given time; returns the network and the number of steps."""
    start, rng = time.monotonic(), np.random.default_rng(0)
    torch.manual_seed(0)
    net = plain_unet()
    optimizer = torch.optim.Adam(net.parameters(), 1e-3)
    loss_of = nn.CrossEntropyLoss(ignore_index=IGNORE)
    samples = [read_sample(dataset, s)[:2] for s in read_dataset(dataset).of(Split.TRAIN)]
    steps = 0
    while time.monotonic() - start < seconds:
        drawn = [samples[int(rng.integers(len(samples)))] for _ in range(BATCH)]
        images, masks = zip(*(_patch(_scaled(i), m, rng) for i, m in drawn), strict=True)
        loss = loss_of(net(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)),
                       torch.from_numpy(np.stack(masks).astype(np.int64)))  # fmt: skip
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        steps += 1
    return net.eval(), steps


@torch.inference_mode()
def dice(net: PlainUNet, dataset: Path) -> float:
    """Dice of the foreground, mean over the images of the test split."""
    scores = []
    for sample in read_dataset(dataset).of(Split.TEST):
        image, mask, _ = read_sample(dataset, sample)
        down, right = (-n % 16 for n in mask.shape)
        padded = cv2.copyMakeBorder(_scaled(image), 0, down, 0, right, cv2.BORDER_REFLECT_101)
        logits = net(torch.from_numpy(padded).permute(2, 0, 1)[None])
        found = logits.argmax(1)[0].numpy()[: mask.shape[0], : mask.shape[1]]
        counts = pixel_counts((mask > 0) & (mask != IGNORE), found > 0, mask != IGNORE)
        scores.append(counts.dice)
    return mean(score for score in scores if score is not None)


def main() -> None:
    """Train, score, print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    net, steps = train(options.dataset, seconds=60 * options.minutes)
    print(json.dumps({"steps": steps, "dice_mean": round(dice(net, options.dataset), 4)}))


if __name__ == "__main__":
    main()
