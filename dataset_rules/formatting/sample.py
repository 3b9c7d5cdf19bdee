"""One pair of the source -> its files in the dataset."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import numpy as np

from dataset_rules.artifacts.dataset import Sample, SampleImage, SampleMask, Split
from dataset_rules.checks.pixel_scan import Outcome, PairThumbnails, transparent_files
from dataset_rules.checks.thumbnails import image_thumbnail, mask_thumbnail
from dataset_rules.formatting.image_form import binarized, in_color_model, in_depth
from dataset_rules.formatting.resize import Part, fitted, shrunk_size
from dataset_rules.ground.disk import WRITING_BYTES, write_file
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.masks.decode import DecodedMask, decode_masks
from dataset_rules.pixels.images import Header, Pixels, encode, pixel_hash, read_header, read_image
from dataset_rules.pixels.values import crop_panel
from dataset_rules.rules.fields import Panel
from dataset_rules.rules.rules import Rules
from dataset_rules.sources.files import Files
from dataset_rules.sources.limits import MAX_NAME_BYTES


@dataclass(frozen=True)
class Task:
    """A pair and its destination in the dataset."""

    name: str
    split: Split
    group: str
    image: str
    masks: tuple[str, ...]
    class_ids: tuple[int | None, ...]


@dataclass(frozen=True)
class _Written:
    """SHA-256 of a file's content (as in `content_hash`) and of its bytes."""

    content: str
    stored: str


def make_sample(source: Files, out: Path, task: Task, rules: Rules) -> Outcome:
    """Read a pair, convert it by the rules and write its files.

    Raises:
        RulesError: if a file is damaged, sizes differ or a mask value belongs to no class.
    """
    if rules.source.panel is not None:
        return _sample_of_panels(source, out, task, rules, rules.source.panel)
    file = source / task.image
    header = read_header(file)
    # Otsu's threshold needs all pixels.
    shrinks_to_px = None if rules.color_model == "binary" else shrunk_size(header.size_px, rules)
    image = read_image(file, shrinks_to_px=shrinks_to_px, header=header)
    masks = [source / path for path in task.masks]
    decoded = decode_masks(masks, task.class_ids, rules)
    outcome = write_sample(source, out, task, rules, image=image, decoded=decoded, header=header)
    headers = {task.image: header, **{path: read_header(source / path) for path in task.masks}}
    transparent = transparent_files(source, headers)
    return outcome.model_copy(update={"see_through": transparent})


def _sample_of_panels(source: Files, out: Path, task: Task, rules: Rules, panel: Panel) -> Outcome:
    """Like `make_sample`, for a file with image and mask side by side."""
    composite = source / task.image
    image = crop_panel(read_image(composite), panel, panel.image)
    decoded = decode_masks([composite], task.class_ids, rules)
    header = read_header(composite)
    outcome = write_sample(source, out, task, rules, image=image, decoded=decoded)
    transparent = transparent_files(source, {task.image: header})
    return outcome.model_copy(update={"see_through": transparent})


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
    """Convert an image and its masks by the rules and write the files.

    Args:
        source: files of the source.
        out: the dataset's folder.
        task: names and paths.
        rules: of the dataset.
        image: HW or HW3, uint8 or uint16.
        decoded: its masks.
        pixel_size_um: from a document; None uses that of the image file.
        header: of the image file, if already read; the image may be decoded at a smaller size.

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
    written = [_write(out, part, task, rules, threshold, size_um) for part in parts]
    return Outcome(
        samples=tuple(sample for sample, _ in written),
        content={path: file.content for _, files in written for path, file in files.items()},
        written={path: file.stored for _, files in written for path, file in files.items()},
        findings=tuple(_findings(task, decoded, image, rules)),
        seen=_thumbnails(image, decoded, parts, written),
    )


def _thumbnails(
    image: Pixels,
    decoded: DecodedMask,
    parts: Sequence[Part],
    written: Sequence[tuple[Sample, dict[str, _Written]]],
) -> PairThumbnails:
    """Thumbnails of the pair; from the written part if it is the only one (smaller, hash known)."""
    if len(parts) == 1:
        (sample, files), part = written[0], parts[0]
        thumbnail = image_thumbnail(part.image, files[sample.image.path].content)
        return PairThumbnails(image=thumbnail, mask=mask_thumbnail(part.label))
    return PairThumbnails(image=image_thumbnail(image), mask=mask_thumbnail(decoded.label))


@dataclass(frozen=True)
class SamplePaths:
    """Paths of a sample's files in the dataset."""

    image: str
    mask: str
    instances: str


def sample_paths(name: str, split: Split, rules: Rules) -> SamplePaths:
    """Paths of a sample's files in the layout of the rules."""
    image, mask = f"{name}.{rules.image_format}", f"{name}{rules.mask_keyword}.png"
    instances = f"instances/{name}.png"
    if rules.layout == "together":
        return SamplePaths(f"{split}/{image}", f"{split}/{mask}", instances)
    return SamplePaths(f"{split}/images/{image}", f"{split}/masks/{mask}", instances)


def _write(
    out: Path, part: Part, task: Task, rules: Rules, threshold: int | None, size_um: float | None
) -> tuple[Sample, dict[str, _Written]]:
    name = task.name + part.suffix
    place = sample_paths(name, task.split, rules)
    files = {place.image: binarized(part.image, threshold), place.mask: part.label}
    if part.instances is not None:
        files[place.instances] = part.instances
    _refuse_long_names(files, task)
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


def _refuse_long_names(paths: Iterable[str], task: Task) -> None:
    """Names are joined of folders, file name and keyword, so each may fit and all together not."""
    longest = max(len(path.rpartition("/")[2].encode()) for path in paths)
    if longest > MAX_NAME_BYTES - WRITING_BYTES:
        raise RulesError(
            "its files in the dataset would have too long a name", where=task.image,
            expected=f"at most {MAX_NAME_BYTES - WRITING_BYTES} bytes in UTF-8",
            found=f"{longest} bytes", remedy="rename it, or choose a shorter mask_keyword",
        )  # fmt: skip


def _write_pixels(path: Path, pixels: Pixels) -> _Written:
    """Write a file and hash its decoded pixels. It is flushed when the dataset is sealed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = encode(pixels, path.suffix)
    write_file(path, data, flush=False)
    # PNG is lossless; other formats are lossy or turn grey into colour.
    decoded = pixels if path.suffix == ".png" else read_image(path)
    return _Written(pixel_hash(decoded), sha256(data).hexdigest())


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
