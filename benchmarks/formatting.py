"""Compare `unetops format` with Pillow and libvips: pairs per second, accuracy, size, memory.

The set is real tissue: mosaics of monuseg2018 images with their masks, 2048 x 1536, as JPEG of
quality 92 and PNG masks written by Pillow, to be stretched to 512 x 512 PNG. Every contender is a
separate process, timed from start to end; the rounds are interleaved.

    python benchmarks/formatting.py [--pairs 1000] [--rounds 3] [--memory 200 2000]

pyvips is only a contender (extra `dev`); unetops does not need it.
"""

import argparse
import contextlib
import ctypes
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("UNETOPS_DATA", ROOT.parent / "shared" / "data"))
TISSUE = "monuseg2018/data/MoNuSegTrainData"
HEIGHT_PX, WIDTH_PX, SIDE_PX, QUALITY = 1536, 2048, 512, 92
CORES = 2
PR_SET_CHILD_SUBREAPER = 36  # from Linux's prctl.h
RULES = """{"version": 2, "height": 512, "width": 512, "fit": "stretch",
 "classes": [{"id": 0, "name": "background", "source_values": [0]},
             {"id": 1, "name": "nucleus", "source_values": [255]}],
 "source": {"image": "images/{name}.jpg", "mask": "masks/{name}.png", "mask_kind": "binary"}}"""


def make_set(folder: Path, pairs: int) -> Path:
    """Images and masks of mosaics; each tile is an image at its own scale, rotated or flipped."""
    for name in ("images", "masks"):
        (folder / name).mkdir(parents=True)
    with multiprocessing.Pool(CORES) as pool:
        pool.map(partial(_make_pair, folder, list(_tissue())), range(pairs), chunksize=20)
    return folder


def _make_pair(folder: Path, tissue: Sequence[np.ndarray[Any, Any]], number: int) -> None:
    mosaic = _mosaic(tissue, random.Random(number))  # noqa: S311  not a secret
    image, mask = mosaic[..., :3], mosaic[..., 3]
    Image.fromarray(np.ascontiguousarray(image)).save(
        folder / f"images/{number:05}.jpg", quality=QUALITY
    )
    Image.fromarray(np.ascontiguousarray(mask)).save(folder / f"masks/{number:05}.png")


def _tissue() -> Iterator[np.ndarray[Any, Any]]:
    """Images with their masks as a fourth channel."""
    for path in sorted((DATA / TISSUE / "tissue_image").glob("TCGA*.tif")):
        image = np.asarray(Image.open(path).convert("RGB"))
        mask = np.asarray(Image.open(path.parent.parent / f"masks/{path.stem}.png").convert("L"))
        yield np.dstack([image, np.where(mask > 127, 255, 0).astype(np.uint8)])


def _mosaic(tissue: Sequence[np.ndarray[Any, Any]], rng: random.Random) -> np.ndarray[Any, Any]:
    def tile() -> np.ndarray[Any, Any]:
        rotated = np.rot90(rng.choice(tissue), rng.randrange(4))
        return rotated[:, ::-1] if rng.random() < 0.5 else rotated

    whole = np.vstack([np.hstack([tile() for _ in range(3)]) for _ in range(2)])
    top = rng.randrange(whole.shape[0] - HEIGHT_PX + 1)
    left = rng.randrange(whole.shape[1] - WIDTH_PX + 1)
    return whole[top : top + HEIGHT_PX, left : left + WIDTH_PX]


def by_pillow(task: tuple[Path, Path, Path]) -> None:
    """The simplest Pillow code."""
    image, mask, out = task
    size = (SIDE_PX, SIDE_PX)
    with Image.open(image) as opened:
        opened.convert("RGB").resize(size, Image.Resampling.LANCZOS).save(
            out / f"images/{image.stem}.png"
        )
    with Image.open(mask) as opened:
        opened.resize(size, Image.Resampling.NEAREST).save(out / f"masks/{mask.stem}_mask.png")


