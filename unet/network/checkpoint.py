"""Save and load weights and training state: safetensors, atomic, no pickled code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from dataset_rules.ground.disk import write_file
from unet.errors import UnetError


def save_tensors(path: Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> None:
    """Write tensors and facts (as JSON) to one file, atomically."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_file(path, save(contiguous, {"facts": json.dumps(facts)}))


def load_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and facts of a file.

    Raises:
        UnetError: if it is absent, truncated or not a safetensors file.
    """
    try:
        with safe_open(path, framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get("facts", "{}"))
            return {name: file.get_tensor(name) for name in file.keys()}, facts  # noqa: SIM118
    except FileNotFoundError as error:
        raise UnetError("no such checkpoint", where=str(path)) from error
    except (SafetensorError, OSError, ValueError) as error:
        raise UnetError(
            "the checkpoint is damaged or cut short", where=str(path), found=str(error),
            remedy="use another model, or delete the run and train again",
        ) from error  # fmt: skip


def training_state(
    net: nn.Module, averaged: nn.Module, optimizer: torch.optim.Optimizer
) -> dict[str, Tensor]:
    """All tensors that a training needs to resume, under flat names."""
    tensors = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    tensors |= {f"averaged.{name}": tensor for name, tensor in averaged.state_dict().items()}
    for index, state in optimizer.state_dict()["state"].items():
        tensors |= {f"optimizer.{index}.{name}": value for name, value in state.items()}
    # safetensors rejects tensors that share memory; clones also survive the next step.
    return {name: tensor.clone() for name, tensor in tensors.items()}


def restore_training(
    tensors: Mapping[str, Tensor],
    net: nn.Module,
    averaged: nn.Module,
    optimizer: torch.optim.Optimizer,
) -> None:
    """Restore a saved state."""
    net.load_state_dict(_with_prefix("net.", tensors))
    averaged.load_state_dict(_with_prefix("averaged.", tensors))
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _with_prefix("optimizer.", tensors).items():
        index, _, field = name.partition(".")
        state.setdefault(int(index), {})[field] = _in_layout_of(parameters[int(index)], tensor)
    optimizer.load_state_dict(
        {"state": state, "param_groups": optimizer.state_dict()["param_groups"]}
    )


def _in_layout_of(parameter: Tensor, value: Tensor) -> Tensor:
    """The value in the parameter's memory layout.

    The fused optimizer walks parameter and moments in memory order: moments loaded from a file
    as contiguous would be mismatched with channels-last parameters.
    """
    if value.shape != parameter.shape:
        return value
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _with_prefix(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }
