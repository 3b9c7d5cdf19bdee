"""Messages from the leader of a process group to its followers, and how they are executed."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from dataset_rules.artifacts.dataset import Sample
from dataset_rules.ground.errors import UserError
from unet.errors import GroupError, Stopped
from unet.planning.plan import Plan
from unet.training.out_of_memory import group_out_of_memory, is_out_of_memory
from unet.training.patches import Patches
from unet.training.prefetch import Prefetch, workers_for
from unet.training.process_group import ProcessGroup
from unet.training.state import TrainingState, initial_state
from unet.training.step import train_step

END, BEGIN, STEP = 0.0, 1.0, 2.0  # kinds of messages
LENGTH = 3  # of a message: its kind, then the length of the plan, or the step and its learning rate


class Broadcast:
    """The leader's messages: plan and weights first, then one per step."""

    def __init__(self, group: ProcessGroup, state: TrainingState, *, device: str) -> None:
        self.group = group
        self.device = device
        if group.size == 1:
            return
        text = state.plan.model_dump_json().encode()
        self._send(BEGIN, len(text))
        group.broadcast(torch.tensor(list(text), dtype=torch.uint8, device=device))
        for tensor in _shared_tensors(state):
            group.broadcast(tensor)

    def step(self, number: int, rate: float) -> None:
        """Make all followers run this step."""
        self._send(STEP, number, rate)

    def _send(self, *message: float) -> None:
        if self.group.size > 1:
            padded = [*message, *[0.0] * (LENGTH - len(message))]
            self.group.broadcast(torch.tensor(padded, dtype=torch.float64, device=self.device))


@contextmanager
def release_followers(group: ProcessGroup, *, device: str) -> Iterator[None]:
    """Release the followers when the leader finishes, stops or ends with a user error.

    After any other error they may be in the middle of a step; torchrun then ends them.
    """
    try:
        yield
    except GroupError:
        raise
    except (UserError, Stopped):
        _end(group, device)
        raise
    _end(group, device)


def _end(group: ProcessGroup, device: str) -> None:
    if group.size > 1:
        group.broadcast(torch.zeros(LENGTH, dtype=torch.float64, device=device))


def follow(
    samples: Sequence[tuple[Path, Sample]], group: ProcessGroup, *, device: str, out: Path
) -> None:
    """Execute the leader's messages until it finishes.

    Raises:
        GroupError: if out of memory; a marker file is written to `out`, the run's folder.
    """
    try:
        _follow(samples, group, device=device)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise group_out_of_memory(out) from error


def _follow(samples: Sequence[tuple[Path, Sample]], group: ProcessGroup, *, device: str) -> None:
    state: TrainingState | None = None
    batches: Prefetch | None = None
    while True:
        message = group.broadcast(torch.zeros(LENGTH, dtype=torch.float64, device=device)).tolist()
        if message[0] == BEGIN:
            state = _receive_state(group, int(message[1]), device=device)
            batches = _batches(samples, state.plan, group, device=device)
        elif message[0] == STEP and state and batches:
            _step(state, batches, group, number=int(message[1]), rate=message[2])
        else:
            break
    if batches:
        batches.close()


def _receive_state(group: ProcessGroup, length: int, *, device: str) -> TrainingState:
    text = group.broadcast(torch.zeros(length, dtype=torch.uint8, device=device))
    plan = Plan.model_validate_json(bytes(text.tolist()))
    state = initial_state(plan, device=device, group=group)
    _fill_moments(state)
    for tensor in _shared_tensors(state):
        group.broadcast(tensor)
    return state


def _batches(
    samples: Sequence[tuple[Path, Sample]], plan: Plan, group: ProcessGroup, *, device: str
) -> Prefetch:
    patches = Patches(samples, plan)
    share = group.share(plan.batch)
    # Only the leader knows when a time-limited training ends: one batch too many may be drawn.
    return Prefetch(
        lambda step: patches.batch(step, share).to(device), plan, workers=workers_for(device)
    )


def _step(
    state: TrainingState, batches: Prefetch, group: ProcessGroup, *, number: int, rate: float
) -> None:
    for parameters in state.optimizer.param_groups:
        parameters["lr"] = rate
    plan = state.plan.at(number)
    train_step(state.net, state.optimizer, batches.take(number), plan, group=group)


def _shared_tensors(state: TrainingState) -> list[Tensor]:
    """Weights, batch-norm statistics and optimizer moments, in the same order in every process."""
    _fill_moments(state)
    moments = [value for each in state.optimizer.state.values() for value in each.values()]
    return [*state.net.state_dict().values(), *moments]


def _fill_moments(state: TrainingState) -> None:
    """Create the optimizer's moments, all zero, by a step that is undone."""
    if state.optimizer.state:
        return
    weights = [parameter.detach().clone() for parameter in state.net.parameters()]
    for parameter in state.net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    state.optimizer.step()
    with torch.no_grad():
        for parameter, value in zip(state.net.parameters(), weights, strict=True):
            parameter.copy_(value)
            parameter.grad = None
    for values in state.optimizer.state.values():
        for value in values.values():
            value.zero_()
