"""Random messy source folders: names, folder layouts, distractors and defects of all kinds."""

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

import numpy as np

from dataset_rules.pixels.images import encode
from tests.drawn import draw_discs

SIZE = 32

ROOTS = ["", "", "data/", "My Data (v2)/", "Übung/2021/", "a/b/c/", "set.1/"]
IMAGE_WORDS = ["images", "img", "Images", "raw", "tissue", "input", "HE", "slides", "x", "A",
               "photos", "ihc", "original images", "JPEGImages", "frames", "stain01"]  # fmt: skip
MASK_WORDS = ["masks", "mask", "labels", "gt", "annot", "GroundTruth", "SegmentationClass", "y",
              "B", "manual", "seg", "Annotations", "mask_png", "targets"]  # fmt: skip
PREDICTION_WORDS = ["pred", "predictions", "output", "prob", "results", "heatmap"]
PICTURE_WORDS = ["overlay", "preview", "thumbs", "vis"]
CLASS_WORDS = [
    ["red", "blue"],
    ["nuclei", "stroma"],
    ["tumor", "immune", "vessel"],
    ["class1", "class2"],
]
OBJECT_WORDS = ["_", "_obj", "-cell", "_nucleus_", " part "]
TYPES = [(".png", ".png"), (".png", ".png"), (".jpg", ".png"), (".tif", ".png"), (".bmp", ".png"),
         (".tif", ".tif"), (".jpg", ".jpg"), (".jpeg", ".png"), (".PNG", ".PNG"),
         (".JPG", ".png")]  # fmt: skip
JUNK = [".DS_Store", "Thumbs.db", "__MACOSX/._1.png", "notes.txt", "README.md", "table.csv",
        "desktop.ini"]  # fmt: skip
WORDS = ["alice", "bob", "carol", "dave", "eve", "frank", "grace", "heidi", "ivan", "judy"]

NAMES: list[Callable[[int], str]] = [
    lambda i: str(i + 1),
    lambda i: str((i + 1) * (i + 1)),
    lambda i: f"{i:03d}",
    lambda i: f"case{i // 3}_{i % 3}",
    lambda i: f"patient{i // 2 + 7}-slide{i % 2}",
    lambda i: f"TCGA-{i // 3:02d}-A{i}B-01Z-00-DX1",
    lambda i: WORDS[i],
    lambda i: f"{(i * 7919 + 13) * 104729:08x}",
    lambda i: f"2021-03-{i + 4:02d}_{i % 2}",
    lambda i: f"slide {i + 1} (copy)",
    lambda i: f"prøve_{i + 1}",
    lambda i: f"IMG{i + 9}",
    lambda i: f"s{i + 1}_roi{(i * 5) % 3}_20x",
    lambda i: f"{'abcdefghij'[i]}{'qrstuvwxyz'[i]}{i}",
]


@dataclass
class Layout:
    """Files of a source, and the expected pairs."""

    kind: str
    files: dict[str, np.ndarray | bytes] = field(default_factory=dict)
    pairs: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def write(self, folder: Path) -> Path:
        """Write the files to a folder."""
        for path, content in self.files.items():
            file = folder / path
            file.parent.mkdir(parents=True, exist_ok=True)
            data = content if isinstance(content, bytes) else encode(content, file.suffix.lower())
            file.write_bytes(data)
        return folder


