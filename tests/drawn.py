"""Tiny synthetic data for tests."""

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from dataset_rules.artifacts.dataset import DATASET
from dataset_rules.artifacts.manifest import Step, begin, finish, make_source
from dataset_rules.ground.disk import write_json
from dataset_rules.pixels.images import encode
from dataset_rules.rules.rules import Rules, rules_document


def draw_discs(
    rng: np.random.Generator, *, size: int = 64, count: int = 5
) -> tuple[np.ndarray, np.ndarray]:
    """Bright discs on a dark background: image HW3 uint8 and instance map HW uint16."""
    rows, columns = np.mgrid[:size, :size]
    instances = np.zeros((size, size), np.uint16)
    for number in range(1, count + 1):
        margin = min(6, size // 2)
        row, column, radius = *rng.uniform(margin, size - margin, 2), rng.uniform(4, 7)
        instances[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = number
    _, dense = np.unique(instances, return_inverse=True)
    instances = dense.reshape(size, size).astype(np.uint16)
    image = np.full((size, size, 3), 40.0) + (instances > 0)[..., None] * [120.0, 100.0, 60.0]
    image += rng.normal(0, 6, image.shape)
    return image.clip(0, 255).astype(np.uint8), instances


def write_dataset(
    folder: Path,
    *,
    train: int = 6,
    val: int = 2,
    test: int = 2,
    size: int = 64,
    seed: int = 0,
    rings: Sequence[str] = (),
) -> Path:
    """Write a formatted dataset of discs, finished like one from `unetops format`.

    Objects of the samples listed in `rings` belong to a second class.
    """
    rng = np.random.default_rng(seed)
    source = make_source({"a.png": "0" * 64}, location="drawn", started=datetime.now(UTC))
    rules = rules_document(Rules())
    step = Step("dataset", 1, (source,), {"rules": rules})
    begin(folder, step)
    samples = []
    for split, count in (("train", train), ("val", val), ("test", test)):
        for index in range(count):
            name = f"{split}{index}"
            image, instances = draw_discs(rng, size=size)
            kind = 2 if name in rings else 1
            files = {
                f"{split}/images/{name}.png": image,
                f"{split}/masks/{name}_mask.png": np.where(instances > 0, kind, 0).astype(np.uint8),
                f"instances/{name}.png": instances,
            }
            for path, pixels in files.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_bytes(encode(pixels, ".png"))
            image_path, mask_path, instance_path = files
            samples.append({
                "name": name, "split": split, "group": name,
                "image": {"path": image_path, "source": f"{name}.png"},
                "mask": {"path": mask_path, "sources": [f"{name}_m.png"]},
                "instances": instance_path, "pixel_size_um": None,
            })  # fmt: skip
    classes = [{"id": 0, "name": "background"}, {"id": 1, "name": "disc"}]
    classes += [{"id": 2, "name": "ring"}] if rings else []
    write_json(folder / DATASET, {"samples": samples, "classes": classes})
    write_json(folder / "rules.json", rules)
    paths = [p for s in samples for p in (s["image"]["path"], s["mask"]["path"], s["instances"])]
    finish(
        folder, step, content=dict.fromkeys([*paths, DATASET, "rules.json"]),
        started=datetime.now(UTC),
    )  # fmt: skip
    return folder
