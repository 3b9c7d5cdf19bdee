"""Several processes that train one network together, each on a share of every batch.

Shape suffixes: B batch, C channels, H height, W width.

One process leads: it decides, validates and writes; the others follow its orders. Whatever a
single process would sum over the batch is summed over all processes here (`Group.total`), batch
norm included, so the result is that of one process but for the order in which floats are added.
"""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from unet.errors import UnetError

PATIENCE = timedelta(minutes=30)  # followers wait while the leader validates


class _Sum(torch.autograd.Function):
    """Sum over all processes; so is its gradient, since each process has a loss of its own."""

    @staticmethod
    def forward(ctx: Any, value: Tensor) -> Tensor:
        summed = value.clone()
        dist.all_reduce(summed)
        return summed

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        summed = gradients[0].contiguous().clone()
        dist.all_reduce(summed)
        return summed


@dataclass(frozen=True)
class Group:
    """The processes of a training; of one process by itself, all of this does nothing."""

    rank: int = 0
    size: int = 1

    @property
    def leads(self) -> bool:
        """This process decides, validates and writes."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, differentiable."""
        if self.size == 1:
            return value
        summed: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
        return summed

    def share(self, batch: int) -> range:
        """Places in the batch that this process draws and learns from.

        Raises:
            UnetError: if there are more processes than places.
        """
        if batch < self.size:
            raise UnetError(
                "there are more processes than patches in a batch", expected=f"at most {batch}",
                found=f"{self.size} processes", remedy="start fewer, or plan a larger batch",
            )  # fmt: skip
        bounds = [batch * rank // self.size for rank in (self.rank, self.rank + 1)]
        return range(*bounds)

    def average_gradients(self, net: nn.Module) -> None:
        """Give every process the mean gradient; with `total` in the loss that is the batch's."""
        if self.size == 1:
            return
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        joined = torch.cat([gradient.flatten() for gradient in gradients]) / self.size
        dist.all_reduce(joined)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(joined, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def tell(self, order: Tensor) -> Tensor:
        """What the leader says, to all processes; others pass a tensor of the same shape."""
        if self.size > 1:
            dist.broadcast(order, 0)
        return order

    def shared(self, net: nn.Module) -> nn.Module:
        """The network with batch norm over the whole batch, whoever draws it."""
        if self.size > 1:
            for module in net.modules():
                for name, child in module.named_children():
                    if type(child) is nn.BatchNorm2d:
                        setattr(module, name, _SharedBatchNorm.of(child, self))
        return net


ALONE = Group()


class _SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm with mean and variance of all processes' images; on any device.

    torch has it for GPUs only. Ioffe & Szegedy 2015, algorithm 1, in two passes: first the mean,
    then the squares of what differs from it, which a single pass would lose in rounding.
    """

    group: Group

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, group: Group) -> "_SharedBatchNorm":
        """A norm with the same weights and statistics."""
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        shared.load_state_dict(norm.state_dict())
        shared.group = group
        return shared.to(norm.weight.device)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """Normalised, in the input's type."""
        if not self.training:
            return super().forward(x_BCHW)
        wide_BCHW = x_BCHW.float()
        here = torch.tensor(float(x_BCHW.numel() // x_BCHW.shape[1]), device=x_BCHW.device)
        count = self.group.total(here)
        mean_C = self.group.total(wide_BCHW.sum((0, 2, 3))) / count
        apart_BCHW = wide_BCHW - mean_C[None, :, None, None]
        variance_C = self.group.total((apart_BCHW**2).sum((0, 2, 3))) / count
        self._follow(mean_C.detach(), variance_C.detach() * count / (count - 1))
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        y_BCHW = apart_BCHW * scale_C[None, :, None, None] + self.bias[None, :, None, None]
        return y_BCHW.to(x_BCHW.dtype)

    @torch.no_grad()
    def _follow(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean_C, self.momentum or 0.1)
        self.running_var.lerp_(variance_C, self.momentum or 0.1)
        self.num_batches_tracked += 1


@contextmanager
def joined(environment: Mapping[str, str], device: str) -> Iterator[Group]:
    """The group that `torchrun` started this process in; by itself where it did not."""
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE
        return
    if device == "cuda":
        torch.cuda.set_device(int(environment.get("LOCAL_RANK", "0")))
    # torchrun keeps one store over its restarts: without a name of their own, processes could read
    # the addresses of those that ended before, and wait for them.
    store, rank, _ = next(rendezvous("env://", timeout=PATIENCE))
    store = PrefixStore(environment.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", store=store, rank=rank, world_size=size,
        timeout=PATIENCE,
    )  # fmt: skip
    try:
        yield Group(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def is_follower(environment: Mapping[str, str] = os.environ) -> bool:
    """True in all processes of `torchrun` but the one that leads."""
    return environment.get("RANK", "0") != "0"
