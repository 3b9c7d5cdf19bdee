"""Duplicate images: equal files, equal pixels, and near duplicates.

Near duplicates are found by the correlation of thumbnails after removing slow changes in
brightness: above 0.9 for a copy that was stored as JPEG, scaled or brightened and for a cell that
was photographed twice, below 0.8 for different cells in the middle of their fields. (Perceptual
hashes cannot distinguish these.) Flipped and rotated copies are found, too.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping

import cv2
import numpy as np
from numpy.typing import NDArray

from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.checks.thumbnails import SIDE_PX, ImageThumbnail, stacked
from dataset_rules.sources.files import Files

MIN_CORRELATION = 0.85  # of two near duplicates
MIN_PROJECTED = 0.75  # correlation of projections above which the thumbnails are compared
MAX_ROTATED = 3_000  # images up to which flipped and rotated copies are searched
MAX_COMPARED = 20_000  # images that are compared with each other: 8 s of CPU time
_PROJECTED = 128  # dimensions of the random projection of a thumbnail of 1,024 pixels
_LIGHT_PX = 5  # changes over longer distances are lighting, not content
_MIN_RMS = 0.4  # root mean square of the texture in grey values; below, the image is blank
_HEAD_BYTES = 16_384
_BLOCK = 512

Vectors = NDArray[np.float32]
Key = Callable[[str], object]


def equal_files(files: Files, sizes: Mapping[str, int]) -> list[tuple[str, ...]]:
    """Groups of paths whose files are identical.

    Whole files are read only if size, first and last bytes agree, so the cost does not grow with
    the size of the images.

    Args:
        files: of the source.
        sizes: path -> bytes of the file.
    """
    groups: Iterable[list[str]] = _by_key(sizes, lambda path: sizes[path])
    groups = _subdivided(groups, lambda path: _ends_of(files, path, sizes[path]))
    groups = _subdivided(
        groups, lambda path: file_hash(files / path) if sizes[path] > 2 * _HEAD_BYTES else ""
    )
    return [tuple(sorted(group)) for group in groups]


def equal_pixels(thumbnails: Mapping[str, ImageThumbnail]) -> list[tuple[str, ...]]:
    """Groups of paths whose decoded pixels are equal."""
    return [tuple(g) for g in _by_key(thumbnails, lambda path: thumbnails[path].digest)]


def near_duplicates(thumbnails: Mapping[str, ImageThumbnail]) -> list[tuple[str, ...]]:
    """Groups of near duplicates; one path represents all images with equal pixels."""
    distinct = {thumbnails[path].digest: path for path in sorted(thumbnails, reverse=True)}
    paths = sorted(distinct.values())
    textures = _textures(stacked([thumbnails[path].pixels for path in paths]))
    has_texture = np.array([bool(texture.any()) for texture in textures], bool)
    paths = [path for path, keep in zip(paths, has_texture, strict=True) if keep]
    return _connected((paths[i], paths[j]) for i, j in _similar(textures[has_texture]))


def _by_key(paths: Iterable[str], key: Key) -> list[list[str]]:
    groups: dict[object, list[str]] = defaultdict(list)
    for path in sorted(paths):
        groups[key(path)].append(path)
    return [group for group in groups.values() if len(group) > 1]


def _subdivided(groups: Iterable[list[str]], key: Key) -> list[list[str]]:
    return [subgroup for group in groups for subgroup in _by_key(group, key)]


def _ends_of(files: Files, path: str, size_bytes: int) -> bytes:
    with (files / path).open("rb", buffering=0) as file:
        found = file.read(_HEAD_BYTES)
        if size_bytes > _HEAD_BYTES:
            file.seek(max(_HEAD_BYTES, size_bytes - _HEAD_BYTES))
            found += file.read(_HEAD_BYTES)
    return hashlib.sha256(found).digest()


def _textures(smalls: Vectors) -> Vectors:
    """High-pass filtered thumbnails, normalised to length 1; all 0 if an image is blank."""
    textures = np.empty_like(smalls)
    for small, texture in zip(smalls, textures, strict=True):
        texture[:] = small - cv2.blur(small, (_LIGHT_PX, _LIGHT_PX))
        texture -= texture.mean()
        length = float(np.linalg.norm(texture))
        texture /= length if length > _MIN_RMS * SIDE_PX else np.inf
    return textures


def _similar(textures: Vectors) -> Iterator[tuple[int, int]]:
    """Pairs of indices whose textures correlate in one of the eight orientations."""
    count = len(textures)
    project = np.random.default_rng(0).standard_normal((SIDE_PX**2, _PROJECTED), np.float32)
    short = _unit(textures.reshape(count, SIDE_PX**2) @ project)
    flat = textures.reshape(count, SIDE_PX**2)
    for oriented in _orientations(textures) if count <= MAX_ROTATED else (textures,):
        flat_oriented = np.ascontiguousarray(oriented).reshape(count, SIDE_PX**2)
        projected = _unit(flat_oriented @ project)
        for start in range(0, count, _BLOCK):
            correlation = np.triu(short[start : start + _BLOCK] @ projected[start:].T, 1)
            left, right = (indices + start for indices in np.nonzero(correlation >= MIN_PROJECTED))
            for first in range(0, len(left), _BLOCK):
                i, j = left[first : first + _BLOCK], right[first : first + _BLOCK]
                exact = np.einsum("ij,ij->i", flat[i], flat_oriented[j], dtype=np.float64)
                is_similar = exact >= MIN_CORRELATION
                yield from zip(i[is_similar].tolist(), j[is_similar].tolist(), strict=True)


def _orientations(textures: Vectors) -> Iterator[Vectors]:
    """The four rotations by 90 degrees, and their mirror images."""
    for quarters in range(4):
        rotated = np.rot90(textures, quarters, axes=(1, 2))
        yield rotated
        yield rotated[:, :, ::-1]


def _unit(vectors: Vectors) -> Vectors:
    lengths: Vectors = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-9), np.float32)


def _connected(pairs: Iterable[tuple[str, str]]) -> list[tuple[str, ...]]:
    """Connected components of the pairs."""
    group_of: dict[str, set[str]] = {}
    for a, b in pairs:
        group = group_of.get(a, {a}) | group_of.get(b, {b})
        group_of.update(dict.fromkeys(group, group))
    groups = {min(group): tuple(sorted(group)) for group in group_of.values()}
    return [groups[first] for first in sorted(groups)]
