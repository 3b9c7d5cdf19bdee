"""Images that show the same: equal files, equal pixels, and the same scene in other pixels.

Near duplicates are found by the correlation of small images from which slow changes of light are
taken away: above 0.9 for a copy that was stored as JPEG, scaled or brightened and for a cell that
was photographed twice, below 0.8 for different cells in the middle of their fields. (Perceptual
hashes do not tell these apart: docs/experiments.md.) Mirrored and turned copies are found, too.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.checks.thumbnails import SIDE_PX, Glimpse, stacked
from dataset_rules.sources.files import Files

ALIKE = 0.85  # correlation from which two images show the same
SCREEN = 0.75  # correlation of projections from which the small images themselves are compared
MAX_TURNED = 3_000  # images up to which mirrored and turned copies are looked for
MAX_COMPARED = 20_000  # images that are compared with each other: 8 s of one processor
_PROJECTED = 128  # numbers that stand for an image of 1,024 pixels in the first comparison
_LIGHT_PX = 5  # changes over more than this are light, not content
_FLAT = 0.4  # root mean square of what is left, in grey values, below which nothing is shown
_HEAD_BYTES = 16_384
_BLOCK = 512

Vectors = NDArray[np.float32]
Key = Callable[[str], object]


def equal_files(files: Files, sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Groups of paths whose files are equal byte for byte.

    Whole files are read only where size, first and last bytes agree, so the cost does not grow
    with the size of the images.

    Args:
        files: of the source.
        sizes: path -> bytes of the file.
    """
    groups: Iterable[list[str]] = _by_key(sizes, lambda path: sizes[path])
    groups = _finer(groups, lambda path: _ends_of(files, path, sizes[path]))
    groups = _finer(
        groups, lambda path: file_hash(files / path) if sizes[path] > 2 * _HEAD_BYTES else ""
    )
    return [tuple(sorted(group)) for group in groups]


def equal_pixels(glimpses: Mapping[str, Glimpse]) -> list[tuple[str, ...]]:
    """Groups of paths whose decoded pixels are equal."""
    return [tuple(g) for g in _by_key(glimpses, lambda path: glimpses[path].digest)]


def near_duplicates(glimpses: Mapping[str, Glimpse]) -> list[tuple[str, ...]]:
    """Groups of paths that show the same in different pixels; of equal pixels one path stands."""
    distinct = {glimpses[path].digest: path for path in sorted(glimpses, reverse=True)}
    paths = sorted(distinct.values())
    textures = _textures(stacked([glimpses[path].pixels for path in paths]))
    is_shown = np.array([bool(texture.any()) for texture in textures], bool)
    paths = [path for path, is_one in zip(paths, is_shown, strict=True) if is_one]
    return _joined((paths[i], paths[j]) for i, j in _alike(textures[is_shown]))


def _by_key(paths: Iterable[str], key: Key) -> list[list[str]]:
    groups: dict[object, list[str]] = defaultdict(list)
    for path in sorted(paths):
        groups[key(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _finer(groups: Iterable[list[str]], key: Key) -> list[list[str]]:
    return [finer for group in groups for finer in _by_key(group, key)]


def _ends_of(files: Files, path: str, size_bytes: int) -> bytes:
    with (files / path).open("rb", buffering=0) as file:
        found = file.read(_HEAD_BYTES)
        if size_bytes > _HEAD_BYTES:
            file.seek(max(_HEAD_BYTES, size_bytes - _HEAD_BYTES))
            found += file.read(_HEAD_BYTES)
    return hashlib.sha256(found).digest()


def _textures(smalls: Vectors) -> Vectors:
    """Small images without slow changes, each of length 1; all 0 where nothing is left."""
    made = np.empty_like(smalls)
    for small, texture in zip(smalls, made, strict=True):
        texture[:] = small - cv2.blur(small, (_LIGHT_PX, _LIGHT_PX))
        texture -= texture.mean()
        length = float(np.linalg.norm(texture))
        texture /= length if length > _FLAT * SIDE_PX else np.inf
    return made


def _alike(textures: Vectors) -> Iterator[tuple[int, int]]:
    """Pairs of places whose textures agree in one of the eight ways to lay an image down."""
    count = len(textures)
    project = np.random.default_rng(0).standard_normal((SIDE_PX**2, _PROJECTED), np.float32)
    short = _unit(textures.reshape(count, SIDE_PX**2) @ project)
    flat = textures.reshape(count, SIDE_PX**2)
    for turned in _turned(textures) if count <= MAX_TURNED else (textures,):
        ways = np.ascontiguousarray(turned).reshape(count, SIDE_PX**2)
        projected = _unit(ways @ project)
        for start in range(0, count, _BLOCK):
            likeness = np.triu(short[start : start + _BLOCK] @ projected[start:].T, 1)
            ones, others = (places + start for places in np.nonzero(likeness >= SCREEN))
            for part in range(0, len(ones), _BLOCK):
                i, j = ones[part : part + _BLOCK], others[part : part + _BLOCK]
                is_alike = np.einsum("ij,ij->i", flat[i], ways[j], dtype=np.float64) >= ALIKE
                yield from zip(i[is_alike].tolist(), j[is_alike].tolist(), strict=True)


def _turned(textures: Vectors) -> Iterator[Vectors]:
    """As they are, turned by quarters, and the mirror images of these."""
    for quarters in range(4):
        turned = np.rot90(textures, quarters, axes=(1, 2))
        yield turned
        yield turned[:, :, ::-1]


def _unit(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def _joined(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Groups of all that hang together."""
    group_of: dict[str, set[str]] = {}
    for one, other in pairs:
        group = group_of.get(one, {one}) | group_of.get(other, {other})
        group_of.update(dict.fromkeys(group, group))
    groups = {min(group): tuple(sorted(group)) for group in group_of.values()}
    return [groups[first] for first in sorted(groups)]