@cache
def scene(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """An image and its instance map, determined by the seed."""
    return draw_discs(np.random.default_rng(seed), size=SIZE, count=4)


def as_mask(instances: np.ndarray) -> np.ndarray:
    return ((instances > 0) * 255).astype(np.uint8)


def as_prediction(instances: np.ndarray) -> np.ndarray:
    """A nearly correct mask, shifted by two pixels."""
    return np.roll(as_mask(instances), 2, axis=1)


class Drawing:
    """Builds a layout; all choices come from `rng`."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.root = self.pick(ROOTS)
        self.image_word, self.mask_word = self.pick(IMAGE_WORDS), self.pick(MASK_WORDS)
        self.image_type, self.mask_type = self.pick(TYPES)
        self.name = self.pick(NAMES)
        self.count = self.rng.randint(4, 10)
        self.layout = Layout(self.pick(list(KINDS)))

    def pick(self, options: list) -> object:
        return self.rng.choice(options)

    def draw(self) -> Layout:
        KINDS[self.layout.kind](self)
        self.add_distractors()
        self.add_junk()
        self.add_defects()
        return self.layout

    def put(self, path: str, content: np.ndarray | bytes) -> str:
        path = self.root + path
        self.layout.files[path] = content
        return path

    def pair(self, index: int, image: str, mask: str) -> None:
        pixels, instances = scene(1000 * self.seed + index)
        path = self.put(image, pixels)
        self.layout.pairs[path] = (self.put(mask, as_mask(instances)),)

    def instances(self, index: int) -> np.ndarray:
        return scene(1000 * self.seed + index)[1]

    def add_distractors(self) -> None:
        """Predictions or pictures, marked by a suffix or in a separate folder."""
        placement = self.pick(["none", "none", "suffix", "folder"])
        if placement == "none" or self.layout.kind in {"panels", "object folders", "folders"}:
            return
        is_picture = self.pick([True, False])
        word = self.pick(PICTURE_WORDS if is_picture else PREDICTION_WORDS)
        for index, image in enumerate(list(self.layout.pairs)):
            pixels, instances = scene(1000 * self.seed + index)
            stem = image.removeprefix(self.root).rpartition(".")[0]
            name = stem.split("/")[-1]
            path = f"{stem}_{word}.png" if placement == "suffix" else f"{word}/{name}.png"
            self.put(path, pixels[::-1] if is_picture else as_prediction(instances))

    def add_junk(self) -> None:
        for name in self.rng.sample(JUNK, self.rng.randint(0, 3)):
            self.put(name, b"x")
        if self.pick([True, False, False]):
            self.put("logo.jpg", scene(5)[0])

    def add_defects(self) -> None:
        """An image without mask, a mask without image, an empty mask, a truncated file."""
        defect = self.pick(["none", "none", "image", "mask", "empty", "cut"])
        if self.layout.kind == "panels":
            return
        image, masks = self.pick(list(self.layout.pairs.items()))
        if defect == "image" or (defect == "mask" and len(masks) == 1):
            for path in masks if defect == "image" else [image]:
                del self.layout.files[path]
            del self.layout.pairs[image]
        elif defect == "empty" and isinstance(self.layout.files[masks[0]], np.ndarray):
            self.layout.files[masks[0]] = np.zeros((SIZE, SIZE), np.uint8)
        elif defect == "cut":
            data = encode(self.layout.files[image], Path(image).suffix.lower())
            self.layout.files[image] = data[: len(data) - 90]


def two_folders(d: Drawing) -> None:
    """`images/N`, `masks/N`; optionally with the word in the names or different padding."""
    shape = d.pick(["{n}", "{n}", "{w}_{n}", "{n}_{w}", "only mask", "padded"])
    for index in range(d.count):
        name = d.name(index)
        image, mask = name, name
        if shape == "only mask":
            mask = f"{name}_{d.mask_word}"
        elif shape == "padded":
            sign = "_" if d.image_word[-1].isdigit() else ""
            image, mask = (f"{d.image_word}{sign}{index + 8:0{width}d}" for width in (1, 4))
        elif shape != "{n}":
            image = shape.format(n=name, w=d.image_word)
            mask = shape.format(n=name, w=d.mask_word)
        d.pair(index, f"{d.image_word}/{image}{d.image_type}", f"{d.mask_word}/{mask}{d.mask_type}")


def split_folders(d: Drawing) -> None:
    """Separate training and validation folders, above or below image and mask folders."""
    shape = d.pick(["{s}/{k}/{n}", "{k}/{s}/{n}", "{s}_{k}/{n}", "{k}_{s}/{n}"])
    for index in range(d.count):
        split = "train" if index < d.count - 2 else "val"
        image, mask = (
            shape.format(s=split, k=kind, n=d.name(index)) for kind in (d.image_word, d.mask_word)
        )
        d.pair(index, image + d.image_type, mask + d.mask_type)


def flat(d: Drawing) -> None:
    """All files in one folder, distinguished by prefix, suffix or extension."""
    shape = d.pick(["{n}_{w}", "{w}_{n}", "{n}-{w}", "{n}.{w}", "only mask", "mask first", "type"])
    for index in range(d.count):
        name = d.name(index)
        image, mask = (shape.format(n=name, w=word) for word in (d.image_word, d.mask_word))
        if shape == "only mask":
            image, mask = name, f"{name}_{d.mask_word}"
        elif shape == "mask first":
            image, mask = name, f"{d.mask_word}_{name}"
        elif shape == "type":
            d.image_type, d.mask_type = ".jpg", ".png"
            image = mask = name
        d.pair(index, image + d.image_type, mask + d.mask_type)


def folders(d: Drawing) -> None:
    """One folder per image, with the same names inside."""
    inner = d.pick(["{n}/{i}|{n}/{m}", "{n}/{i}/{n}|{n}/{m}/{n}", "{n}/{i}/1|{n}/{m}/1",
                    "{n}/{n}|{n}/{n}_{m}"])  # fmt: skip
    for index in range(d.count):
        image, mask = (
            side.format(n=d.name(index), i=d.image_word, m=d.mask_word) for side in inner.split("|")
        )
        d.pair(index, image + d.image_type, mask + d.mask_type)


def object_folders(d: Drawing) -> None:
    """One file per object, in a folder next to the image or named after it."""
    shape = d.pick(["{n}/{i}/{n}|{n}/{m}/", "{i}/{n}|{m}/{n}/"])
    for index in range(d.count):
        name = d.name(index)
        image, folder = (
            side.format(n=name, i=d.image_word, m=d.mask_word) for side in shape.split("|")
        )
        digest = f"{(index + 3) * 7_919_117:x}"
        add_objects(d, index, image, lambda k, f=folder, h=digest: f"{f}{h}{k}")


def flat_objects(d: Drawing) -> None:
    """One file per object, with its number after the name of the image."""
    word = d.pick(OBJECT_WORDS)
    folder = d.pick([("", ""), (f"{d.image_word}/", f"{d.mask_word}/")])
    for index in range(d.count):
        name = d.name(index)
        mask = f"{folder[1]}{name}{word}"
        add_objects(d, index, folder[0] + name, lambda k, mask=mask: f"{mask}{k}")


def add_objects(d: Drawing, index: int, image: str, path_of: Callable[[int], str]) -> None:
    pixels, instances = scene(1000 * d.seed + index)
    numbers = range(1, int(instances.max()) + 1)
    masks = [
        d.put(path_of(k) + d.mask_type, ((instances == k) * 255).astype(np.uint8)) for k in numbers
    ]
    d.layout.pairs[d.put(image + d.image_type, pixels)] = tuple(sorted(masks))


def class_files(d: Drawing) -> None:
    """One file per class, next to the image or in separate folders."""
    words = d.pick(CLASS_WORDS)
    shape = d.pick(["{i}/{n}|{m}/{n}_{c}", "{n}|{n}_{c}", "{i}/{n}|{m}/{c}/{n}", "{i}/{n}|{c}/{n}"])
    for index in range(d.count):
        pixels, instances = scene(1000 * d.seed + index)
        parts = {"i": d.image_word, "m": d.mask_word, "n": d.name(index)}
        image = d.put(shape.split("|")[0].format(**parts) + d.image_type, pixels)
        masks = []
        for number, word in enumerate(words):
            area = (instances > 0) & (instances % len(words) == number)
            path = shape.split("|")[1].format(c=word, **parts) + ".png"
            masks.append(d.put(path, (area * 255).astype(np.uint8)))
        d.layout.pairs[image] = tuple(sorted(masks))


def text_labels(d: Drawing) -> None:
    """One label per pixel, as text."""
    separator = d.pick([" ", ",", "\t"])
    shape = d.pick(["{i}/{n}|{m}/{n}", "{n}|{n}", "{n}|{n}_{m}"])
    suffix = d.pick([".txt", ".csv"])
    for index in range(d.count):
        pixels, instances = scene(1000 * d.seed + index)
        image, mask = (
            side.format(n=d.name(index), i=d.image_word, m=d.mask_word) for side in shape.split("|")
        )
        rows = [separator.join(map(str, row)) for row in (instances > 0).astype(int)]
        path = d.put(image + d.image_type, pixels)
        d.layout.pairs[path] = (d.put(mask + suffix, "\n".join(rows).encode()),)


def panels(d: Drawing) -> None:
    """Image and mask side by side in one file."""
    for index in range(d.count):
        pixels, instances = scene(1000 * d.seed + index)
        mask = np.repeat(as_mask(instances)[..., None], 3, axis=2)
        both = np.concatenate([pixels, mask], axis=1)
        path = d.put(f"{d.image_word}/{d.name(index)}.png", both)
        d.layout.pairs[path] = (path,)


KINDS: dict[str, Callable[[Drawing], None]] = {
    "two folders": two_folders, "two folders, too": two_folders, "splits": split_folders,
    "flat": flat, "flat, too": flat, "folders": folders, "object folders": object_folders,
    "flat objects": flat_objects, "class files": class_files, "text": text_labels,
    "panels": panels,
}  # fmt: skip


def draw_layout(seed: int) -> Layout:
    """The layout of a seed."""
    return Drawing(seed).draw()
