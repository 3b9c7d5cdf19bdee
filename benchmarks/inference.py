"""Time and memory of predictions: 512 x 512, 8192 x 8192 and 30,000 x 30,000 pixels.

    python benchmarks/inference.py MODEL --out DIR [--parts small large huge] [--tissue FOLDER]

MODEL is a trained model or run. The images are MoNuSeg tissue (1000 x 1000 TIFF files), rotated,
flipped and tiled; the largest is written tile by tile, as JPEG in a TIFF. Every measurement runs in
a separate process; its peak memory is reported by the kernel. CPU seconds do not include waiting
for other programs, wall seconds do.

- small: unetops with each backend, with and without post-processing, against a plain U-Net of
  31 million parameters in eager float32. `--dice DATASET` trains both for `--minutes` and prints
  their Dice on the test split.
- large: unetops against MONAI's sliding-window inference with the same weights, both bfloat16 and
  channels_last, from the file to the class mask; the plain U-Net is extrapolated from 16 tiles.
  Needs MONAI (`pip install 'unetops[bench]'`).
- huge: mask and instance map of a TIFF that is never entirely in memory, streamed to disk.
"""

import argparse
import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

DATA = Path(os.environ.get("UNETOPS_DATA", Path(__file__).resolve().parents[2] / "shared/data"))
TISSUE = DATA / "monuseg2018/data/MoNuSegTrainData/tissue_image"
TILE_PX, SMALL_PX, LARGE_PX, HUGE_PX = 512, 512, 8192, 30_000
ROUNDS = 7
TILES_31M = 16
BACKENDS = ("float32", "bfloat16", "openvino")


# --- images ---------------------------------------------------------------------------------


