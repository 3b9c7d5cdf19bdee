"""Read the metadata files in other tools' folders defensively: JSON, image lists, splits."""

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
    """The JSON in a file; raises `RulesError` if it is invalid."""
    try:
        return json.loads((folder / path).read_bytes())
    except (ValueError, RecursionError) as error:
        raise RulesError(
            "the file is not valid JSON", where=str(folder / path), found=str(error)[:200]
        ) from error


def text_of(item: Mapping[str, Any], key: str, where: str) -> str:
    """A nonempty string of an entry; raises `RulesError` if it is missing or not a string."""
    value = item.get(key)
    if isinstance(value, str) and value:
        return value
    raise RulesError(f'an entry has no "{key}"', where=where, found=json.dumps(item)[:80])


def split_in(path: str) -> Split | None:
    """The split given by the last split word in a path, None without one.

    >>> split_in("annotations/instances_val2017.json")
    <Split.VAL: 'val'>
    """
    named = [SPLIT_WORDS[word] for word in words_of(path) if word in SPLIT_WORDS]
    return named[-1] if named else None


def is_image(path: str) -> bool:
    """True for a file with an image suffix."""
    return PurePosixPath(path).suffix.lower() in IMAGE_SUFFIXES


def found_images(paths: Sequence[str], names: Sequence[str], split: Split | None) -> dict[str, str]:
    """Listed name -> path of the one image whose path ends in it; missing ones are omitted.

    If several match, the one in a folder of the list's split is used.

    Raises:
        RulesError: if several images match a name.
    """
    by_file_name: dict[str, list[str]] = defaultdict(list)
    for path in filter(is_image, paths):
        by_file_name[path.rpartition("/")[2]].append(path)
    found = {}
    for name in names:
        wanted = name.replace("\\", "/").removeprefix("./").lstrip("/")
        matches = [
            path
            for path in by_file_name[wanted.rpartition("/")[2]]
            if f"/{path}".endswith(f"/{wanted}")
        ]
        if len(matches) > 1:
            matches = [p for p in matches if split_in(p) is split] or matches
        if len(matches) > 1:
            raise RulesError(
                f"several images match the listed name {name}", found=", ".join(matches[:5]),
                remedy="exclude the others by source.exclude in the rules",
            )  # fmt: skip
        if matches:
            found[name] = matches[0]
    return found


def exported_classes(folder: Path) -> tuple[DatasetClass, ...] | None:
    """Ids and names of the classes if the folder is one of our exports, else None."""
    if not (folder / EXPORT).is_file():
        return None
    document = read_json(folder, EXPORT)
    try:
        return tuple(DatasetClass.model_validate(item) for item in document["classes"])
    except (ValueError, KeyError, TypeError) as error:
        raise RulesError(
            "the classes in the file are invalid", where=str(folder / EXPORT),
            remedy="delete the file to have the classes renumbered",
        ) from error  # fmt: skip
