"""One pair of the source -> its files in the dataset."""

from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import cv2
import numpy as np

from dataset_rules.dataset import Sample, SampleImage, SampleMask, Split
from dataset_rules.disk import write_file
from dataset_rules.errors import RulesError
from dataset_rules.files import Files
from dataset_rules.findings import Finding, Severity
from dataset_rules.fit import Part, fitted, scaled_as, shrunk_size
from dataset_rules.glimpse import glimpse_of, mask_glimpse_of
from dataset_rules.images import Header, Pixels, encode, pixel_hash, read_header, read_image
from dataset_rules.masks import DecodedMask, decode_masks
from dataset_rules.observed import Seen, see_through_among
from dataset_rules.panel import panel_of
from dataset_rules.parts import Panel
from dataset_rules.rules import Document, Rules

SHALLOW = {"jpg", "bmp"}  # formats that hold 8 bits


@dataclass(frozen=True)
class Task:
    """A pair, and where in the dataset it goes."""

    name: str
    split: Split
    group: str
    image: str
    masks: tuple[str, ...]
    class_ids: tuple[int | None, ...]


@dataclass(frozen=True)
class _Written:
    """SHA-256 of a file's content, as `content_hash` has it, and of its bytes."""

    content: str
    stored: str


class Outcome(Document):
    """What a task made: samples (several with tiles), the hash of each file, what was seen."""

    samples: tuple[Sample, ...]
    content: dict[str, str]
    written: dict[str, str]  # SHA-256 of the bytes of each file: a power cut may tear it
    findings: tuple[Finding, ...] = ()
    seen: Seen | None = None
    see_through: tuple[str, ...] = ()  # files with alpha that is not opaque


def make_sample(source: Files, out: Path, task: Task, rules: Rules) -> Outcome:
    """Read a pair, bring it into the form of the rules and write its files.

    Raises:
        RulesError: if a file is damaged, sizes differ or a mask holds values of no class.
    """
    if rules.source.panel is not None:
        return _sample_of_panels(source, out, task, rules, rules.source.panel)
    file = source / task.image
    header = read_header(file)
    # Otsu's threshold is that of all pixels.
    shrinks_to_px = None if rules.color_model == "binary" else shrunk_size(header.size_px, rules)
    image = read_image(file, shrinks_to_px=shrinks_to_px, header=header)
    masks = [source / path for path in task.masks]
    decoded = decode_masks(masks, task.class_ids, rules)
    outcome = write_sample(source, out, task, rules, image=image, decoded=decoded, header=header)
    headers = {task.image: header, **{path: read_header(source / path) for path in task.masks}}
    through = see_through_among(source, headers)
    return outcome.model_copy(update={"see_through": through})


def _sample_of_panels(source: Files, out: Path, task: Task, rules: Rules, panel: Panel) -> Outcome:
    """As `make_sample`, of a file that holds image and mask side by side."""
    composite = source / task.image
    image = panel_of(read_image(composite), panel, panel.image)
    decoded = decode_masks([composite], task.class_ids, rules)
    header = read_header(composite)
    outcome = write_sample(source, out, task, rules, image=image, decoded=decoded)
    through = see_through_among(source, {task.image: header})
    return outcome.model_copy(update={"see_through": through})


def write_sample(
    source: Files,
    out: Path,
    task: Task,
    rules: Rules,
    *,
    image: Pixels,
    decoded: DecodedMask,
    pixel_size_um: float | None = None,
    header: Header | None = None,
) -> Outcome:
    """Bring an image and its masks into the form of the rules and write the files.

    Args:
        source: where the image lies.
        out: of the dataset.
        task: names and places.
        rules: the form.
        image: HW or HW3, uint8 or uint16.
        decoded: its masks.
        pixel_size_um: as a document states it; None: as the image file states it.
        header: of the image file, where it was read already; the image may be decoded smaller.

    Raises:
        RulesError: if the sizes differ.
    """
    size_px = header.size_px if header else image.shape[:2]
    if size_px != decoded.label.shape:
        raise RulesError(
            "image and mask differ in size", where=str(source / task.image),
            expected="{} x {}".format(*size_px),
            found="{} x {} in {}".format(*decoded.label.shape, task.masks[0]),
            remedy="list the pair in source.exclude or correct it",
        )  # fmt: skip
    toned, threshold = in_color_model(image, rules)
    parts = fitted(Part(toned, decoded.label, decoded.instances), rules)
    header = header or read_header(source / task.image)
    size_um = pixel_size_um or header.pixel_size_um
    made = [_write(out, part, task, rules, threshold, size_um) for part in parts]
    return Outcome(
        samples=tuple(sample for sample, _ in made),
        content={path: file.content for _, files in made for path, file in files.items()},
        written={path: file.stored for _, files in made for path, file in files.items()},
        findings=tuple(_findings(task, decoded, image, rules)),
        seen=_seen(image, decoded, parts, made),
    )


