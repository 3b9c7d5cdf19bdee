"""Dice over time: unetops against MONAI's BasicUNet and a plain U-Net of 31 million parameters.

    python benchmarks/training.py DATASET --out DIR [--minutes 1] [--peer-minutes 30]

All train on the same split on the same machine, one after the other, by wall clock. At intervals
the clock is paused to compute the foreground Dice on the test split, mean over the images at their
original size. A contender that does not reach `--goal` counts as `--peer-minutes`. DIR gets
`curves.json` and `curves.svg`; existing curves in DIR are kept.

The peers' loop is what a competent user would write: bfloat16, channels_last, AdamW with a
one-cycle learning rate as long as our time limit, then restarted; patches rotated, flipped and
brightened. MONAI's network (`pip install 'unetops[bench]'`) uses MONAI's Dice and cross-entropy,
the plain one cross-entropy.
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from statistics import mean

import cv2
import numpy as np
import torch
from plain_unet import plain_unet
from torch import Tensor, nn

from dataset_rules.artifacts.dataset import IGNORE, Split, read_dataset, read_sample
from unet.network.inference import probabilities
from unet.scoring.metrics import pixel_counts
from unet.training.trainer import Trainer

PATCH_PX, BATCH, STRIDE = 256, 8, 16
LATER_SHARE = 0.1  # minimum interval between scores, as a share of the elapsed time
# Maximum learning rates, the best of those tried: MONAI's network reached Dice 0.80 after 79 s
# at 2e-3, 94 s at 1e-3 and 87 s at 5e-4; the plain one after 385 s at 2e-3 and 141 s at 5e-4.
MONAI_RATE, PLAIN_RATE = 2e-3, 5e-4
WARM_SHARE = 0.3
TICKS_S, MAX_TICKS = (5, 10, 20, 30, 60, 120, 300, 600), 9
COLOURS = {"ours": "#c1121f", "monai": "#1d6fa5", "plain": "#777777"}
Predict = Callable[[np.ndarray], np.ndarray]  # image -> foreground
LossOf = Callable[[Tensor, Tensor], Tensor]  # logits, label mask -> loss
Samples = Sequence[tuple[np.ndarray, np.ndarray]]


class Clock:
    """Training clock, paused while scores are computed, with the scores so far."""

    def __init__(self, test: Samples, *, limit_s: float, every_s: float, goal: float) -> None:
        self.test, self.limit_s, self.every_s, self.goal = test, limit_s, every_s, goal
        self.start, self.paused_s = time.monotonic(), 0.0
        self.curve: list[tuple[float, float]] = []

    def seconds(self) -> float:
        """Time spent on training."""
        return time.monotonic() - self.start - self.paused_s

    def is_up(self) -> bool:
        """Whether the time limit or the goal is reached."""
        return self.seconds() > self.limit_s or (bool(self.curve) and self.curve[-1][1] > self.goal)

    def score_if_due(self, predict: Predict, *, is_end: bool = False) -> float:
        """Compute the score if it is due; returns the seconds that the clock was paused."""
        now, last = self.seconds(), self.curve[-1][0] if self.curve else 0.0
        if now - last < max(self.every_s, LATER_SHARE * now) and not is_end:
            return 0.0
        start = time.monotonic()
        self.curve.append((round(now, 1), round(dice(predict, self.test), 4)))
        print(f"    {self.curve[-1][0]:7.1f} s  Dice {self.curve[-1][1]:.4f}", flush=True)
        paused = time.monotonic() - start
        self.paused_s += paused
        return paused


def dice(predict: Predict, samples: Samples) -> float:
    """Dice of the foreground, mean over the images where it is defined."""
    found = []
    for image, mask in samples:
        known, truth = mask != IGNORE, (mask > 0) & (mask != IGNORE)
        found.append(pixel_counts(truth, predict(image), known).dice)
    return mean(score for score in found if score is not None)


def ours(dataset: Path, out: Path, clock: Clock) -> None:
    """`unetops train` within a time limit; its averaged weights are scored during training."""

    def after_step() -> bool:
        trainer.time_budget.clock += clock.score_if_due(predict)
        return False  # do not stop

    def predict(image: np.ndarray) -> np.ndarray:
        prob = probabilities([trainer.state.averaged], image, trainer.state.plan)
        return cv2.resize(prob[0], image.shape[1::-1]) < 0.5

    out.mkdir(parents=True)
    trainer = Trainer([dataset], out, plan=None, seed=0, limit_s=clock.limit_s, clock=clock.start,
                      on_event=None, is_to_stop=after_step)  # fmt: skip
    trainer.run()
    clock.score_if_due(predict, is_end=True)


def monai(dataset: Path, clock: Clock, *, cycle_s: float) -> None:
    """MONAI's BasicUNet with MONAI's Dice and cross-entropy."""
    from monai.losses import DiceCELoss
    from monai.networks.nets import BasicUNet

    loss_of = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    net = BasicUNet(spatial_dims=2, in_channels=3, out_channels=2)
    _train(dataset, net, lambda logits, mask: loss_of(logits, mask[:, None]), clock, cycle_s,
           MONAI_RATE)  # fmt: skip


def plain(dataset: Path, clock: Clock, *, cycle_s: float) -> None:
    """The plain U-Net of 31 million parameters with cross-entropy."""
    loss_of = nn.CrossEntropyLoss(ignore_index=IGNORE)
    _train(dataset, plain_unet(), loss_of, clock, cycle_s, PLAIN_RATE)


def one_cycle(share: float, max_rate: float) -> float:
    """Learning rate at a fraction of the cycle: cosine rise and fall (Smith 2018)."""
    is_rising = share < WARM_SHARE
    phase = share / WARM_SHARE if is_rising else (1 - share) / (1 - WARM_SHARE)
    return max_rate * max(0.01, (1 - math.cos(math.pi * phase)) / 2)


def _train(dataset: Path, net: nn.Module, loss_of: LossOf, clock: Clock, cycle_s: float,
           max_rate: float) -> None:  # fmt: skip
    """The training loop of both peers, until the time limit or the goal is reached."""
    samples, rng = samples_of(dataset, Split.TRAIN), np.random.default_rng(0)
    net = net.to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), max_rate, weight_decay=1e-2, fused=True)
    while not clock.is_up():
        net.train()
        drawn = [_patch(*samples[int(rng.integers(len(samples)))], rng) for _ in range(BATCH)]
        image, mask = (np.stack(part) for part in zip(*drawn, strict=True))
        for group in optimizer.param_groups:
            group["lr"] = one_cycle(clock.seconds() % cycle_s / cycle_s, max_rate)
        batch = torch.from_numpy(image).permute(0, 3, 1, 2)  # already channels_last
        with torch.autocast("cpu", torch.bfloat16):
            logits = net(batch)
        loss = loss_of(logits.float(), torch.from_numpy(mask.astype(np.int64)))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        clock.score_if_due(lambda image: _predict(net, image))


@torch.inference_mode()
def _predict(net: nn.Module, image: np.ndarray) -> np.ndarray:
    net.eval()
    down, right = (-n % STRIDE for n in image.shape[:2])
    padded = cv2.copyMakeBorder(_scaled(image), 0, down, 0, right, cv2.BORDER_REFLECT_101)
    with torch.autocast("cpu", torch.bfloat16):
        logits = net(torch.from_numpy(padded).permute(2, 0, 1)[None])
    return logits.float().argmax(1)[0].numpy()[: image.shape[0], : image.shape[1]] > 0


def _scaled(image: np.ndarray) -> np.ndarray:
    color = image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)
    low, high = np.percentile(color, [0.5, 99.8])  # as in unetops
    return ((color.astype(np.float32) - low) / max(high - low, 8.0)).astype(np.float32)


def _patch(image: np.ndarray, mask: np.ndarray, rng: np.random.Generator) -> tuple:
    image = _scaled(image)
    down, right = (max(0, PATCH_PX - n) for n in mask.shape)
    image = cv2.copyMakeBorder(image, 0, down, 0, right, cv2.BORDER_REFLECT_101)
    mask = cv2.copyMakeBorder(mask, 0, down, 0, right, cv2.BORDER_REFLECT_101)
    top, left = (int(rng.integers(n - PATCH_PX + 1)) for n in mask.shape)
    quarters, is_flipped = int(rng.integers(4)), bool(rng.integers(2))
    crops = [a[top : top + PATCH_PX, left : left + PATCH_PX] for a in (image, mask)]
    image, mask = (np.rot90(a[:, ::-1] if is_flipped else a, quarters).copy() for a in crops)
    return image * np.float32(rng.uniform(0.8, 1.25)) + np.float32(rng.normal(0, 0.05)), mask


def samples_of(dataset: Path, split: Split) -> Samples:
    """Images and label masks of a split."""
    return [read_sample(dataset, sample)[:2] for sample in read_dataset(dataset).of(split)]


def time_to_goal(curve: Sequence[tuple[float, float]], goal: float, default_s: float) -> float:
    """Seconds until the first score that reached the goal."""
    return next((second for second, score in curve if score >= goal), default_s)


def plot(curves: dict[str, list[tuple[float, float]]], goal: float) -> str:
    """The curves as SVG: Dice over seconds, labelled at their ends."""
    width, height, edge = 680, 400, 50
    longest = max(second for curve in curves.values() for second, _ in curve)
    tick_s = next((s for s in TICKS_S if longest / s <= MAX_TICKS), TICKS_S[-1])

    def place(second: float, score: float) -> tuple[float, float]:
        x = edge + second / longest * (width - 2.5 * edge)
        return round(x, 1), round(height - edge - score * (height - 2 * edge), 1)

    def text(second: float, score: float, label: str, style: str, colour: str = "#222") -> str:
        x, y = place(second, score)
        return f'<text x="{x}" y="{y}" fill="{colour}" font-size="13" {style}>{label}</text>'

    def line(points: Sequence[tuple[float, float]], colour: str, style: str = "") -> str:
        joined = " ".join(f"{x},{y}" for x, y in (place(*point) for point in points))
        return f'<polyline points="{joined}" fill="none" stroke="{colour}" {style}/>'

    below, left, right = (
        'dy="18" text-anchor="middle"',
        'dx="-8" dy="4" text-anchor="end"',
        'dx="6"',
    )
    parts = [line([(0, 1), (0, 0), (longest, 0)], "#222"),
             line([(0, goal), (longest, goal)], "#222", 'stroke-dasharray="4"'),
             text(0, 1.04, "Dice on the test split", ""),
             *(text(0, n / 5, f"{n / 5:g}", left) for n in range(6)),
             *(text(n * tick_s, 0, f"{n * tick_s} s", below)
               for n in range(1, int(longest / tick_s) + 1)),
             *(line([(0, 0), *curve], COLOURS[name], 'stroke-width="2"')
               for name, curve in curves.items()),
             *(text(*curve[-1], name, right, COLOURS[name])
               for name, curve in curves.items())]  # fmt: skip
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
            f'font-family="sans-serif"><rect width="100%" height="100%" fill="white"/>'
            f'{"".join(parts)}</svg>\n')  # fmt: skip


def main() -> None:
    """Run the contenders that have no curve yet; print times and ratios."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dataset", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=1.0, help="our time limit")
    parser.add_argument("--peer-minutes", type=float, default=30.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between scores")
    parser.add_argument("--goal", type=float, default=0.80)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_flush_denormal(True)
    torch.manual_seed(0)
    test, kept = samples_of(options.dataset, Split.TEST), options.out / "curves.json"
    curves = json.loads(kept.read_text()) if kept.exists() else {}
    if "monai" not in curves and find_spec("monai") is None:
        parser.error("MONAI is not installed: pip install 'unetops[bench]'")
    ours_s, peers_s = 60 * options.minutes, 60 * options.peer_minutes
    contenders: dict[str, tuple[Callable[[Clock], None], float]] = {
        "ours": (lambda clock: ours(options.dataset, options.out / "run", clock), ours_s),
        "monai": (lambda clock: monai(options.dataset, clock, cycle_s=ours_s), peers_s),
        "plain": (lambda clock: plain(options.dataset, clock, cycle_s=ours_s), peers_s),
    }
    for name, (contend, limit_s) in contenders.items():
        if name in curves:
            continue
        print(name, flush=True)
        clock = Clock(test, limit_s=limit_s, every_s=options.every, goal=options.goal)
        contend(clock)
        curves[name] = clock.curve
        kept.write_text(json.dumps(curves))
    (options.out / "curves.svg").write_text(plot(curves, options.goal))
    times = {name: time_to_goal(curve, options.goal, peers_s) for name, curve in curves.items()}
    for name, seconds in times.items():
        ratio = seconds / times["ours"]
        print(f"{name}: Dice {options.goal:g} after {seconds:.0f} s, {ratio:.1f} times ours; "
              f"best {max(score for _, score in curves[name]):.4f}")  # fmt: skip


if __name__ == "__main__":
    main()
