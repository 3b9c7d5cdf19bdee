"""Print this machine's factor: wall minutes per reference minute of training.

A reference minute is the wall time in which the machine trains on 850 patches of 256 x 256 px with
a plain U-Net (16-32-64-128-256 channels, two 3x3 convolutions with batch norm and ReLU per stage,
transposed convolutions, 1.94 M parameters), batch 8, channels_last, in the faster of float32 and
bfloat16. Run it next to a training to convert its duration.

    python benchmarks/reference.py [--seconds 20] [--json]
"""

import argparse
import json
import time
from collections.abc import Sequence

import torch
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 128, 256)
PATCHES_PER_MINUTE = 850
BATCH, SIDE_PX = 8, 256


class PlainUNet(nn.Module):
    """Ronneberger et al. 2015 with batch norm and padding: the fixed reference, never changed."""

    def __init__(self, widths: Sequence[int] = WIDTHS, *, classes: int = 2) -> None:
        super().__init__()
        stages = zip((3, *widths), widths, strict=False)
        self.down = nn.ModuleList(_stage(a, b) for a, b in stages)
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(a, b, 2, stride=2) for a, b in pairs)
        self.join = nn.ModuleList(_stage(2 * b, b) for _, b in pairs)
        self.head = nn.Conv2d(widths[0], classes, 1)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, K, H, W)."""
        skips = []
        for index, stage in enumerate(self.down):
            x = stage(x if index == 0 else self.pool(x))
            skips.append(x)
        skips.pop()
        for up, join in zip(self.up, self.join, strict=True):
            x = join(torch.cat([up(x), skips.pop()], dim=1))
        return self.head(x)


def _stage(a: int, b: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for inputs in (a, b):
        layers += [nn.Conv2d(inputs, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(inplace=True)]
    return nn.Sequential(*layers)


def patches_per_second(*, bfloat16: bool, seconds: float) -> float:
    """Patches of 256 x 256 px on which the reference trains per second."""
    net = PlainUNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(net.parameters(), 1e-3, fused=True)
    image = torch.rand(BATCH, 3, SIDE_PX, SIDE_PX).to(memory_format=torch.channels_last)
    mask = (image.mean(1) > 0.5).long()
    steps, start = -1, time.monotonic()
    while steps < 3 or time.monotonic() - start < seconds:
        if steps == 0:
            start = time.monotonic()  # the first step is a warm-up
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = net(image)
        loss = nn.functional.cross_entropy(logits.float(), mask)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        steps += 1
    return BATCH * steps / (time.monotonic() - start)


def main() -> None:
    """Measure both precisions and print the factor."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=20.0, help="duration of the measurement")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_flush_denormal(True)
    speeds = {
        name: patches_per_second(bfloat16=name == "bfloat16", seconds=options.seconds / 2)
        for name in ("bfloat16", "float32")
    }
    factor = PATCHES_PER_MINUTE / (60 * max(speeds.values()))
    if options.json:
        print(json.dumps({"patches_per_s": speeds, "factor": factor,
                          "threads": torch.get_num_threads()}))  # fmt: skip
        return
    for name, speed in speeds.items():
        print(f"{name}: {speed:.1f} patches per second")
    print(f"factor {factor:.2f}: 10 reference minutes are {10 * factor:.1f} minutes on "
          f"{torch.get_num_threads()} threads of this machine")  # fmt: skip


if __name__ == "__main__":
    main()
