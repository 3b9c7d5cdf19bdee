"""Detect folders in COCO, nnU-Net, Cellpose or YOLO layout, which `import-dataset` reads."""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePosixPath

from dataset_rules.ground.findings import Finding, Severity
from dataset_rules.pixels.images import IMAGE_SUFFIXES
from dataset_rules.sources.files import Files
from dataset_rules.sources.inventory import Entry, Kind

MAX_DOCUMENTS = 20  # JSON files that are read
MAX_DOCUMENT_BYTES = 256 << 20
_ENDS_BYTES = 1 << 16  # read at the start and at the end of a document
_COCO_KEYS = re.compile(rb'"(images|annotations|categories)"\s*:\s*\[')
_NNUNET_KEYS = {"labels", "file_ending"}


def check_foreign_layouts(
    files: Files, entries: Sequence[Entry], *, is_read: bool
) -> list[Finding]:
    """One finding per layout of another tool in a source.

    Args:
        files: of the source.
        entries: of the source.
        is_read: masks were found, so the documents of another tool are not needed.
    """
    sizes = {e.path: e.size_bytes for e in entries if e.kind in {Kind.IMAGE, Kind.OTHER}}
    documents = [
        p for p, size in sizes.items() if p.endswith(".json") and size <= MAX_DOCUMENT_BYTES
    ]
    found = {
        tool: tuple(detect(files, sizes, documents[:MAX_DOCUMENTS]))
        for tool, detect in _DETECTORS.items()
    }
    return [_finding(tool, paths, is_read=is_read) for tool, paths in found.items() if paths]


def _finding(tool: str, paths: tuple[str, ...], *, is_read: bool) -> Finding:
    name = {"coco": "COCO", "nnunet": "nnU-Net", "cellpose": "Cellpose", "yolo": "YOLO"}[tool]
    return Finding(
        code="other_tool", severity=Severity.INFO if is_read else Severity.ERROR, paths=paths,
        message=f"the files lie as {name} reads them",
        remedy=f"`unetops import-dataset SRC OUT --from {tool}` makes a dataset of them, with "
        "their splits, classes and objects",
    )  # fmt: skip


def _coco(files: Files, _paths: Iterable[str], documents: Sequence[str]) -> Iterator[str]:
    for path in documents:
        keys = set(_COCO_KEYS.findall(_ends_of(files, path)))
        if len(keys) > 1:
            yield path


def _ends_of(files: Files, path: str) -> bytes:
    location = files / path
    with location.open("rb") as file:
        start = file.read(_ENDS_BYTES)
        file.seek(max(0, location.stat().st_size - _ENDS_BYTES))
        return start + file.read()


def _nnunet(files: Files, paths: Iterable[str], documents: Sequence[str]) -> Iterator[str]:
    folders = {path.rpartition("/")[0] for path in paths}
    for path in documents:
        folder, slash, name = path.rpartition("/")
        if name == "dataset.json" and f"{folder}{slash}imagesTr" in folders:
            try:
                document = json.loads((files / path).read_bytes())
            except (ValueError, RecursionError):
                continue
            if isinstance(document, dict) and document.keys() >= _NNUNET_KEYS:
                yield path


def _cellpose(_files: Files, paths: Iterable[str], _documents: Sequence[str]) -> Iterator[str]:
    stems = {_stem(path): path for path in paths if _suffix(path) in IMAGE_SUFFIXES}
    for stem, path in stems.items():
        if stem.endswith("_masks") and {stem[:-6], f"{stem[:-6]}_img"} & stems.keys():
            yield path


def _yolo(_files: Files, paths: Iterable[str], _documents: Sequence[str]) -> Iterator[str]:
    images = {_stem(path) for path in paths if _suffix(path) in IMAGE_SUFFIXES}
    texts = [_stem(path) for path in paths if _suffix(path) == ".txt" and "labels/" in path]
    if any("images/".join(stem.rsplit("labels/", 1)) in images for stem in texts):
        yield from (path for path in paths if _suffix(path) in {".yaml", ".yml"})


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


_DETECTORS: dict[str, Callable[[Files, Iterable[str], Sequence[str]], Iterator[str]]] = {
    "coco": _coco, "nnunet": _nnunet, "cellpose": _cellpose, "yolo": _yolo,
}  # fmt: skip
