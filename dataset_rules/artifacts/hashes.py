"""Hashes of files: of their bytes, or of their content independent of the encoder."""

import hashlib
import json
from pathlib import Path

from dataset_rules.ground.documents import canonical_json
from dataset_rules.pixels.images import IMAGE_SUFFIXES, pixel_hash, read_image
from dataset_rules.pixels.rows import TIFF_SUFFIXES, values_hash


def content_hash(path: Path) -> str:
    """Hash for artifact ids: of decoded pixels, canonical JSON, or else the bytes."""
    if path.suffix in TIFF_SUFFIXES and (digest := values_hash(path)):
        return digest
    if path.suffix in IMAGE_SUFFIXES:
        return pixel_hash(read_image(path))
    if path.suffix == ".json":
        return hashlib.sha256(canonical_json(json.loads(path.read_bytes()))).hexdigest()
    return file_hash(path)


def file_hash(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
