"""Small synthetic source folders in typical layouts, and fake file profiles."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np

from dataset_rules.masks.profile import FileProfile
from dataset_rules.pixels.images import Header, encode
from tests.drawn import draw_discs

SIZE = 40


def tissue(seed: int, *, size: int = SIZE) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image (HW3 uint8) and its instance map (HW uint16)."""
    return draw_discs(np.random.default_rng(seed), size=size, count=4)


def put(folder: Path, path: str, pixels: np.ndarray) -> Path:
    """Write pixels in the format given by the suffix."""
    file = folder / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(encode(pixels, file.suffix))
    return file


def two_folders(folder: Path, count: int = 4, *, values: tuple[int, int] = (0, 255)) -> Path:
    """`images/N.png` and `masks/N.png` with two-valued masks."""
    for number in range(1, count + 1):
        image, instances = tissue(number)
        put(folder, f"images/{number}.png", image)
        mask = np.where(instances > 0, values[1], values[0]).astype(np.uint8)
        put(folder, f"masks/{number}.png", mask)
    return folder


def object_files(folder: Path, count: int = 3) -> Path:
    """One folder per image, one mask per object: `set/ID/images/ID.png`, `set/ID/masks/*.png`."""
    for number in range(count):
        image, instances = tissue(number)
        put(folder, f"set/s{number}/images/s{number}.png", image)
        for value in range(1, int(instances.max()) + 1):
            mask = ((instances == value) * 255).astype(np.uint8)
            put(folder, f"set/s{number}/masks/o{number}{value}.png", mask)
    return folder


def fake_profile(*, is_mask: bool, size_px: tuple[int, int] = (64, 64)) -> FileProfile:
    """Fake profile of a mask or a photograph."""
    header = Header("PNG", "L", *size_px, bits=8, pages=1, pixel_size_um=None)
    values = {0: 3000, 255: 1096} if is_mask else dict.fromkeys(range(256), 16)
    flatness = 0.97 if is_mask else 0.05
    return FileProfile(header, "uint8", values, len(values), is_color=False, flatness=flatness)


def fake_profiler(masks: Iterable[str]) -> Callable[[str], FileProfile]:
    """Fake profiler that finds masks at these paths and photographs elsewhere."""
    paths = frozenset(masks)
    return lambda path: fake_profile(is_mask=path in paths)


def tree_of(folder: Path) -> Mapping[str, bytes]:
    """Path -> content of every file below a folder."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}
