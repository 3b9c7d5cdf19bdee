"""One step of gradient descent, the averaged weights, and how fast this machine does it.

Shape suffixes: B batch, K classes, H height, W width.
"""

import statistics
import time
from typing import Literal

import torch
from torch import Tensor

from unet.data import Batch, Patches
from unet.losses import distance_loss, segmentation_loss
from unet.model import UNet
from unet.plan import Plan
from unet.predict import make_net

Precision = Literal["bfloat16", "float32"]
PRECISIONS: tuple[Precision, Precision] = ("bfloat16", "float32")
MEASURE_STEPS = 3  # timed steps a precision, after one that warms up


def fastest(plan: Plan, patches: Patches, *, within_s: float) -> tuple[Precision, float]:
    """The precision in which this machine trains the plan's network fastest; patches a second.

    bfloat16 is slower than float32 on some processors that have it, so both are measured, in
    turn, on networks that are thrown away. The best step decides between them (what else runs on
    the machine only ever slows a step down); the median tells the speed to expect. After
    `within_s` seconds no further step is begun.
    """
    plans = {name: plan.model_copy(update={"precision": name}) for name in PRECISIONS}
    nets = {name: make_net(plan) for name in PRECISIONS}
    optimizers = {name: make_optimizer(net, plan) for name, net in nets.items()}
    took: dict[Precision, list[float]] = {name: [] for name in PRECISIONS}
    until = time.monotonic() + within_s
    for index in range(1 + MEASURE_STEPS):
        if index and time.monotonic() > until:
            break
        batch = patches.batch(index)
        for name in PRECISIONS:
            begun = time.monotonic()
            train_step(nets[name], optimizers[name], batch, plans[name])
            took[name].append(time.monotonic() - begun)
    timed = {name: steps[1:] or steps for name, steps in took.items()}  # the first warms up
    precision = min(PRECISIONS, key=lambda name: min(timed[name]))
    return precision, plan.batch / statistics.median(timed[precision])


def train_step(net: UNet, optimizer: torch.optim.Optimizer, batch: Batch, plan: Plan) -> float:
    """One step of gradient descent; returns the loss."""
    net.train()
    weights_K = torch.tensor(plan.class_weights)
    with torch.autocast("cpu", torch.bfloat16, enabled=plan.precision == "bfloat16"):
        logits_BKHW, distance_B1HW = net(batch.image_BCHW)
    loss: Tensor = segmentation_loss(logits_BKHW.float(), batch.mask_BHW, weights_K)
    loss = loss + plan.distance_weight * distance_loss(
        distance_B1HW.float(), batch.distance_B1HW, batch.mask_BHW
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def make_optimizer(net: UNet, plan: Plan) -> torch.optim.Optimizer:
    """AdamW in its fused form, with the plan's rate and decay."""
    return torch.optim.AdamW(
        net.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
    )


@torch.no_grad()
def average(averaged: UNet, net: UNet, decay: float, step: int) -> None:
    """Exponential moving average of weights and batch-norm statistics, shorter at the start."""
    keep = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)