def by_vips(task: tuple[Path, Path, Path]) -> None:
    """Decode every pixel, then reduce with libvips' default kernel."""
    import pyvips

    image, mask, out = task
    opened = pyvips.Image.new_from_file(str(image), access="sequential")
    opened.resize(SIDE_PX / WIDTH_PX, vscale=SIDE_PX / HEIGHT_PX).pngsave(
        str(out / f"images/{image.stem}.png")
    )
    _mask_by_vips(mask, out)


def by_vips_thumbnail(task: tuple[Path, Path, Path]) -> None:
    """Decode the image at a fraction of its size, libvips' fast path."""
    import pyvips

    image, mask, out = task
    small = pyvips.Image.thumbnail(str(image), SIDE_PX, height=SIDE_PX, size="force")
    small.pngsave(str(out / f"images/{image.stem}.png"))
    _mask_by_vips(mask, out)


def _mask_by_vips(mask: Path, out: Path) -> None:
    import pyvips

    opened = pyvips.Image.new_from_file(str(mask), access="sequential")
    opened.resize(SIDE_PX / WIDTH_PX, vscale=SIDE_PX / HEIGHT_PX, kernel="nearest").pngsave(
        str(out / f"masks/{mask.stem}_mask.png")
    )


CONTENDERS: dict[str, tuple[Callable[[tuple[Path, Path, Path]], None], int]] = {
    "pillow": (by_pillow, 1),
    "pillow, 2 processes": (by_pillow, 2),
    "libvips, 2 processes": (by_vips, 2),
    "libvips thumbnail, 2 processes": (by_vips_thumbnail, 2),
}
OURS, BASE = "unetops format", "pillow"


def run_contender(name: str, source: Path, out: Path) -> None:
    """Process all pairs with one of the other contenders."""
    process_pair, processes = CONTENDERS[name]
    for folder in ("images", "masks"):
        (out / folder).mkdir(parents=True)
    images = sorted((source / "images").iterdir())
    tasks = [(path, source / f"masks/{path.stem}.png", out) for path in images]
    if processes == 1:
        for task in tasks:
            process_pair(task)
        return
    with multiprocessing.Pool(processes) as pool:
        for _ in pool.imap_unordered(process_pair, tasks, chunksize=4):
            pass


def command(name: str, source: Path, out: Path) -> list[str]:
    """Command line that runs a contender."""
    if name == OURS:
        rules = source.parent / "rules.json"
        rules.write_text(RULES)
        return [sys.executable, "-m", "app.cli", "format", str(source), str(out), "--rules",
                str(rules), "--jobs", str(CORES)]  # fmt: skip
    return [sys.executable, str(Path(__file__).resolve()), "--way", name, str(source), str(out)]


@dataclass(frozen=True)
class Timing:
    """One run."""

    wall_s: float
    cpu_s: float


