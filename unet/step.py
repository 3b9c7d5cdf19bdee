"""One step of gradient descent, the averaged weights, and how fast this machine does it.

Shape suffixes: B batch, K classes, H height, W width.
"""

import statistics
import time

import torch

from unet.budget import Device, Precision
from unet.data import Batch, Patches
from unet.errors import UnetError
from unet.group import ALONE, Group
from unet.losses import distance_loss, loss_of_scales
from unet.model import UNet
from unet.plan import Plan
from unet.predict import make_net

PRECISIONS: tuple[Precision, Precision] = ("bfloat16", "float32")
MEASURE_STEPS = 3  # timed steps a precision, after one that warms up
MEASURE_PATCHES = 8  # in each; the speed of twice as many is hardly another


def fastest(
    plan: Plan,
    patches: Patches,
    *,
    within_s: float,
    device: str = "cpu",
    precisions: tuple[Precision, ...] = PRECISIONS,
) -> tuple[Precision, float]:
    """The precision in which this machine trains the plan's network fastest; patches a second.

    bfloat16 is slower than float32 on some processors that have it, so both are measured, in
    turn, on networks that are thrown away. The best step decides between them (what else runs on
    the machine only ever slows a step down); the median tells the speed to expect. After
    `within_s` seconds no further step is begun.
    """
    count = min(plan.batch, MEASURE_PATCHES)
    plans = {name: plan.model_copy(update={"precision": name}) for name in precisions}
    nets = {name: make_net(plan).to(device) for name in precisions}
    optimizers = {name: make_optimizer(net, plan) for name, net in nets.items()}
    took: dict[Precision, list[float]] = {name: [] for name in precisions}
    until = time.monotonic() + within_s
    for index in range(1 + MEASURE_STEPS):
        if index and time.monotonic() > until:
            break
        batch = patches.batch(index, range(count)).to(device)
        for name in precisions:
            begun = time.monotonic()
            train_step(nets[name], optimizers[name], batch, plans[name])
            took[name].append(time.monotonic() - begun)
    timed = {name: steps[1:] or steps for name, steps in took.items()}  # the first warms up
    precision = min(precisions, key=lambda name: min(timed[name]))
    return precision, count / statistics.median(timed[precision])


def train_step(
    net: UNet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    plan: Plan,
    *,
    group: Group = ALONE,
) -> float:
    """One step of gradient descent; returns the loss of the whole batch.

    Args:
        net: on the device of the batch.
        optimizer: of its parameters.
        batch: or this process's share of it.
        plan: precision and weights of the losses.
        group: the processes that share the batch.
    """
    net.train()
    device = batch.image_BCHW.device.type
    weights_K = torch.tensor(plan.class_weights, device=device)
    with torch.autocast(device, torch.bfloat16, enabled=plan.precision == "bfloat16"):
        logits, distance_B1HW = net.at_all_scales(batch.image_BCHW)
    loss = loss_of_scales(
        [logits_BKHW.float() for logits_BKHW in logits],
        batch.mask_BHW,
        weights_K,
        total=group.total,
    )
    loss = loss + plan.distance_weight * distance_loss(
        distance_B1HW.float(), batch.distance_B1HW, batch.mask_BHW, total=group.total
    )
    optimizer.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    group.average_gradients(net)
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


def device_named(name: str) -> Device:
    """The device of `auto`, `cpu` or `cuda`.

    Raises:
        UnetError: if this torch sees no GPU where one is asked for.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise UnetError("no such device", expected="auto, cpu or cuda", found=name)
    if not torch.cuda.is_available():
        raise UnetError(
            "no GPU can be used here", found=f"torch {torch.__version__}",
            remedy="install torch for CUDA and look at nvidia-smi, or take --device cpu",
        )  # fmt: skip
    return "cuda"
