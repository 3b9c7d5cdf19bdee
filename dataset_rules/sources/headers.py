"""Reading the headers of all image files of a source, and errors of unreadable files."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from dataset_rules.ground.errors import RulesError
from dataset_rules.ground.parallel import parallel_map
from dataset_rules.pixels.images import Header, read_header, read_image
from dataset_rules.sources.files import Files

_BLOCK = 256  # files per thread task; one header takes 50 us


@dataclass(frozen=True)
class Survey:
    """Headers of readable files, and error messages of the others, by path."""

    headers: Mapping[str, Header]
    damage: Mapping[str, str]

    def among(self, paths: Iterable[str]) -> list[tuple[str, Header]]:
        """Those of the paths that have a header, with the header."""
        return [(path, self.headers[path]) for path in paths if path in self.headers]


def survey_headers(files: Files, paths: Sequence[str]) -> Survey:
    """Read the header of every file; files that look truncated are decoded to make sure."""

    def read_block(block: Sequence[str]) -> list[Header | str]:
        return [_header_or_error(files, path) for path in block]

    headers: dict[str, Header] = {}
    damage: dict[str, str] = {}
    unique: dict[Header, Header] = {}  # shares equal headers: 100,000 copies would take 30 MB
    blocks = [paths[start : start + _BLOCK] for start in range(0, len(paths), _BLOCK)]
    for block, found in zip(blocks, parallel_map(read_block, blocks), strict=True):
        for path, header in zip(block, found, strict=True):
            if isinstance(header, str):
                damage[path] = header
            else:
                headers[path] = unique.setdefault(header, header)
    return Survey(headers, damage)


def _header_or_error(files: Files, path: str) -> Header | str:
    try:
        file = files / path
        header = read_header(file)
        if header.is_cut_short and header.pages == 1:
            read_image(file)
    except RulesError as error:
        return error_summary(error)
    return header


def error_summary(error: RulesError) -> str:
    """The error without its location."""
    return error.what + (f": {error.found}" if error.found else "")


def sample_paths(paths: Sequence[str], count: int) -> list[str]:
    """At most `count` paths, chosen by hash so that added files hardly change the sample."""
    if len(paths) <= count:
        return list(paths)
    return sorted(paths, key=lambda path: hashlib.sha256(path.encode()).digest())[:count]
