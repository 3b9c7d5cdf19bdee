"""COCO: one image folder per split, run-length masks in `annotations/instances_SPLIT.json`.

COCO has no ignored pixels. They are exported as objects of category 255 `ignore` with `iscrowd`
1, and any crowd is imported as ignored. `object_number` keeps the numbers of the instance map.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from dataset_rules.artifacts.dataset import IGNORE, Dataset, DatasetClass, Split
from dataset_rules.artifacts.manifest import MANIFEST, PROVENANCE
from dataset_rules.exchange.layout import (
    EXPORT,
    ExportedSample,
    ExportFile,
    ExportSummary,
    ForeignDataset,
    ImportedSample,
    foreground,
    with_background,
)
from dataset_rules.exchange.objects import Canvas, Object, objects_in
from dataset_rules.exchange.run_lengths import box_of, packed, unpacked
from dataset_rules.exchange.sidecars import found_images, read_json, split_in, text_of
from dataset_rules.ground.documents import canonical_json
from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.findings import Finding, Severity, counted
from dataset_rules.masks.decode import DecodedMask

IGNORED = {"id": IGNORE, "name": "ignore", "supercategory": "ignore"}
PARTS = ("images", "annotations", "categories")
MAX_CLASSES = 254  # class ids of a label mask without background and ignore


class CocoExporter:
    """Files of a COCO export."""

    def __init__(self, dataset: Dataset) -> None:
        self.summary = ExportSummary()
        self._classes = foreground(dataset.classes)
        self._images: dict[Split, list[bytes]] = defaultdict(list)
        self._objects: dict[Split, list[bytes]] = defaultdict(list)
        self._count = 0

    def sample(self, exported: ExportedSample) -> Iterator[ExportFile]:
        """The unchanged image."""
        sample = exported.sample
        height, width = exported.label.shape
        name = f"{sample.name}{exported.image.suffix}"
        number = sum(map(len, self._images.values())) + 1
        entry = {
            "id": number, "file_name": name, "height": height, "width": width,
            "group": sample.group, "pixel_size_um": sample.pixel_size_um,
        }  # fmt: skip
        self._images[sample.split].append(canonical_json(entry))
        self._objects[sample.split] += self._annotations(exported, number)
        yield ExportFile(f"{sample.split}/{name}", exported.image)

    def _annotations(self, exported: ExportedSample, image: int) -> Iterator[bytes]:
        height, width = exported.label.shape
        for item in objects_in(exported.label, exported.instances):
            self._count += 1
            is_ignored = item.class_id == IGNORE
            self.summary.add("ignored_px" if is_ignored else "objects",
                             len(item.rows) if is_ignored else 1)  # fmt: skip
            counts = packed(item.rows, item.columns, height, width)
            yield canonical_json({
                "id": self._count, "image_id": image, "category_id": item.class_id,
                "segmentation": {"size": [height, width], "counts": counts},
                "area": len(item.rows), "bbox": box_of(item.rows, item.columns).tolist(),
                "iscrowd": int(is_ignored), "object_number": item.number,
            })  # fmt: skip
        self.summary.add("parts_as_objects", exported.instances is None)
        if exported.instances is not None:
            lost = (exported.instances > 0) & (exported.label == 0)
            self.summary.add("background_in_objects_px", lost.sum())

    def final_files(self) -> Iterator[ExportFile]:
        """One annotation file per split."""
        listed = [{"id": c.id, "name": c.name, "supercategory": ""} for c in self._classes]
        self.summary.note(
            "the dataset holds no objects: connected parts of each class became objects",
            where="parts_as_objects",
        )
        self.summary.note(
            "ignored pixels are objects of category 255 'ignore' with iscrowd 1", where="ignored_px"
        )
        self.summary.note(
            "pixels of objects that are background in the label mask are left out",
            where="background_in_objects_px",
        )
        categories = listed + [IGNORED] * bool(self.summary.facts.get("ignored_px"))
        for split, images in self._images.items():
            parts = {"images": images, "annotations": self._objects[split]}
            lists = b",\n".join(
                b'"%s": [\n%s\n]' % (name.encode(), b",\n".join(items))
                for name, items in parts.items()
            )
            head = b'"categories": ' + canonical_json(categories)
            yield ExportFile(
                f"annotations/instances_{split}.json", b"{" + head + b",\n" + lists + b"}\n"
            )


@dataclass(frozen=True)
class _Listed:
    """An annotation file."""

    path: str
    images: Sequence[Mapping[str, Any]]
    objects: Mapping[Any, Sequence[Mapping[str, Any]]]  # by image id
    classes: Mapping[Any, str]


def read_coco(folder: Path, paths: Sequence[str]) -> ForeignDataset:
    """All images listed in the annotation files of a folder.

    Raises:
        RulesError: if there is no annotation file, or one is damaged.
    """
    documents = {path: read_json(folder, path) for path in paths if _may_list(path)}
    lists = [_listed(path, d) for path, d in documents.items() if _is_list(d)]
    if not lists:
        raise RulesError(
            "no COCO annotations here", where=str(folder),
            expected='a JSON file with "images", "annotations" and "categories"',
            remedy="specify the folder that contains both the images and the annotations",
        )  # fmt: skip
    ids = _class_ids(lists)
    classes = {ids[key]: name for each in lists for key, name in each.classes.items() if key in ids}
    has_objects = any(
        item.get("object_number", 1) and not item.get("iscrowd")
        for each in lists for items in each.objects.values() for item in items
    )  # fmt: skip
    found: dict[str, ImportedSample] = {}
    absent: list[str] = []
    for each in lists:
        names = [text_of(image, "file_name", each.path) for image in each.images]
        located = found_images(paths, names, split_in(each.path))
        for image in each.images:
            path = located.get(image["file_name"])
            if path is None:
                absent.append(image["file_name"])
                continue
            _check_unique(found.get(path), path, each.path)
            items = each.objects.get(image.get("id"), ())
            found[path] = _imported_sample(each.path, image, path, partial(
                _decode, items=items, ids=ids, where=each.path, image=image["file_name"],
                has_objects=has_objects,
            ))  # fmt: skip
    return ForeignDataset(
        samples=tuple(found.values()),
        classes=with_background([DatasetClass(id=i, name=n) for i, n in classes.items()]),
        metadata_files=tuple(each.path for each in lists),
        findings=tuple(_findings(lists, absent)),
    )


def _may_list(path: str) -> bool:
    return path.endswith(".json") and path.rpartition("/")[2] not in {EXPORT, MANIFEST, PROVENANCE}


def _is_list(document: Any) -> bool:
    """True for object annotations; caption files have no categories."""
    return isinstance(document, dict) and set(PARTS) <= document.keys()


def _listed(path: str, document: Mapping[str, Any]) -> _Listed:
    parts = {name: document[name] for name in PARTS}
    for name, items in parts.items():
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            raise RulesError(
                f'"{name}" is not a list of objects', where=path, expected="COCO format"
            )
    objects: dict[Any, list[Mapping[str, Any]]] = defaultdict(list)
    for item in parts["annotations"]:
        objects[_id_of(item, "image_id", path)].append(item)
    unknown = objects.keys() - {_id_of(image, "id", path) for image in parts["images"]}
    if unknown:
        raise RulesError(
            "annotations belong to images that are not listed", where=path,
            found="image_id " + ", ".join(sorted(map(str, unknown))[:10]),
        )  # fmt: skip
    classes = {
        _id_of(category, "id", path): text_of(category, "name", path)
        for category in parts["categories"]
    }
    return _Listed(path, parts["images"], objects, classes)


def _id_of(item: Mapping[str, Any], key: str, where: str) -> int | str:
    value = item.get(key)
    if isinstance(value, int | str):
        return value
    raise RulesError(
        f'an entry has no "{key}"', where=where, found=json.dumps(item)[:80], expected="COCO format"
    )


def _class_ids(lists: Sequence[_Listed]) -> dict[Any, int]:
    """Category -> class id: kept if all are valid ids, else numbered in category order."""
    named: dict[Any, str] = {}
    for each in lists:
        for key, name in each.classes.items():
            if named.setdefault(key, name) != name:
                raise RulesError(
                    "a category has two names", where=each.path, expected=named[key], found=name,
                    remedy="exclude one annotation file by source.exclude in the rules",
                )  # fmt: skip
    keys = sorted((k for k in named if (k, named[k]) != (IGNORE, "ignore")), key=_by_number)
    if len(keys) > MAX_CLASSES:
        raise RulesError(
            "too many categories", where=lists[0].path, expected=f"at most {MAX_CLASSES}",
            found=str(len(keys)),
        )  # fmt: skip
    if all(isinstance(key, int) and 1 <= key <= MAX_CLASSES for key in keys):
        return {key: key for key in keys}
    return {key: number for number, key in enumerate(keys, start=1)}


def _by_number(key: Any) -> tuple[int, str]:
    return (key, "") if isinstance(key, int) else (0, key)


def _check_unique(earlier: ImportedSample | None, path: str, where: str) -> None:
    if earlier is not None:
        raise RulesError(
            f"two entries describe {path}", where=where, found=f"also in {earlier.masks[0]}",
            remedy="exclude one annotation file by source.exclude in the rules",
        )  # fmt: skip


def _imported_sample(
    where: str, image: Mapping[str, Any], path: str, decode: "partial[DecodedMask]"
) -> ImportedSample:
    group, size_um = image.get("group"), image.get("pixel_size_um")
    is_size = isinstance(size_um, int | float) and not isinstance(size_um, bool) and size_um > 0
    return ImportedSample(
        title=path, image=path, masks=(where,), split=split_in(where), decode=decode,
        group=group if isinstance(group, str) and group else None,
        pixel_size_um=float(size_um) if is_size and size_um is not None else None,
    )  # fmt: skip


def _decode(
    height: int,
    width: int,
    *,
    items: Sequence[Mapping[str, Any]],
    ids: Mapping[Any, int],
    where: str,
    image: str,
    has_objects: bool,
) -> DecodedMask:
    canvas = Canvas(height, width)
    for count, item in enumerate(items, start=1):
        place = f"{where}, annotation {item.get('id')} of {image}"
        category = item.get("category_id")
        number = item.get("object_number", 0 if item.get("iscrowd") else count)
        if category not in ids and not item.get("iscrowd"):
            raise RulesError("the category is not listed", where=place, found=repr(category))
        if not isinstance(number, int) or number < 0:
            raise RulesError("object_number is not a number", where=place, found=repr(number)[:40])
        try:
            rows, columns = unpacked(item.get("segmentation"), height, width)
            class_id = IGNORE if item.get("iscrowd") else ids[category]
            canvas.paint(Object(number, class_id, rows, columns))
        except RulesError as error:
            raise RulesError(error.what, where=place, expected=error.expected,
                             found=error.found) from error  # fmt: skip
    return canvas.decoded(has_objects=has_objects)


def _findings(lists: Sequence[_Listed], absent: Sequence[str]) -> Iterator[Finding]:
    if absent:
        yield Finding(
            code="absent_images", severity=Severity.WARNING, paths=tuple(sorted(absent)),
            message=f"{counted(len(absent), 'listed image')} not found in the folder and left out",
            remedy="bring the images, or take the entries out of the annotations",
        )  # fmt: skip
    crowds = sum(
        bool(item.get("iscrowd")) and item.get("category_id") != IGNORE
        for each in lists for items in each.objects.values() for item in items
    )  # fmt: skip
    if crowds:
        yield Finding(
            code="crowds_ignored", severity=Severity.INFO,
            message=f"{counted(crowds, 'crowd')} (iscrowd 1) became ignored pixels",
        )  # fmt: skip
