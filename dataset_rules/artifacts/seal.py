"""The seal of an artifact: the bytes of every file, in a form that `sha256sum -c` reads."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.ground.parallel import each

SEAL = "files.sha256"
BEGUN = ".begun.json"  # what an unfinished folder is going to be; no part of what is sealed


def altered_files(folder: Path) -> list[str]:
    """What differs from the seal, a sentence each: altered, missing and added files."""
    if not (folder / SEAL).is_file():
        return [f"{SEAL} is missing: the folder is unfinished or was cut"]
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
    """The bytes of the seal.

    Args:
        folder: with all its files.
        written: SHA-256 of files that were hashed as they were written; the others are read.
    """
    names = sorted(_names(folder))
    hashes = each(lambda name: written.get(name) or file_hash(folder / name), names)
    return "".join(f"{found}  {name}\n" for found, name in zip(hashes, names, strict=True)).encode()


def _names(folder: Path) -> Iterator[str]:
    """Files of the artifact: not the seal, not our part files, not artifacts inside it."""
    for place, folders, names in os.walk(folder):
        here = Path(place)
        folders[:] = [name for name in folders if not (here / name / SEAL).is_file()]
        for name in names:
            path = here / name
            if name not in {SEAL, BEGUN} and not name.endswith(".part"):
                yield path.relative_to(folder).as_posix()
