"""Temporary disk space and memory of `format`, per kind of source.

    python benchmarks/sources.py PLACE --pairs 600      creates the set in PLACE once, 1 MB per pair

Images are noisy PNGs of 512 x 512 px, masks are BMPs, which compress well. Each kind is formatted
in a separate process; its disk usage is sampled 20 times per second.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import psutil
import zstandard

SIDE_PX = 512


def main() -> None:
    """Create the set and its archives, format each, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("place", type=Path)
    parser.add_argument("--pairs", type=int, default=600)
    options = parser.parse_args()
    place = options.place / str(options.pairs)
    folder = place / "set"
    if not (place / "made").exists():
        make_set(folder, options.pairs)
        pack(place, folder)
        (place / "made").touch()
    print("| source | MB | temporary MB | peak memory MB | id |\n|---|---|---|---|---|")
    for name in ("set", "set.zip", "set.tar", "set.tar.gz", "set.tar.zst"):
        print(f"| {name} | {size_of(place / name) / 1e6:.0f} | {measured(place / name, place)} |")


def make_set(folder: Path, pairs: int) -> None:
    """Discs on a noisy background."""
    rng = np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    for number in range(pairs):
        image = rng.integers(60, 190, (SIDE_PX, SIDE_PX, 3), np.uint8)
        mask = np.zeros((SIDE_PX, SIDE_PX), np.uint8)
        for centre in rng.integers(0, SIDE_PX, (9, 2)).tolist():
            cv2.circle(mask, centre, 20, 255, -1)
        image[mask > 0] //= 2
        cv2.imwrite(str(folder / f"images/{number:05d}.png"), image)
        cv2.imwrite(str(folder / f"masks/{number:05d}.bmp"), mask)


def pack(place: Path, folder: Path) -> None:
    """All images first, then all masks: the worst order for reading pairs."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    with zipfile.ZipFile(place / "set.zip", "w", zipfile.ZIP_DEFLATED) as packed:
        for path in paths:
            packed.write(path, path.relative_to(folder))
    for mode, name in (("w", "set.tar"), ("w:gz", "set.tar.gz")):
        with tarfile.open(place / name, mode) as tar:
            for path in paths:
                tar.add(path, path.relative_to(folder))
    with (place / "set.tar").open("rb") as tar_file, (place / "set.tar.zst").open("wb") as out:
        zstandard.ZstdCompressor().copy_stream(tar_file, out)


def measured(source: Path, place: Path) -> str:
    """Table cells: peak temporary disk space, peak memory of all processes, dataset id."""
    temporary, out, rules = place / "temporary", place / "out", place / "rules.json"
    for folder in (temporary, out):
        shutil.rmtree(folder, ignore_errors=True)
    temporary.mkdir()
    rules.write_text('{"version": 2, "fit": "keep", "image_format": "png"}')
    arguments = ["format", str(source), str(out), "--rules", str(rules), "--json"]
    code = "import sys; from app.cli import main; sys.exit(main())"
    child = subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(temporary)},
    )  # fmt: skip
    disk = memory = 0
    while child.poll() is None:
        disk, memory = max(disk, size_of(temporary)), max(memory, resident(child.pid))
        time.sleep(0.05)
    assert child.stdout is not None
    found = child.stdout.read().decode()
    name = found.split('"id": "')[1][:12] if '"id": "' in found else f"exit {child.returncode}"
    return f"{disk / 1e6:.1f} | {memory / 1e6:.0f} | {name}"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder; ignores files that disappear."""
    if path.is_file():
        return path.stat().st_size
    total = 0
    for folder, _, names in os.walk(path):  # skips folders that disappear
        for name in names:
            with suppress(OSError):
                total += (Path(folder) / name).stat().st_size
    return total


def resident(process: int) -> int:
    """Resident memory of the process and its descendants, in bytes."""
    total = 0
    try:
        parent = psutil.Process(process)
        for member in [parent, *parent.children(recursive=True)]:
            total += member.memory_info().rss
    except psutil.Error:
        pass
    return total


if __name__ == "__main__":
    main()
