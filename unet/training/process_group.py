"""Data-parallel training: several processes, each with a share of every batch.

Shape suffixes: B batch, C channels, H height, W width.

The leader decides, validates and writes; the others follow its messages. All sums over the
batch, those of batch norm included, are taken over all processes (`ProcessGroup.total`). So the
result equals that of one process, except for the order in which floats are added.
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

TIMEOUT = timedelta(minutes=30)  # followers wait while the leader validates


class _Sum(torch.autograd.Function):
    """Sum over all processes; gradients are summed too, as each process has its own loss."""

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
class ProcessGroup:
    """The processes of a training; with a single process all methods do nothing."""

    rank: int = 0
    size: int = 1

    @property
    def is_leader(self) -> bool:
        """True if this process decides, validates and writes."""
        return self.rank == 0

    def total(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, differentiable."""
        if self.size == 1:
            return value
        summed: Tensor = _Sum.apply(value)  # type: ignore[no-untyped-call]
        return summed

    def share(self, batch: int) -> range:
        """Positions in the batch that this process draws and trains on.

        Raises:
            UnetError: if there are more processes than patches.
        """
        if batch < self.size:
            raise UnetError(
                "there are more processes than patches in a batch", expected=f"at most {batch}",
                found=f"{self.size} processes", remedy="start fewer, or plan a larger batch",
            )  # fmt: skip
        bounds = [batch * rank // self.size for rank in (self.rank, self.rank + 1)]
        return range(*bounds)

    def average_gradients(self, net: nn.Module) -> None:
        """Average gradients over all processes; with `total` in the loss, this is the batch's."""
        if self.size == 1:
            return
        gradients = [p.grad for p in net.parameters() if p.grad is not None]
        join_process_group = torch.cat([gradient.flatten() for gradient in gradients]) / self.size
        dist.all_reduce(join_process_group)
        sizes = [gradient.numel() for gradient in gradients]
        for gradient, part in zip(gradients, torch.split(join_process_group, sizes), strict=True):
            gradient.copy_(part.view_as(gradient))

    def broadcast(self, message: Tensor) -> Tensor:
        """Send the leader's tensor to all processes; others pass one of the same shape."""
        if self.size > 1:
            dist.broadcast(message, 0)
        return message

    def sync_batch_norm(self, net: nn.Module) -> nn.Module:
        """Replace the network's batch norms by ones over the whole batch of all processes."""
        if self.size > 1:
            for module in net.modules():
                for name, child in module.named_children():
                    if type(child) is nn.BatchNorm2d:
                        setattr(module, name, _SyncBatchNorm.of(child, self))
        return net


SINGLE_PROCESS = ProcessGroup()


class _SyncBatchNorm(nn.BatchNorm2d):
    """Batch norm with mean and variance over the images of all processes, on any device.

    torch has this for GPUs only. Ioffe & Szegedy 2015, algorithm 1, in two passes: mean, then
    squared deviations, which a single pass would lose in rounding.
    """

    group: ProcessGroup

    @classmethod
    def of(cls, norm: nn.BatchNorm2d, group: ProcessGroup) -> "_SyncBatchNorm":
        """A copy with the same weights and statistics."""
        shared = cls(norm.num_features, norm.eps, norm.momentum)
        shared.load_state_dict(norm.state_dict())
        shared.group = group
        return shared.to(norm.weight.device)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """The normalised input, in its dtype."""
        if not self.training:
            return super().forward(x_BCHW)
        wide_BCHW = x_BCHW.float()
        local_count = torch.tensor(float(x_BCHW.numel() // x_BCHW.shape[1]), device=x_BCHW.device)
        count = self.group.total(local_count)
        mean_C = self.group.total(wide_BCHW.sum((0, 2, 3))) / count
        deviation_BCHW = wide_BCHW - mean_C[None, :, None, None]
        variance_C = self.group.total((deviation_BCHW**2).sum((0, 2, 3))) / count
        self._update_statistics(mean_C.detach(), variance_C.detach() * count / (count - 1))
        scale_C = self.weight * torch.rsqrt(variance_C + self.eps)
        y_BCHW = deviation_BCHW * scale_C[None, :, None, None] + self.bias[None, :, None, None]
        return y_BCHW.to(x_BCHW.dtype)

    @torch.no_grad()
    def _update_statistics(self, mean_C: Tensor, variance_C: Tensor) -> None:
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        self.running_mean.lerp_(mean_C, self.momentum or 0.1)
        self.running_var.lerp_(variance_C, self.momentum or 0.1)
        self.num_batches_tracked += 1


@contextmanager
def join_process_group(environment: Mapping[str, str], device: str) -> Iterator[ProcessGroup]:
    """The process group that `torchrun` started; a single process without it."""
    size = int(environment.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS
        return
    if device == "cuda":
        torch.cuda.set_device(int(environment.get("LOCAL_RANK", "0")))
    # torchrun keeps one store over restarts: without a prefix per restart, processes could read
    # the addresses of ended ones and wait for them.
    store, rank, _ = next(rendezvous("env://", timeout=TIMEOUT))
    store = PrefixStore(environment.get("TORCHELASTIC_RESTART_COUNT", "0"), store)
    dist.init_process_group(
        "nccl" if device == "cuda" else "gloo", store=store, rank=rank, world_size=size,
        timeout=TIMEOUT,
    )  # fmt: skip
    try:
        yield ProcessGroup(dist.get_rank(), size)
    finally:
        dist.destroy_process_group()


def is_follower(environment: Mapping[str, str] = os.environ) -> bool:
    """True in all processes of `torchrun` except the leader."""
    return environment.get("RANK", "0") != "0"