def _seen(
    image: Pixels,
    decoded: DecodedMask,
    parts: Sequence[Part],
    made: Sequence[tuple[Sample, dict[str, _Written]]],
) -> Seen:
    """The pair seen small; of a single part the pixels are fewer and their hash is known."""
    if len(parts) == 1:
        (sample, files), part = made[0], parts[0]
        glimpse = glimpse_of(part.image, files[sample.image.path].content)
        return Seen(image=glimpse, mask=mask_glimpse_of(part.label))
    return Seen(image=glimpse_of(image), mask=mask_glimpse_of(decoded.label))


def in_color_model(
    image: Pixels, rules: Rules, *, span: tuple[int, int] | None = None
) -> tuple[Pixels, int | None]:
    """The image as RGB (HW3) or grey (HW), and the threshold that `binary` will cut it at.

    It is cut by `binarized` once it has its size: what is resized after that is no longer binary.
    """
    image = in_depth(image, rules, span=span)
    if rules.color_model == "rgb":
        return (image if image.ndim == 3 else np.repeat(image[..., None], 3, axis=2)), None
    gray = image if image.ndim == 2 else np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))
    if rules.color_model == "grayscale":
        return gray, None
    threshold, _ = cv2.threshold(gray, 0, 255, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return gray, int(threshold)


def in_depth(image: Pixels, rules: Rules, *, span: tuple[int, int] | None = None) -> Pixels:
    """The image with the bits that the rules ask for; one of 8 bits stays as it is.

    Args:
        image: HW or HWC.
        rules: of the dataset.
        span: lowest and highest value, of the image where absent.
    """
    is_kept = rules.image_format not in SHALLOW and rules.color_model != "binary"
    if image.dtype != np.uint16 or (is_kept and rules.depth in {None, "keep"}):
        return image
    if rules.depth != "range":
        return ((image.astype(np.uint32) + 128) // 257).astype(np.uint8)
    low, high = span or (int(image.min()), int(image.max()))
    range_ = max(1, high - low)
    return (((image.astype(np.uint32) - low) * 255 + range_ // 2) // range_).astype(np.uint8)


def binarized(image: Pixels, threshold: int | None) -> Pixels:
    """0 and 255 by the threshold (above it is 255); the image itself without one."""
    return image if threshold is None else np.where(image > threshold, 255, 0).astype(np.uint8)


def as_in_dataset(image: Pixels, rules: Rules) -> Pixels:
    """A new image in the colours and at the scale of the dataset's images, the whole of it."""
    toned, threshold = in_color_model(image, rules)
    return binarized(scaled_as(toned, rules), threshold)


@dataclass(frozen=True)
class Place:
    """Where the files of a sample lie in the dataset."""

    image: str
    mask: str
    instances: str


def place_of(name: str, split: Split, rules: Rules) -> Place:
    """Paths of a sample's files by the layout of the rules."""
    image, mask = f"{name}.{rules.image_format}", f"{name}{rules.mask_keyword}.png"
    instances = f"instances/{name}.png"
    if rules.layout == "together":
        return Place(f"{split}/{image}", f"{split}/{mask}", instances)
    return Place(f"{split}/images/{image}", f"{split}/masks/{mask}", instances)


def _write(
    out: Path, part: Part, task: Task, rules: Rules, threshold: int | None, size_um: float | None
) -> tuple[Sample, dict[str, _Written]]:
    name = task.name + part.suffix
    place = place_of(name, task.split, rules)
    files = {place.image: binarized(part.image, threshold), place.mask: part.label}
    if part.instances is not None:
        files[place.instances] = part.instances
    sample = Sample(
        name=name,
        split=task.split,
        group=task.group,
        image=SampleImage(path=place.image, source=task.image, threshold=threshold),
        mask=SampleMask(path=place.mask, sources=task.masks),
        instances=place.instances if part.instances is not None else None,
        pixel_size_um=size_um * part.scale if size_um and part.scale else None,
    )
    return sample, {path: _write_pixels(out / path, pixels) for path, pixels in files.items()}


def _write_pixels(path: Path, pixels: Pixels) -> _Written:
    """Write a file, and hash what a reader will see. It is flushed when the dataset is sealed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = encode(pixels, path.suffix)
    write_file(path, data, flush=False)
    # Of PNG the pixels themselves come back; the other formats lose some or turn grey to colour.
    seen = pixels if path.suffix == ".png" else read_image(path)
    return _Written(pixel_hash(seen), sha256(data).hexdigest())


def _findings(task: Task, decoded: DecodedMask, image: Pixels, rules: Rules) -> list[Finding]:
    paths = (task.image,)
    found = []
    if decoded.overlap_px:
        found.append(
            _note("overlaps", paths, f"objects overlap in {decoded.overlap_px} px: the later wins")
        )
    if decoded.empty_files:
        found.append(_note("empty_objects", paths, f"{decoded.empty_files} object files are empty"))
    if image.dtype == np.uint16 and in_depth(image[:1, :1], rules).dtype == np.uint8:
        how = (
            "each image's lowest value became 0, its highest 255"
            if rules.depth == "range" else "16 bits were divided by 257 to fit 8"
        )  # fmt: skip
        found.append(_note("depth_reduced", paths, how))
    return found


def _note(code: str, paths: tuple[str, ...], message: str) -> Finding:
    return Finding(code=code, severity=Severity.INFO, paths=paths, message=message)
