"""The state of a training: what is saved, and what a resumed process takes up again."""

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
from unet.training.process_group import ALONE, Group
from unet.training.step import make_optimizer
from unet.training.transfer import Start

EVENTS = "events.jsonl"
LAST = "last.safetensors"
BEST = "best.safetensors"
HOLD = "hold.safetensors"  # where the rate began to fall: a longer training goes on from there
_BEST = "best."  # of the tensors in it: the best weights at that time


@dataclass
class Training:
    """A training on its way."""

    plan: Plan
    net: UNet
    averaged: UNet
    optimizer: torch.optim.Optimizer
    step: int = 0
    seconds: float = 0.0  # spent on it, over all processes
    lost_s: float = 0.0  # of these, on work that was set aside
    limit_s: float | None = None  # the time limit of the last process
    best_dice: float = -1.0
    best_step: int = 0
    validated_s: float = 0.0  # `seconds` at the last validation
    patches_per_s: float = 0.0  # as both precisions were last measured; 0 before that
    is_doubtful: bool = False  # the last measurement spoke against the precision
    looks: int = 0  # at both precisions, on the way
    looked_s: float = 0.0  # `seconds` at the last of them
    curve: list[dict[str, Any]] = field(default_factory=list)

    def facts(self, seconds: float) -> dict[str, Any]:
        """All but the tensors."""
        return {
            "plan": self.plan.model_dump(mode="json"), "step": self.step, "seconds": seconds,
            "lost_s": self.lost_s, "limit_s": self.limit_s, "best_dice": self.best_dice,
            "best_step": self.best_step, "validated_s": self.validated_s, "curve": self.curve,
            "patches_per_s": self.patches_per_s, "is_doubtful": self.is_doubtful,
            "looks": self.looks, "looked_s": self.looked_s,
        }  # fmt: skip

    def tensors(self) -> dict[str, Tensor]:
        """Weights, averaged weights and moments."""
        return training_state(self.net, self.averaged, self.optimizer)


def begin_training(
    plan: Plan, *, start: Start | None = None, device: str = "cpu", group: Group = ALONE
) -> Training:
    """A training before its first step."""
    net = make_net(plan)
    if start:
        start.give(net, plan)
    averaged = copy.deepcopy(net).eval().to(device)
    group.shared(net).to(device)
    return Training(plan, net, averaged, make_optimizer(net, plan))


def load_training(path: Path, *, device: str = "cpu", group: Group = ALONE) -> Training:
    """The training that a checkpoint holds; raises `UnetError` if it is damaged."""
    tensors, facts = load_tensors(path)
    state = begin_training(Plan.model_validate(facts.pop("plan")), device=device, group=group)
    restore_training(tensors, state.net, state.averaged, state.optimizer)
    for name, value in facts.items():
        setattr(state, name, value)
    return state


def save_hold(out: Path, state: Training, *, seconds: float) -> None:
    """Keep the state at which the rate begins to fall, with the best weights until then."""
    best = load_tensors(out / BEST)[0] if (out / BEST).exists() else {}
    tensors = state.tensors() | {f"{_BEST}{name}": tensor for name, tensor in best.items()}
    save_tensors(out / HOLD, tensors, state.facts(seconds))


def return_to_hold(out: Path, *, spent_s: float) -> None:
    """Make the state before the rate fell the last one; what came after it is set aside."""
    tensors, facts = load_tensors(out / HOLD)
    best = {n.removeprefix(_BEST): t for n, t in tensors.items() if n.startswith(_BEST)}
    if best:
        save_tensors(out / BEST, best, {"step": facts["best_step"]})
    lost_s = facts["lost_s"] + max(0.0, spent_s - facts["seconds"])
    # One step more is held: from there on the schedule is fitted to the new limit.
    plan = facts["plan"] | {n: facts["plan"][n] + 1 for n in ("decay_from", "steps")}
    rest = {name: t for name, t in tensors.items() if not name.startswith(_BEST)}
    validated_s = facts["validated_s"] + spent_s - facts["seconds"]
    save_tensors(
        out / LAST, rest,
        facts | {"plan": plan, "seconds": spent_s, "lost_s": lost_s, "validated_s": validated_s},
    )  # fmt: skip


def limit_of(out: Path) -> float | None:
    """The time limit of a training whose rate has begun to fall; None of one without a limit."""
    if not (out / HOLD).exists():
        return None
    limit = load_tensors(out / HOLD)[1].get("limit_s")
    return float(limit) if limit else None


def spent_s(out: Path) -> float:
    """Seconds that all processes spent on the run so far, as its events tell."""
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
    """Add a line to the run's events."""
    with (out / EVENTS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(event) + "\n")
