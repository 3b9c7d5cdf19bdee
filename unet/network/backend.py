"""Backends that run the network on the CPU, and the choice of the fastest one.

Shape suffixes: B batch, C channels, K classes, H height, W width.
"""

import copy
import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, partial
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.utils.fusion import fuse_conv_bn_eval

from dataset_rules.ground.disk import write_json
from unet.errors import UnetError
from unet.network.model import Block, UNet
from unet.network.timing import Took, in_turn, is_repeated

Floats = NDArray[np.float32]
Forward = Callable[[Floats], Floats]  # HWC -> class probabilities and distance, (K + 1, H, W)

CHOICES_FILE = "backends.json"  # in the folder of the program: which backend was the fastest
SIDE_PX = 256  # of the tile by which backends are compared
ROUNDS = 5  # of all backends in turn, after one that warms up
MOST_ROUNDS = 20  # on a busy machine, until each backend's best time was met thrice
SAME = 0.05  # of a time: two that differ by less are the same
MAX_DIFFERENCE = 0.01  # mean difference of probabilities from float32's; measured: 0.0004


class Backend(StrEnum):
    """How the network is run; float32 is the reference."""

    FLOAT32 = "float32"  # torch
    BFLOAT16 = "bfloat16"  # torch
    OPENVINO = "openvino"  # in bfloat16 where the processor has it


@dataclass(frozen=True)
class BackendChoice:
    """The fastest backend on this machine, and the seconds each one took for a tile."""

    backend: Backend
    seconds: dict[str, float]


def available_backends() -> tuple[Backend, ...]:
    """Backends that are installed."""
    return tuple(b for b in Backend if b is not Backend.OPENVINO or find_spec("openvino"))


def make_forward(net: UNet, backend: Backend) -> Forward:
    """The network as a function of a tile, for inference only.

    Raises:
        UnetError: if the backend is not installed.
    """
    fused = _fused(net)
    if backend is not Backend.OPENVINO:
        return _torch_forward(
            fused, torch.bfloat16 if backend is Backend.BFLOAT16 else torch.float32
        )
    if backend not in available_backends():
        raise UnetError("OpenVINO is not installed", remedy="pip install 'unetops[openvino]'")
    from unet.network.openvino_network import openvino_forward  # optional dependency

    forward: Forward = openvino_forward(fused, threads=torch.get_num_threads())
    return forward


def _fused(net: UNet) -> UNet:
    """A copy with its batch norms folded into the convolutions before them."""
    fused = copy.deepcopy(net).eval()
    for block in (*fused.encoder, *fused.decoder):
        assert isinstance(block, Block)
        block.conv1 = fuse_conv_bn_eval(block.conv1, block.norm1)
        block.conv2 = fuse_conv_bn_eval(block.conv2, block.norm2)
        block.norm1 = block.norm2 = torch.nn.Identity()  # type: ignore[assignment]
    return fused


def _torch_forward(net: UNet, dtype: torch.dtype) -> Forward:
    net = net.to(dtype=dtype, memory_format=torch.channels_last)  # type: ignore[call-overload]

    @torch.inference_mode()
    def forward(tile_HWC: Floats) -> Floats:
        tile_BCHW = torch.from_numpy(np.ascontiguousarray(tile_HWC)).permute(2, 0, 1)[None]
        logits_BKHW, distance_B1HW = net(tile_BCHW.to(dtype))
        planes = [logits_BKHW.float().softmax(1), distance_B1HW.float().sigmoid()]
        return np.asarray(torch.cat(planes, dim=1)[0].numpy())

    return forward


def fastest(net: UNet, *, model_id: str = "", notes: Path | None = None) -> BackendChoice:
    """The fastest backend for a network on this machine.

    Backends round differently, so the choice for a model and a machine is made once and saved:
    the same image then gives the same mask again.

    Args:
        net: the network.
        model_id: key of the saved choice.
        notes: a JSON file of choices, created if absent.
    """
    key = f"{model_id} {_machine()}"
    noted = _noted(notes).get(key)
    if noted is not None and noted.backend in available_backends():
        return noted
    choice = _measured(net)
    if notes is not None:
        notes.parent.mkdir(parents=True, exist_ok=True)
        known = {**_noted(notes), key: choice}
        write_json(notes, {k: {"backend": c.backend, "seconds": c.seconds}
                           for k, c in known.items()})  # fmt: skip
    return choice


def _noted(notes: Path | None) -> Mapping[str, BackendChoice]:
    """Choices saved in a file; none if it is absent or damaged, then they are measured again."""
    try:
        document = json.loads(notes.read_bytes()) if notes else {}
        return {key: BackendChoice(Backend(value["backend"]), dict(value["seconds"]))
                for key, value in document.items()}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _measured(net: UNet) -> BackendChoice:
    """Backends in turn on one tile; the best time counts, once it was met thrice.

    What else runs only slows a backend down, and rarely thrice to the same time.
    """
    tile_HWC = np.random.default_rng(0).random((SIDE_PX, SIDE_PX, net.in_channels), np.float32)
    forwards = {backend: make_forward(net, backend) for backend in available_backends()}
    found = {backend: forward(tile_HWC) for backend, forward in forwards.items()}
    truth = found[Backend.FLOAT32]
    right = [b for b in forwards if np.abs(found[b] - truth).mean() <= MAX_DIFFERENCE]
    works = {backend: partial(forwards[backend], tile_HWC) for backend in right}
    return chosen(in_turn(works, is_enough=is_settled))


def chosen(took: Took[Backend]) -> BackendChoice:
    """The backend with the best time."""
    best = min(took, key=lambda backend: min(took[backend]))
    return BackendChoice(best, {str(b): round(min(times), 5) for b, times in took.items()})


def is_settled(took: Took[Backend]) -> bool:
    """True if further rounds would hardly find better times, or there were many."""
    rounds = min(map(len, took.values()))
    is_sure = all(is_repeated(seconds, within=SAME) for seconds in took.values())
    return rounds >= MOST_ROUNDS or (is_sure and rounds >= ROUNDS)


@cache
def _machine() -> str:
    """Processor, threads and libraries, which determine what is fastest and how it rounds."""
    libraries = [f"{name} {_version(name)}" for name in ("torch", "openvino")]
    return ", ".join([_processor(), f"{torch.get_num_threads()} threads", *libraries])


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.machine()}, {os.cpu_count()} cores"


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"