def bands(tissue: Path, side_px: int) -> Iterator[np.ndarray]:
    """Rows of tissue, 512 at a time; the arrangement of the images is seeded."""
    images = [tifffile.imread(path)[..., :3] for path in sorted(tissue.glob("*.tif"))]
    rng, side = np.random.default_rng(0), images[0].shape[0]
    line = np.zeros((0, side_px, 3), np.uint8)
    for top in range(0, side_px, TILE_PX):
        while len(line) < min(TILE_PX, side_px - top):
            row = [_random_view(images, rng) for _ in range(-(-side_px // side))]
            line = np.concatenate([line, np.hstack(row)[:, :side_px]])
        yield line[: side_px - top][:TILE_PX]
        line = line[TILE_PX:]


def _random_view(images: list[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    image = images[rng.integers(len(images))]
    image = np.rot90(image, rng.integers(4))
    return image[:, ::-1] if rng.integers(2) else image


def write_tissue(path: Path, tissue: Path, side_px: int, **options: Any) -> None:
    """Write a tiled TIFF of tissue that is never entirely in memory."""
    if path.exists():
        return

    def tiles() -> Iterator[np.ndarray]:
        for band in bands(tissue, side_px):
            for left in range(0, side_px, TILE_PX):
                tile = band[:, left : left + TILE_PX]
                missing = [(0, TILE_PX - n) for n in tile.shape[:2]]
                yield np.ascontiguousarray(np.pad(tile, [*missing, (0, 0)]))

    part = path.with_suffix(".part")
    tifffile.imwrite(part, tiles(), shape=(side_px, side_px, 3), dtype="uint8", photometric="rgb",
                     tile=(TILE_PX, TILE_PX), bigtiff=True, **options)  # fmt: skip
    part.replace(path)


# --- measurements, each in a separate process -------------------------------------------------


def measured(name: str, *arguments: str) -> dict[str, Any]:
    """Run a measurement in a separate process; returns its figures, with peak memory."""
    command = [sys.executable, "-W", "ignore", __file__, "--measure", name, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{name} failed:\n{done.stderr[-2000:]}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    print(f"- {name} {' '.join(arguments[1:])}: {figures}", file=sys.stderr, flush=True)
    return figures


def timed(action: Callable[[], Any], rounds: int = 1) -> dict[str, float]:
    """Wall and CPU seconds of the best round, and the peak memory so far."""
    best: tuple[float, float] = (float("inf"), float("inf"))
    for _ in range(rounds):
        start, used = time.perf_counter(), _processor_s()
        action()
        best = min(best, (time.perf_counter() - start, _processor_s() - used))
    return {"wall_s": round(best[0], 4), "processor_s": round(best[1], 4), "peak_mb": _peak_mb()}


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _peak_mb() -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(found[1]) >> 10 if found else 0


def measure_small(model: str, image: str, backend: str) -> dict[str, Any]:
    """The network alone on one tile, and the complete prediction with mask and objects."""
    from unet.network.backend import Backend, make_forward
    from unet.network.preprocessing import normalized
    from unet.prediction.predictor import Predictor

    predictor = Predictor(Path(model), backend=Backend(backend))
    pixels = tifffile.imread(image)
    tile = normalized(pixels, channels=predictor.card.plan.channels)
    forward = make_forward(predictor.nets[0], Backend(backend))
    forward(tile)
    predictor.predict(pixels)
    network = timed(lambda: forward(tile), ROUNDS)
    return network | {"whole": timed(lambda: predictor.predict(pixels), ROUNDS)}


def measure_small_31m(_: str, image: str) -> dict[str, Any]:
    """The plain network in eager float32, without optimisation."""
    import torch
    from plain_unet import plain_unet  # next to this file

    net, tile = plain_unet().eval(), _corner(image, SMALL_PX)
    with torch.inference_mode():
        net(tile)
        return timed(lambda: net(tile).argmax(1).numpy(), 3)


def measure_large(model: str, image: str, backend: str) -> dict[str, Any]:
    """From the file to the class mask: tiles, blending, threshold; no objects."""
    from unet.network.backend import Backend
    from unet.prediction.predictor import Predictor

    predictor = Predictor(Path(model), backend=Backend(backend))

    def mask() -> None:
        from dataset_rules.pixels.rows import open_rows

        rows, level = open_rows(Path(image)), 1 - predictor.card.split.foreground
        scaled = predictor._scaled(rows)  # only the steps that MONAI also performs
        found = [(planes[0] <= level).astype(np.uint8) for planes in predictor._planes(scaled)]
        np.save(Path(image).with_suffix(f".{backend}.npy"), np.concatenate(found))

    return timed(mask)


def measure_files(model: str, image: str, backend: str, out: str) -> dict[str, Any]:
    """Complete prediction: mask and instance map written as files of an artifact."""
    from unet.network.backend import Backend
    from unet.prediction.predict_files import PREDICTIONS, predict_files
    from unet.prediction.predictor import Predictor

    predictor = Predictor(Path(model), backend=Backend(backend))

    def files() -> None:
        predict_files(Path(model), [Path(image)], Path(out), predictor=predictor)

    figures: dict[str, Any] = timed(files)
    row = json.loads((Path(out) / PREDICTIONS).read_bytes())["images"][0]
    sizes = {name: (Path(out) / row[name]).stat().st_size >> 20 for name in ("mask", "instances")}
    return figures | {"objects": row["objects"], "files_mb": sizes}


def measure_monai(model: str, image: str, overlap: str) -> dict[str, Any]:
    """MONAI's inferer with our weights, from the file to the class mask."""
    import torch
    from monai.inferers import sliding_window_inference

    from unet.network.preprocessing import normalized
    from unet.prediction.predictor import Predictor

    predictor = Predictor(Path(model))
    net = predictor.nets[0].to(memory_format=torch.channels_last)
    level = 1 - predictor.card.split.foreground

    def probabilities(tile_BCHW: Any) -> Any:
        return net(tile_BCHW.contiguous(memory_format=torch.channels_last))[0].softmax(1)

    def mask() -> None:
        pixels = normalized(tifffile.imread(image), channels=predictor.card.plan.channels)
        image_BCHW = torch.from_numpy(pixels).permute(2, 0, 1)[None]
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
            found = sliding_window_inference(
                image_BCHW, (TILE_PX, TILE_PX), sw_batch_size=1, predictor=probabilities,
                overlap=float(overlap), mode="gaussian",
            )  # fmt: skip
        np.save(Path(image).with_suffix(".monai.npy"), (found[0, 0] <= level).numpy())

    return timed(mask)


def measure_large_31m(_: str, image: str) -> dict[str, Any]:
    """Sixteen tiles of the plain network, to extrapolate to the tile count of MONAI's overlap."""
    import torch
    from plain_unet import plain_unet  # next to this file

    net, tile = plain_unet().eval(), _corner(image, TILE_PX)
    with torch.inference_mode():
        net(tile)
        figures = timed(lambda: [net(tile) for _ in range(TILES_31M)])
    return {**figures, "tiles": TILES_31M}


def _corner(image: str, side: int) -> Any:
    import torch

    pixels = tifffile.imread(image)[:side, :side].astype(np.float32) / 255
    return torch.from_numpy(pixels).permute(2, 0, 1)[None]


# --- tables -----------------------------------------------------------------------------------


def small(model: str, image: Path) -> list[list[str]]:
    """Table for 512 x 512 pixels."""
    plain = measured("small_31m", model, str(image))
    rows = [_row("plain U-Net, 31.0 M, eager float32", plain, plain)]
    for backend in BACKENDS:
        ours = measured("small", model, str(image), backend)
        rows.append(_row(f"ours, {backend}", ours, plain))
        rows.append(_row(f"ours, {backend}, to mask and objects", ours["whole"], plain))
    return rows


def large(model: str, image: Path, out: Path) -> list[list[str]]:
    """Table for 8192 x 8192 pixels."""
    plain = measured("large_31m", model, str(image))
    peers = [measured("monai", model, str(image), overlap) for overlap in ("0.25", "0.125")]
    base = peers[0]
    tiles = (-(-(LARGE_PX - TILE_PX) // 384) + 1) ** 2
    for name in ("wall_s", "processor_s"):
        plain[name] *= tiles / TILES_31M
    rows = [_row(f"plain U-Net, 31.0 M, float32, {tiles} tiles (of {TILES_31M})", plain, base)]
    rows += [_row(f"MONAI sliding window, overlap {share}", peer, base)
             for share, peer in zip(("1/4", "1/8"), peers, strict=True)]  # fmt: skip
    truth = np.load(image.with_suffix(".monai.npy"))
    for backend in BACKENDS[1:]:
        ours = measured("large", model, str(image), backend)
        found = np.load(image.with_suffix(f".{backend}.npy")) > 0
        dice = 2 * np.count_nonzero(found & truth) / max(1, found.sum() + truth.sum())
        rows.append(_row(f"ours, {backend} (Dice with MONAI's {dice:.4f})", ours, base))
    whole = measured("files", model, str(image), BACKENDS[-1], str(out / "large"))
    label = f"ours, {BACKENDS[-1]}, {whole['objects']} objects, both maps as files"
    return [*rows, _row(label, whole, base)]


def huge(model: str, image: Path, out: Path) -> list[list[str]]:
    """Table for 30,000 x 30,000 pixels."""
    found = measured("files", model, str(image), BACKENDS[-1], str(out / "huge"))
    sizes = ", ".join(f"{name} {size} MB" for name, size in found["files_mb"].items())
    label = f"ours, {BACKENDS[-1]}: {found['objects']} objects, {sizes}"
    return [_row(label, found, found)]


def dices(dataset: Path, out: Path, minutes: float) -> None:
    """Train both networks for the same time, one after the other, and print their Dice."""
    plain = Path(__file__).with_name("plain_unet.py")
    command = [sys.executable, str(plain), str(dataset), "--minutes", str(minutes)]
    theirs = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    run, unetops = out / f"run-{minutes:g}m", [sys.executable, "-m", "app.cli"]
    arguments = ["train", str(dataset), "--out", str(run), "--time-limit", f"{minutes}m"]
    subprocess.run([*unetops, *arguments], check=True, capture_output=True)
    arguments = ["evaluate", str(run), str(dataset), "--json"]
    ours = json.loads(
        subprocess.run([*unetops, *arguments], check=True, capture_output=True).stdout
    )
    print(f"\n{minutes:g} minutes of training, mean Dice on the test split:")
    print(f"plain {theirs['dice_mean']:.4f} in {theirs['steps']} steps")
    print(f"ours {ours['dice_mean']:.4f}")


def _row(label: str, figures: dict[str, Any], base: dict[str, Any]) -> list[str]:
    return [label, f"{figures['wall_s']:.3g}", f"{figures['processor_s']:.3g}",
            f"{base['wall_s'] / figures['wall_s']:.2f}",
            f"{base['processor_s'] / figures['processor_s']:.2f}",
            str(figures["peak_mb"])]  # fmt: skip


def _print(title: str, rows: list[list[str]]) -> None:
    print(f"\n{title}\n")
    print("| variant | wall s | CPU s | speedup (wall) | speedup (CPU) | peak MB |")
    print("|---|---|---|---|---|---|")
    for row in rows:
        print("|", " | ".join(row), "|", flush=True)


MEASURES: dict[str, Callable[..., dict[str, Any]]] = {
    "small": measure_small, "small_31m": measure_small_31m, "large": measure_large,
    "large_31m": measure_large_31m, "monai": measure_monai, "files": measure_files,
}  # fmt: skip


def main() -> None:
    """Create the images, measure, print the tables."""
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(MEASURES[sys.argv[2]](*sys.argv[3:])))
        return
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--tissue", type=Path, default=TISSUE)
    parser.add_argument("--parts", nargs="+", default=["small", "large", "huge"])
    parser.add_argument("--huge-px", type=int, default=HUGE_PX)
    parser.add_argument(
        "--dice", type=Path, metavar="DATASET", help="also train both networks on this dataset"
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="minutes per training")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    model, out = str(options.model), options.out
    if "small" in options.parts:
        image = out / f"tissue-{SMALL_PX}.tif"
        write_tissue(image, options.tissue, SMALL_PX)
        _print(f"{SMALL_PX} x {SMALL_PX}", small(model, image))
    if options.dice:
        dices(options.dice, out, options.minutes)
    if "large" in options.parts:
        image = out / f"tissue-{LARGE_PX}.tif"
        write_tissue(image, options.tissue, LARGE_PX)
        _print(f"{LARGE_PX} x {LARGE_PX}", large(model, image, out))
    if "huge" in options.parts:
        image = out / f"tissue-{options.huge_px}.tif"
        write_tissue(image, options.tissue, options.huge_px, compression="jpeg")
        _print(f"{options.huge_px} x {options.huge_px}", huge(model, image, out))


if __name__ == "__main__":
    main()
