"""Orders of the process that leads a training, and how the others follow them."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from dataset_rules.artifacts.dataset import Sample
from dataset_rules.ground.errors import UserError
from unet.errors import GroupError, Stopped
from unet.planning.plan import Plan
from unet.training.out_of_memory import is_out_of_memory, refused_in_group
from unet.training.patches import Patches
from unet.training.prefetch import Prefetch, workers_for
from unet.training.process_group import Group
from unet.training.state import Training, begin_training
from unet.training.step import train_step

END, BEGIN, STEP = 0.0, 1.0, 2.0  # kinds of orders
LENGTH = 3  # of an order: its kind, then the length of the plan, or the step and its rate


class Orders:
    """What the leader tells: the plan and the weights, then step after step."""

    def __init__(self, group: Group, state: Training, *, device: str) -> None:
        self.group = group
        self.device = device
        if group.size == 1:
            return
        text = state.plan.model_dump_json().encode()
        self._tell(BEGIN, len(text))
        group.tell(torch.tensor(list(text), dtype=torch.uint8, device=device))
        for tensor in _shared_tensors(state):
            group.tell(tensor)

    def step(self, number: int, rate: float) -> None:
        """All do this step."""
        self._tell(STEP, number, rate)

    def _tell(self, *order: float) -> None:
        if self.group.size > 1:
            padded = [*order, *[0.0] * (LENGTH - len(order))]
            self.group.tell(torch.tensor(padded, dtype=torch.float64, device=self.device))


@contextmanager
def orders_end(group: Group, *, device: str) -> Iterator[None]:
    """Let the others go when the leader has ended, or was refused or stopped.

    After any other error they may be in the midst of a step: then their launcher ends them.
    """
    try:
        yield
    except GroupError:
        raise
    except (UserError, Stopped):
        _end(group, device)
        raise
    _end(group, device)


def _end(group: Group, device: str) -> None:
    if group.size > 1:
        group.tell(torch.zeros(LENGTH, dtype=torch.float64, device=device))


def follow(samples: Sequence[tuple[Path, Sample]], group: Group, *, device: str, out: Path) -> None:
    """Do what the leader orders, until it ends.

    Raises:
        GroupError: if memory was refused; it is noted in `out`, the run's folder.
    """
    try:
        _follow(samples, group, device=device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise refused_in_group(out) from error


def _follow(samples: Sequence[tuple[Path, Sample]], group: Group, *, device: str) -> None:
    state: Training | None = None
    batches: Prefetch | None = None
    while True:
        order = group.tell(torch.zeros(LENGTH, dtype=torch.float64, device=device)).tolist()
        if order[0] == BEGIN:
            state = _begun(group, int(order[1]), device=device)
            batches = _batches(samples, state.plan, group, device=device)
        elif order[0] == STEP and state and batches:
            _step(state, batches, group, number=int(order[1]), rate=order[2])
        else:
            break
    if batches:
        batches.close()


def _begun(group: Group, length: int, *, device: str) -> Training:
    text = group.tell(torch.zeros(length, dtype=torch.uint8, device=device))
    plan = Plan.model_validate_json(bytes(text.tolist()))
    state = begin_training(plan, device=device, group=group)
    _fill_moments(state)
    for tensor in _shared_tensors(state):
        group.tell(tensor)
    return state


def _batches(
    samples: Sequence[tuple[Path, Sample]], plan: Plan, group: Group, *, device: str
) -> Prefetch:
    patches = Patches(samples, plan)
    share = group.share(plan.batch)
    # The leader alone knows where a limited training ends: one batch too many may be drawn.
    return Prefetch(
        lambda step: patches.batch(step, share).to(device), plan, workers=workers_for(device)
    )


def _step(state: Training, batches: Prefetch, group: Group, *, number: int, rate: float) -> None:
    for parameters in state.optimizer.param_groups:
        parameters["lr"] = rate
    plan = state.plan.at(number)
    train_step(state.net, state.optimizer, batches.take(number), plan, group=group)


def _shared_tensors(state: Training) -> list[Tensor]:
    """Weights, statistics and moments, in the same order in every process."""
    _fill_moments(state)
    moments = [value for each in state.optimizer.state.values() for value in each.values()]
    return [*state.net.state_dict().values(), *moments]


def _fill_moments(state: Training) -> None:
    """Moments before the first step are zero; they are made by a step that changes nothing."""
    if state.optimizer.state:
        return
    kept = [parameter.detach().clone() for parameter in state.net.parameters()]
    for parameter in state.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    with torch.no_grad():
        for parameter, value in zip(state.net.parameters(), kept, strict=True):
            parameter.copy_(value)
            parameter.grad = None
    for values in state.optimizer.state.values():
        for value in values.values():
            value.zero_()
