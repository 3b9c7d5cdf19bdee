"""The state of a training, saved in checkpoints and restored on resume."""

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unet.network.checkpoint import load_tensors, restore_training, save_tensors, training_state
from unet.network.inference import make_net
from unet.network.model import UNet
from unet.planning.plan import Plan
from unet.training.process_group import SINGLE_PROCESS, ProcessGroup
from unet.training.step import make_optimizer
from unet.training.transfer import PretrainedModel

EVENTS = "events.jsonl"
LAST = "last.safetensors"
BEST = "best.safetensors"
HOLD = "hold.safetensors"  # at the start of the decay: a prolonged training continues from it
_BEST = "best."  # prefix of its tensors that are the best weights at that time


@dataclass
class TrainingState:
    """The state of a training in progress."""

    plan: Plan
    net: UNet
    averaged: UNet
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0  # spent, over all processes
    lost_s: float = 0.0  # the part of them spent on discarded work
    limit_s: float | None = None  # the time limit of the last process
    best_dice: float = -1.0
    best_step: int = 0
    validated_s: float = 0.0  # `seconds` at the last validation
    patches_per_s: float = 0.0  # when both precisions were last measured; 0 before
    is_doubtful: bool = False  # the last measurement contradicted the precision
    looks: int = 0  # number of remeasurements of both precisions
    looked_s: float = 0.0  # `seconds` at the last remeasurement
    curve: list[dict[str, Any]] = field(default_factory=list)

    def facts(self, seconds: float) -> dict[str, Any]:
        """Everything except the tensors, for the checkpoint's metadata."""
        return {
            "plan": self.plan.model_dump(mode="json"), "step": self.step, "seconds": seconds,
            "lost_s": self.lost_s, "limit_s": self.limit_s, "best_dice": self.best_dice,
            "best_step": self.best_step, "validated_s": self.validated_s, "curve": self.curve,
            "patches_per_s": self.patches_per_s, "is_doubtful": self.is_doubtful,
            "looks": self.looks, "looked_s": self.looked_s,
        }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """Weights, averaged weights and optimizer moments."""
        return training_state(self.net, self.averaged, self.optimizer)


def initial_state(
    plan: Plan,
    *,
    start: PretrainedModel | None = None,
    device: str = "cpu",
    group: ProcessGroup = SINGLE_PROCESS,
) -> TrainingState:
    """The state before the first step."""
    net = make_net(plan)
    if start:
        start.load_into(net, plan)
    averaged = copy.deepcopy(net).eval().to(device)
    group.sync_batch_norm(net).to(device)
    return TrainingState(plan, net, averaged, make_optimizer(net, plan))


def load_state(
    path: Path, *, device: str = "cpu", group: ProcessGroup = SINGLE_PROCESS
) -> TrainingState:
    """Read the state from a checkpoint; raises `UnetError` if it is damaged."""
    tensors, facts = load_tensors(path)
    state = initial_state(Plan.model_validate(facts.pop("plan")), device=device, group=group)
    restore_training(tensors, state.net, state.averaged, state.optimizer)
    for name, value in facts.items():
        setattr(state, name, value)
    return state


def save_hold(out: Path, state: TrainingState, *, seconds: float) -> None:
    """Save the state at the start of the decay, with the best weights so far."""
    best = load_tensors(out / BEST)[0] if (out / BEST).exists() else {}
    tensors = state.tensors() | {f"{_BEST}{name}": tensor for name, tensor in best.items()}
    save_tensors(out / HOLD, tensors, state.facts(seconds))


def return_to_hold(out: Path, *, spent_s: float) -> None:
    """Restore the state before the decay as the last one, discarding later work."""
    tensors, facts = load_tensors(out / HOLD)
    best = {n.removeprefix(_BEST): t for n, t in tensors.items() if n.startswith(_BEST)}
    if best:
        save_tensors(out / BEST, best, {"step": facts["best_step"]})
    lost_s = facts["lost_s"] + max(0.0, spent_s - facts["seconds"])
    # Hold for one more step, from which the schedule is fitted to the new limit.
    plan = facts["plan"] | {n: facts["plan"][n] + 1 for n in ("decay_from", "steps")}
    rest = {name: t for name, t in tensors.items() if not name.startswith(_BEST)}
    validated_s = facts["validated_s"] + spent_s - facts["seconds"]
    save_tensors(
        out / LAST, rest,
        facts | {"plan": plan, "seconds": spent_s, "lost_s": lost_s, "validated_s": validated_s},
    )  # fmt: skip


def saved_time_limit(out: Path) -> float | None:
    """The time limit of a training whose decay has started; None without a limit."""
    if not (out / HOLD).exists():
        return None
    limit = load_tensors(out / HOLD)[1].get("limit_s")
    return float(limit) if limit else None


def seconds_spent(out: Path) -> float:
    """Seconds that all processes spent on the run so far, from its events."""
    try:
        lines = (out / EVENTS).read_text(encoding="utf-8").splitlines()
    except OSError:
        return 0.0
    return max((_seconds(line) for line in lines[-50:]), default=0.0)


def _seconds(line: str) -> float:
    try:
        return float(json.loads(line).get("seconds", 0.0))
    except (ValueError, AttributeError, TypeError):
        return 0.0  # a kill may cut the last line


def append_event(out: Path, event: Mapping[str, Any]) -> None:
    """Append a line to the run's events."""
    with (out / EVENTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")