def timed(name: str, source: Path, out: Path) -> Timing:
    """Wall and CPU time of one run."""
    shutil.rmtree(out, ignore_errors=True)
    before, start = os.times(), time.monotonic()
    subprocess.run(
        command(name, source, out), check=True, cwd=ROOT, stdout=subprocess.DEVNULL,
        env={**os.environ, "VIPS_CONCURRENCY": "1", "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    wall_s = time.monotonic() - start
    _await_orphans()
    after = os.times()
    used = (after.children_user + after.children_system) - (
        before.children_user + before.children_system
    )
    return Timing(wall_s, used)


def _adopt_orphans() -> None:
    """Become the parent of orphaned processes, so that their time is counted."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _await_orphans() -> None:
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def peak_mib(source: Path, out: Path) -> float:
    """Peak memory of the formatter and its processes; shared pages are counted once."""
    shutil.rmtree(out, ignore_errors=True)
    process = subprocess.Popen(command(OURS, source, out), cwd=ROOT, stdout=subprocess.DEVNULL)
    root, peak = psutil.Process(process.pid), 0
    while process.poll() is None:
        peak = max(peak, _memory_of(root))
        time.sleep(0.02)
    if process.returncode:
        raise SystemExit(f"{OURS} failed with exit status {process.returncode}")
    return peak / 2**20


def _memory_of(root: psutil.Process) -> int:
    total = 0
    for process in _family(root):
        try:
            total += process.memory_full_info().pss
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue  # the process has exited
    return total


def _family(root: psutil.Process) -> list[psutil.Process]:
    try:
        return [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def files_of(out: Path, kind: str) -> dict[str, Path]:
    """Sample name -> its written image or mask."""
    return {
        path.stem.removesuffix("_mask"): path
        for path in sorted(out.rglob("*.png"))
        if path.parent.name == kind
    }


def psnr_db(source: Path, out: Path, count: int = 20) -> float:
    """Lowest PSNR of some images, against the exact area mean of the fully decoded image."""
    written, found = files_of(out, "images"), []
    for path in sorted((source / "images").iterdir())[:count]:
        whole = np.asarray(Image.open(path).convert("RGB"), np.float64)
        mean = whole.reshape(SIDE_PX, HEIGHT_PX // SIDE_PX, SIDE_PX, WIDTH_PX // SIDE_PX, 3).mean(
            (1, 3)
        )
        error = np.mean((np.asarray(Image.open(written[path.stem])) - mean) ** 2)
        found.append(10 * np.log10(255**2 / error))
    return float(min(found))


def size_bytes(out: Path) -> int:
    """Bytes of all images and masks."""
    return sum(
        p.stat().st_size for kind in ("images", "masks") for p in files_of(out, kind).values()
    )


def compare(source: Path, work: Path, names: Sequence[str], *, pairs: int, rounds: int) -> None:
    """Run interleaved rounds, then print one line per contender."""
    runs: dict[str, list[Timing]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names:
            timing = timed(name, source, work / name.replace(" ", "_"))
            runs[name].append(timing)
            print(f"round {number + 1}  {name:32} {timing.wall_s:7.1f} s wall  "
                  f"{timing.cpu_s:7.1f} s CPU", flush=True)  # fmt: skip
    base = size_bytes(work / BASE)
    print(f"\n{'contender':32} pairs/s  speed/{BASE} (wall)  (CPU)  PSNR dB  size/{BASE}")
    for name, timings in runs.items():
        out = work / name.replace(" ", "_")
        wall = [
            pillow.wall_s / other.wall_s for pillow, other in zip(runs[BASE], timings, strict=True)
        ]
        cpu = [
            pillow.cpu_s / other.cpu_s for pillow, other in zip(runs[BASE], timings, strict=True)
        ]
        rate = pairs / min(timing.wall_s for timing in timings)
        print(f"{name:32} {rate:7.1f} {median(wall):20.2f} {median(cpu):6.2f} "
              f"{psnr_db(source, out):8.1f} {size_bytes(out) / base:8.3f}")  # fmt: skip


def main() -> None:
    """Create the set, run the contenders, print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", help="contenders to run besides Pillow")
    parser.add_argument("--memory", type=int, nargs="+", default=[], help="pairs per memory run")
    parser.add_argument("--work", type=Path, help="folder for all files, kept; default: temporary")
    parser.add_argument("--way", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        name, source, out = options.way
        run_contender(name, Path(source), Path(out))
        return
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:CORES])
    _adopt_orphans()
    with tempfile.TemporaryDirectory(prefix="unetops-formatting-") as temporary:
        work = options.work or Path(temporary)
        if options.rounds:
            source = _set_of(work, options.pairs)
            names = [BASE, *(options.only or [*[n for n in CONTENDERS if n != BASE], OURS])]
            compare(source, work, names, pairs=options.pairs, rounds=options.rounds)
        for pairs in options.memory:
            print(f"{OURS}: peak memory {peak_mib(_set_of(work, pairs), work / 'memory'):.0f} MiB "
                  f"with {pairs} pairs")  # fmt: skip


def _set_of(work: Path, pairs: int) -> Path:
    folder = work / f"{pairs}-pairs" / "set"
    return folder if folder.exists() else make_set(folder, pairs)


if __name__ == "__main__":
    main()
