"""The headers of all image files of a source, and which files have none."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.parallel import each
from dataset_rules.pixels.images import Header, read_header, read_image
from dataset_rules.sources.files import Files

_BLOCK = 256  # files that a thread takes at once: a header takes it 50 us


@dataclass(frozen=True)
class Survey:
    """Headers of the files that have one, and what is wrong with the others."""

    headers: Mapping[str, Header]
    damage: Mapping[str, str]

    def among(self, paths: Iterable[str]) -> list[tuple[str, Header]]:
        """The paths that have a header, with it."""
        return [(path, self.headers[path]) for path in paths if path in self.headers]


def survey_of(files: Files, paths: Sequence[str]) -> Survey:
    """Read the header of every file; those that seem cut short are decoded to be sure."""

    def surveyed(block: Sequence[str]) -> list[Header | str]:
        return [_surveyed(files, path) for path in block]

    headers: dict[str, Header] = {}
    damage: dict[str, str] = {}
    equal: dict[Header, Header] = {}  # most are: 100,000 of them would take 30 MB
    blocks = [paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK)]
    for block, found in zip(blocks, each(surveyed, blocks), strict=True):
        for path, seen in zip(block, found, strict=True):
            if isinstance(seen, str):
                damage[path] = seen
            else:
                headers[path] = equal.setdefault(seen, seen)
    return Survey(headers, damage)


def _surveyed(files: Files, path: str) -> Header | str:
    try:
        file = files / path
        header = read_header(file)
        if header.is_cut_short and header.pages == 1:
            read_image(file)
    except RulesError as error:
        return told(error)
    return header


def told(error: RulesError) -> str:
    """What is wrong with a file, without its place."""
    return error.what + (f": {error.found}" if error.found else "")


def sample_of(paths: Sequence[str], count: int) -> list[str]:
    """At most `count` paths, chosen by their hash, so that another file hardly matters."""
    if len(paths) <= count:
        return list(paths)
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())[:count]
