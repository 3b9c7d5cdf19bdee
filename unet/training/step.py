"""One step of gradient descent, the optimizer, and the averaged weights.

Shape suffixes: B batch, K classes, H height, W width.
"""

import torch

from unet.errors import UnetError
from unet.network.losses import distance_loss, multiscale_loss
from unet.network.model import UNet
from unet.planning.budget import Device
from unet.planning.plan import Plan
from unet.training.patches import Batch
from unet.training.process_group import SINGLE_PROCESS, ProcessGroup


def train_step(
    net: UNet,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    plan: Plan,
    *,
    group: ProcessGroup = SINGLE_PROCESS,
) -> float:
    """Run one step of gradient descent; returns the loss of the whole batch.

    Args:
        net: on the batch's device.
        optimizer: of its parameters.
        batch: the whole batch or this process's share.
        plan: precision (`Plan.at` of the step) and loss weights.
        group: the processes that share the batch.
    """
    net.train()
    device = batch.image_BCHW.device.type
    weights_K = torch.tensor(plan.class_weights, device=device)
    with torch.autocast(device, torch.bfloat16, enabled=plan.precision == "bfloat16"):
        logits, distance_B1HW = net.at_all_scales(batch.image_BCHW)
    loss = multiscale_loss(
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
    """Fused AdamW with the plan's learning rate and weight decay."""
    return torch.optim.AdamW(
        net.parameters(), lr=plan.learning_rate, weight_decay=plan.weight_decay, fused=True
    )


@torch.no_grad()
def update_average(averaged: UNet, net: UNet, decay: float, step: int) -> None:
    """Update the exponential moving average of weights and batch-norm statistics.

    Its window is shorter at the start.
    """
    keep = min(decay, (1 + step) / (10 + step))
    for mean, value in zip(averaged.state_dict().values(), net.state_dict().values(), strict=True):
        if mean.is_floating_point():
            mean.lerp_(value, 1 - keep)
        else:
            mean.copy_(value)


def resolve_device(name: str) -> Device:
    """The device for `auto`, `cpu` or `cuda`.

    Raises:
        UnetError: if a GPU is requested and torch finds none.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return "cpu"
    if name not in ("auto", "cuda"):
        raise UnetError("no such device", expected="auto, cpu or cuda", found=name)
    if not torch.cuda.is_available():
        raise UnetError(
            "no usable GPU", found=f"torch {torch.__version__}",
            remedy="install torch for CUDA and check nvidia-smi, or use --device cpu",
        )  # fmt: skip
    return "cuda"
