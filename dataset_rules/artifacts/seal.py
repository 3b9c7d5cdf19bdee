"""The seal of an artifact: checksums of all files, readable by `sha256sum -c`."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.ground.parallel import parallel_map

SEAL = "files.sha256"
UNFINISHED = ".begun.json"  # marks an unfinished folder and its step; not sealed


def altered_files(folder: Path) -> list[str]:
    """Differences from the seal, one sentence each: altered, missing and added files."""
    if not (folder / SEAL).is_file():
        return [f"{SEAL} is missing: the folder is unfinished or incomplete"]
    sealed, findings = {}, []
    for line in (folder / SEAL).read_text(encoding="utf-8", errors="replace").splitlines():
        digest, _, name = line.partition("  ")
        sealed[name] = digest
    present = set(_names(folder))
    for name, digest in sealed.items():
        if name not in present:
            findings.append(f"{name} is missing, or its line in {SEAL} was altered")
        elif file_hash(folder / name) != digest:
            findings.append(f"{name} was altered after it was sealed")
    findings += [f"{name} was added after the seal" for name in sorted(present - sealed.keys())]
    return findings


def seal_of(folder: Path, written: Mapping[str, str]) -> bytes:
    """Content of the seal file.

    Args:
        folder: with all its files.
        written: SHA-256 of files that were hashed while writing; all others are read.
    """
    names = sorted(_names(folder))
    hashes = parallel_map(lambda name: written.get(name) or file_hash(folder / name), names)
    lines = (f"{digest}  {name}\n" for digest, name in zip(hashes, names, strict=True))
    return "".join(lines).encode()


def _names(folder: Path) -> Iterator[str]:
    """Files of the artifact, except the seal, temporary files and nested artifacts."""
    for directory, folders, names in os.walk(folder):
        parent = Path(directory)
        folders[:] = [name for name in folders if not (parent / name / SEAL).is_file()]
        for name in names:
            path = parent / name
            if name not in {SEAL, UNFINISHED} and not name.endswith(".part"):
                yield path.relative_to(folder).as_posix()
