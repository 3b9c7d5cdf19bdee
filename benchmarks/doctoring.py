"""Time and peak memory of the doctor on many small, distinct files.

    python benchmarks/doctoring.py SET                creates SET once: 50,000 pairs of 64 x 64 PNG
    python benchmarks/doctoring.py SET --pairs 5000 --full

The doctor runs in a separate process, so that its peak memory can be measured.
"""

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np

SIDE_PX = 64
PER_CASE = 50  # images per case, which is the group in their names


def main() -> None:
    """Create the set if it is missing, run the doctor, print the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("set", type=Path)
    parser.add_argument("--pairs", type=int, default=50_000)
    parser.add_argument("--full", action="store_true", help="decode every file")
    options = parser.parse_args()
    folder = options.set / str(options.pairs)
    if not (folder / "made").exists():
        make_set(folder, options.pairs)
    arguments = ["doctor", str(folder / "source"), "--json", *(["--full"] if options.full else [])]
    code = "import sys; from app.cli import main; sys.exit(main())"
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, check=False
    )
    spent_s = time.perf_counter() - started
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy_s = used.ru_utime + used.ru_stime
    print(f"{2 * options.pairs} files: {spent_s:.1f} s ({busy_s:.1f} s of CPU time), "
          f"{used.ru_maxrss / 1024:.0f} MiB, {len(done.stdout) / 1e6:.1f} MB of JSON, "
          f"exit {done.returncode}")  # fmt: skip
    if done.returncode not in {0, 1}:
        print(done.stderr.decode())


def make_set(folder: Path, pairs: int) -> None:
    """Discs on a noisy background in `images/`, their masks in `masks/`; all files differ."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / "source" / kind).mkdir(parents=True, exist_ok=True)
    for number in range(pairs):
        image, mask = draw(rng, number)
        name = f"case{number // PER_CASE:04d}_{number % PER_CASE:02d}.png"
        cv2.imwrite(str(folder / "source/images" / name), image)
        cv2.imwrite(str(folder / "source/masks" / name), mask)
    (folder / "made").touch()


def draw(rng: np.random.Generator, number: int) -> tuple[np.ndarray, np.ndarray]:
    """An image (HW3) and its mask (HW, 0 and 255), which encodes the number in its first row."""
    mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
    for row, column, radius in rng.integers((4, 0, 4), (SIDE_PX, SIDE_PX, 10), (4, 3)):
        cv2.circle(mask, (int(column), int(row)), int(radius), 255, -1)
    mask[0, :20] = [255 * (number >> bit & 1) for bit in range(20)]
    image = rng.integers(190, 240, (SIDE_PX, SIDE_PX, 3), np.uint8)
    image[mask > 0] //= 2
    return image, mask


if __name__ == "__main__":
    main()
