"""The small files of other tools' folders, read with care: JSON, lists of images, splits."""

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from dataset_rules.artifacts.dataset import DatasetClass, Split
from dataset_rules.exchange.layout import EXPORT
from dataset_rules.ground.errors import RulesError
from dataset_rules.pairing.keywords import words_of
from dataset_rules.pixels.images import IMAGE_SUFFIXES

SPLIT_WORDS = {
    "train": Split.TRAIN, "training": Split.TRAIN, "val": Split.VAL, "valid": Split.VAL,
    "validation": Split.VAL, "test": Split.TEST, "testing": Split.TEST,
}  # fmt: skip


def read_json(folder: Path, path: str) -> Any:
    """The JSON in a file; raises `RulesError` where it is none."""
    try:
        return json.loads((folder / path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise RulesError(
            "the file is no valid JSON", where=str(folder / path), found=str(error)[:200]
        ) from error


def text_of(item: Mapping[str, Any], key: str, where: str) -> str:
    """A text of an entry; raises `RulesError` where it is absent or something else."""
    value = item.get(key)
    if isinstance(value, str) and value:
        return value
    raise RulesError(f'an entry has no "{key}"', where=where, found=json.dumps(item)[:80])


def split_in(path: str) -> Split | None:
    """The split that a path names last, None without one.

    >>> split_in("annotations/instances_val2017.json")
    <Split.VAL: 'val'>
    """
    named = [SPLIT_WORDS[word] for word in words_of(path) if word in SPLIT_WORDS]
    return named[-1] if named else None


def is_image(path: str) -> bool:
    """True for a file whose name is an image's."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def found_images(paths: Sequence[str], names: Sequence[str], split: Split | None) -> dict[str, str]:
    """Name in a list -> path of the one image whose path ends in it; absent ones are left out.

    Of several that fit, the one in a folder of the list's split is taken.

    Raises:
        RulesError: if several images fit a name.
    """
    ending: dict[str, list[str]] = defaultdict(list)
    for path in filter(is_image, paths):
        ending[path.rpartition("/")[2]].append(path)
    found = {}
    for name in names:
        wanted = name.replace("\\", "/").removeprefix("./").lstrip("/")
        fitting = [
            path for path in ending[wanted.rpartition("/")[2]] if f"/{path}".endswith(f"/{wanted}")
        ]
        if len(fitting) > 1:
            fitting = [p for p in fitting if split_in(p) is split] or fitting
        if len(fitting) > 1:
            raise RulesError(
                f"several images fit the listed name {name}", found=", ".join(fitting[:5]),
                remedy="leave the others out by source.exclude in the rules",
            )  # fmt: skip
        if fitting:
            found[name] = fitting[0]
    return found


def stated_classes(folder: Path) -> tuple[DatasetClass, ...] | None:
    """Ids and names of the classes, where the folder is an export of ours that says them."""
    if not (folder / EXPORT).is_file():
        return None
    document = read_json(folder, EXPORT)
    try:
        return tuple(DatasetClass.model_validate(known) for known in document["classes"])
    except (ValueError, KeyError, TypeError) as error:
        raise RulesError(
            "the classes in it are damaged", where=str(folder / EXPORT),
            remedy="delete the file: the classes are then numbered anew",
        ) from error  # fmt: skip
