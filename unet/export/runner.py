"""python run.py IMAGE.npy OUT.npz: mask and objects of an image (HW or HW3, uint8 or uint16)."""

import heapq
import itertools
import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime as ort

FACTS = json.loads(Path(__file__).with_name("export.json").read_text())
BEFORE, MODEL, AFTER = (ort.InferenceSession(Path(__file__).with_name(n)) for n in FACTS["graphs"])


def predict(image: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Class of each pixel, object number of each pixel, probabilities at the network's scale."""
    floor = np.array(FACTS["least_span"][image.dtype.name], np.float32)
    feed = {"image": np.float32(image).reshape(*image.shape[:2], -1), "floor": floor}
    pixels, limits, (height, width), seen = BEFORE.run(None, feed)
    sides = [min(FACTS["tile_px"], side) for side in pixels.shape[:2]]
    bells = [np.exp(-0.5 * ((np.arange(n) - (n - 1) / 2) / (n / 8)) ** 2) for n in sides]
    weights = np.maximum(np.outer(*bells), FACTS["least_weight"]).astype(np.float32)
    total = np.zeros((FACTS["outputs"] + 1, *pixels.shape[:2]), np.float32)
    ends = [n - side for n, side in zip(pixels.shape, sides, strict=False)]
    for top, left in itertools.product(*([*range(0, n, FACTS["stride_px"]), n] for n in ends)):
        at = np.s_[top : top + sides[0], left : left + sides[1]]
        found = MODEL.run(None, {"image": pixels[at], "limits": limits})
        total[:, *at] += np.concatenate([*found, np.ones((1, *sides), np.float32)]) * weights
    prob = (total[:-1] / total[-1])[:, :height, :width]
    classes, _, heights, seeds = AFTER.run(None, {"prob": prob, "size": seen})
    objects = flooded(heights, seeds, FACTS["min_area_px"])
    if (own := image.shape[:2]) != tuple(seen):  # outlines at the image's own size
        classes, distance, _, inside = AFTER.run(None, {"prob": prob, "size": np.array(own)})
        near = [(2 * np.arange(n) + 1) * m // (2 * n) for n, m in zip(own, seen, strict=True)]
        objects = flooded(distance, np.where(inside < 0, inside, objects[np.ix_(*near)]), 0)
    return np.where(objects > 0, classes, 0).astype(np.uint8), objects, prob


def flooded(heights: np.ndarray, seeds: np.ndarray, least_px: int) -> np.ndarray:
    """Objects grown from seeds, the highest pixel first; where seeds are -1 none grows."""
    cost, wide = np.pad(-heights, 1).ravel().tolist(), heights.shape[1] + 2
    flat = np.pad(seeds, 1, constant_values=-1).ravel().tolist()
    seeded, ages = [at for at, number in enumerate(flat) if number > 0], itertools.count(1)
    heap = sorted((cost[at], 0, at) for at in seeded)
    while heap:
        at = heapq.heappop(heap)[2]
        for near in (at - wide, at - 1, at + 1, at + wide):
            if flat[near] == 0:
                flat[near] = flat[at]
                heapq.heappush(heap, (cost[near], next(ages), near))
    numbers, first, places, area = np.unique(np.maximum(flat, 0), True, True, True)
    kept = (numbers > 0) & (area >= least_px)
    rank = np.argsort(np.argsort(np.where(kept, first, len(flat)))) + 1
    return np.where(kept, rank, 0)[places].reshape(-1, wide)[1:-1, 1:-1]


if __name__ == "__main__":
    mask, objects, _ = predict(np.load(sys.argv[1]))
    np.savez_compressed(sys.argv[2], mask=mask, instances=objects.astype(np.uint32))
