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
from unet.network.timing import Timings, is_repeated, time_interleaved

Floats = NDArray[np.float32]
Forward = Callable[[Floats], Floats]  # HWC -> class probabilities and distance, (K + 1, H, W)

CHOICES_FILE = "backends.json"  # in the data directory: the fastest backend per model and machine
TILE_PX = 256  # of the tile on which backends are timed
MIN_ROUNDS = 5  # of all backends in turn, after a warm-up
MAX_ROUNDS = 20  # on a busy machine, until each backend's best time was reached three times
TIME_TOLERANCE = 0.05  # relative; times that differ by less count as equal
MAX_DIFFERENCE = 0.01  # mean, of probabilities from those of float32; measured: 0.0004


class Backend(StrEnum):
    """What runs the network; float32 is the reference."""

    FLOAT32 = "float32"  # torch
    BFLOAT16 = "bfloat16"  # torch
    OPENVINO = "openvino"  # in bfloat16 if the processor supports it


@dataclass(frozen=True)
class BackendChoice:
    """The fastest backend on this machine, and the seconds per tile of each."""

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
    """A copy with batch norms folded into the preceding convolutions."""
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


def fastest_backend(
    net: UNet, *, model_id: str = "", choices_file: Path | None = None
) -> BackendChoice:
    """The fastest backend for a network on this machine.

    Backends round differently, so the choice for a model and a machine is made once and saved:
    the same image then gives the same mask again.

    Args:
        net: the network.
        model_id: key of the saved choice.
        choices_file: a JSON file of choices, created if absent.
    """
    key = f"{model_id} {_machine()}"
    saved = _saved_choices(choices_file).get(key)
    if saved is not None and saved.backend in available_backends():
        return saved
    choice = _measure(net)
    if choices_file is not None:
        choices_file.parent.mkdir(parents=True, exist_ok=True)
        known = {**_saved_choices(choices_file), key: choice}
        write_json(choices_file, {k: {"backend": c.backend, "seconds": c.seconds}
                           for k, c in known.items()})  # fmt: skip
    return choice


def _saved_choices(choices_file: Path | None) -> Mapping[str, BackendChoice]:
    """Choices saved in a file; none if it is absent or damaged, then they are measured again."""
    try:
        document = json.loads(choices_file.read_bytes()) if choices_file else {}
        return {key: BackendChoice(Backend(value["backend"]), dict(value["seconds"]))
                for key, value in document.items()}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _measure(net: UNet) -> BackendChoice:
    """Time the backends in turn on one tile; the best time counts once it was reached three times.

    Other load only slows a backend down, and rarely three times to the same duration.
    """
    tile_HWC = np.random.default_rng(0).random((TILE_PX, TILE_PX, net.in_channels), np.float32)
    forwards = {backend: make_forward(net, backend) for backend in available_backends()}
    found = {backend: forward(tile_HWC) for backend, forward in forwards.items()}
    reference = found[Backend.FLOAT32]
    accurate = [b for b in forwards if np.abs(found[b] - reference).mean() <= MAX_DIFFERENCE]
    functions = {backend: partial(forwards[backend], tile_HWC) for backend in accurate}
    return choose_backend(time_interleaved(functions, is_enough=is_settled))


def choose_backend(timings: Timings[Backend]) -> BackendChoice:
    """Choose the backend with the best time."""
    best = min(timings, key=lambda backend: min(timings[backend]))
    return BackendChoice(best, {str(b): round(min(times), 5) for b, times in timings.items()})


def is_settled(timings: Timings[Backend]) -> bool:
    """True if further rounds are unlikely to find better times, or at the maximum."""
    rounds = min(map(len, timings.values()))
    is_stable = all(is_repeated(seconds, within=TIME_TOLERANCE) for seconds in timings.values())
    return rounds >= MAX_ROUNDS or (is_stable and rounds >= MIN_ROUNDS)


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
