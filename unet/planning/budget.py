"""What a training may use: device, memory and time; and the machine's measured speed."""

import os
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Literal, Self

from pydantic import Field

from dataset_rules.ground.documents import Document
from unet.errors import UnetError

Device = Literal["cpu", "cuda"]
Precision = Literal["float32", "bfloat16"]

TRAINING_SHARE = 0.9  # of the time; the rest is for validation, choosing thresholds, writing
FIXED_BYTES = 1_000_000_000  # interpreter, torch, oneDNN's scratch memory: 950 MB measured
PARAMETER_BYTES = 16  # weight, gradient and two moments, in float32
# Activations kept for the backward pass, per pixel and channel over all stages. Measured from the
# peak memory of a step: 53 and 42 bytes.
CHANNEL_BYTES: dict[Precision, int] = {"float32": 60, "bfloat16": 46}
MIN_CACHE_BYTES, MAX_CACHE_BYTES = 64 << 20, 2 << 30  # of decoded samples
MEMORY_FILES = (  # memory limits of a process: cgroup v2 and v1
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)


class Budget(Document):
    """What a plan depends on besides the dataset."""

    device: Device = "cpu"
    memory_bytes: int | None = Field(default=None, gt=0, description="None: unlimited")
    seconds: float | None = Field(default=None, gt=0, description="wall time; None: unlimited")
    patches_per_s: float | None = Field(default=None, gt=0, description="training speed")
    precision: Precision = Field(default="float32", description="the faster one")
    precision_reason: str = Field(default="", description="why it was chosen")
    is_doubtful: bool = Field(default=False, description="the measurement disagreed")

    @property
    def patches(self) -> int | None:
        """Patches that fit into the training time; None without a limit or a measured speed."""
        if self.seconds is None or self.patches_per_s is None:
            return None
        return max(8, int(TRAINING_SHARE * self.seconds * self.patches_per_s))

    def cache_bytes(self, widths: Sequence[int], batch: int, patch_px: int) -> int:
        """Memory for decoded samples: what a training step leaves free, within bounds."""
        if self.memory_bytes is None:
            return MAX_CACHE_BYTES
        step = training_bytes(widths, batch=batch, patch_px=patch_px, precision=self.precision)
        return max(MIN_CACHE_BYTES, min(MAX_CACHE_BYTES, self.memory_bytes - step))

    def bounded(self, widths: Sequence[int], batch: int, patch_px: int) -> Self:
        """The budget with its memory limited to what these sizes need."""
        needed = training_bytes(widths, batch=batch, patch_px=patch_px, precision="bfloat16")
        memory = min(needed, self.memory_bytes) if self.memory_bytes else needed
        return self.model_copy(update={"memory_bytes": memory})


def parameters(widths: Sequence[int], *, channels: int, classes: int) -> int:
    """Parameters of the network, to within some hundred: encoder and decoder blocks."""
    pairs = list(zip((channels, *widths), widths, strict=False))
    down = sum(10 * a * b + 9 * b * b for a, b in pairs)
    up = sum(4 * a * b + 29 * b * b for b, a in pairwise(widths))
    return down + up + widths[0] * (classes + 1)


def training_bytes(
    widths: Sequence[int], *, batch: int, patch_px: int, precision: Precision = "float32"
) -> int:
    """Peak memory of a training step: the whole process except decoded samples."""
    channels = sum(width / 4**stage for stage, width in enumerate(widths))
    pixels = batch * patch_px**2
    weights = PARAMETER_BYTES * parameters(widths, channels=3, classes=2)
    return int(FIXED_BYTES + weights + pixels * channels * CHANNEL_BYTES[precision])


def machine_bytes() -> int | None:
    """Memory that this process may use: the lowest of its cgroup's limit and the machine's."""
    limits = [int(text) for path in MEMORY_FILES if (text := _text(path)).isdigit()]
    names = ("SC_PHYS_PAGES", "SC_PAGE_SIZE")
    if all(name in os.sysconf_names for name in names):
        limits.append(os.sysconf(names[0]) * os.sysconf(names[1]))
    return min(limits, default=None)


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def parse_memory_size(text: str | None, *, where: str = "--memory") -> int | None:
    """Bytes of a size such as 8GiB, 512MiB or 6GB; None for None.

    Raises:
        UnetError: if the text is not a size.
    """
    if text is None:
        return None
    units = {"GiB": 1 << 30, "MiB": 1 << 20, "GB": 10**9, "MB": 10**6, "G": 1 << 30, "M": 1 << 20}
    unit = next((u for u in units if text.strip().endswith(u)), "")
    try:
        size = int(float(text.strip().removesuffix(unit)) * units.get(unit, 1))
    except (ValueError, OverflowError):
        size = 0
    if size <= 0:
        raise UnetError(
            "not a memory size", where=where, expected="8GiB, 512MiB or 6GB",
            found=repr(text),
        )  # fmt: skip
    return size
