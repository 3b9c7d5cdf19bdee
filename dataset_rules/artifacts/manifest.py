"""Artifacts: immutable finished folders, identified by the hash of their content.

Three files make a folder an artifact. `manifest.json` describes its content and inputs; its
SHA-256 is the artifact's **id**, independent of times, hosts and encoders. `provenance.json`
describes how it was made; the hash of id and provenance is the **record**. `files.sha256` is the
seal, written last: checksums of all files, readable by `sha256sum -c`. `lineage/` contains the
manifests and provenances of all ancestors, so that the chain can be traced offline.
"""

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from dataset_rules.artifacts.hashes import content_hash
from dataset_rules.artifacts.provenance import provenance_document
from dataset_rules.artifacts.seal import SEAL, UNFINISHED, altered_files, seal_of
from dataset_rules.ground.disk import write_file
from dataset_rules.ground.documents import canonical_json, json_bytes
from dataset_rules.ground.errors import ArtifactError, UserError
from dataset_rules.pixels.png import png_with_text

MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
LINEAGE = "lineage"
RECORD_KEY = "unetops:record"
MODEL_FOLDER = "model"  # in a run: the only nested artifact
MADE_BY = {
    "dataset": "create a dataset from a folder of images and masks with `unetops format`",
    "model": "create a model with `unetops train` and give its run",
    "run": "create a run with `unetops train`",
    "prediction": "create a prediction with `unetops predict`",
}


@dataclass(frozen=True)
class Ancestor:
    """An input of a step, as stored by its descendants: the exact bytes of both JSON files."""

    manifest: bytes
    provenance: bytes
    folder: Path | None = None  # where it was read from

    @property
    def id(self) -> str:
        """SHA-256 of the manifest."""
        return hashlib.sha256(self.manifest).hexdigest()

    @property
    def record(self) -> str:
        """SHA-256 of id and provenance."""
        return record_of(self.id, self.provenance)

    @property
    def kind(self) -> str:
        """Kind of the artifact: source, dataset, run, model, prediction, ..."""
        return str(json.loads(self.manifest)["kind"])


@dataclass(frozen=True)
class Step:
    """Definition of a step; decides whether an existing folder can be resumed."""

    kind: str
    version: int
    inputs: tuple[Ancestor, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """SHA-256 of kind, version, input ids and parameters."""
        return hashlib.sha256(canonical_json(self.head())).hexdigest()

    def head(self) -> dict[str, Any]:
        """Part of the manifest that is known before the step runs."""
        return {
            "format": 1,
            "kind": self.kind,
            "step_version": self.version,
            "inputs": [{"kind": a.kind, "id": a.id} for a in self.inputs],
            "parameters": dict(self.parameters),
        }


def record_of(artifact_id: str, provenance: bytes) -> str:
    """The record: SHA-256 of an artifact's id and the bytes of its provenance."""
    return hashlib.sha256(artifact_id.encode() + b"\n" + provenance).hexdigest()


def begin(folder: Path, step: Step) -> bool:
    """Prepare `folder` for a step; True if the step is already finished.

    Creates an absent folder, starts in an empty one, and resumes one that was started or finished
    by the same step with the same inputs.

    Raises:
        ArtifactError: if the folder contains anything else. Nothing is overwritten.
    """
    _check_not_in_artifact(folder)
    if is_artifact(folder):
        if _key_in(folder / MANIFEST) == step.key():
            return True
        raise ArtifactError(
            "the folder contains another result", where=str(folder),
            expected=f"a new folder or the same {step.kind}", remedy="give another folder",
        )  # fmt: skip
    marker = folder / UNFINISHED
    if marker.exists():
        if json.loads(marker.read_bytes()).get("key") == step.key():
            return False
        raise ArtifactError(
            "the folder contains an unfinished step with other inputs", where=str(folder),
            remedy="finish it with the same inputs, delete the folder or give another",
        )  # fmt: skip
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(
            "the folder is not empty", where=str(folder), expected="a new folder",
            remedy="give a folder that does not exist yet",
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_file(marker, canonical_json({"key": step.key(), "kind": step.kind}))
    return False


def _check_not_in_artifact(folder: Path) -> None:
    """Nothing may be added to a finished folder, except a model to its run."""
    path = folder.resolve()
    sealed = [parent for parent in path.parents if is_artifact(parent)]
    if sealed and not (sealed[0] == path.parent and path.name == MODEL_FOLDER):
        raise ArtifactError(
            "the folder would be inside a finished result", where=str(folder),
            found=f"{sealed[0]} is sealed", remedy="give a folder outside it",
        )  # fmt: skip


@contextmanager
def remove_on_error(folder: Path) -> Iterator[None]:
    """Remove the step's folder on a `UserError`, so that a corrected call can reuse the name."""
    try:
        yield
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def is_artifact(folder: Path) -> bool:
    """True if the folder is finished: it contains a manifest and the seal."""
    return (folder / SEAL).is_file() and (folder / MANIFEST).is_file()


def finish(
    folder: Path,
    step: Step,
    *,
    content: Mapping[str, str | None],
    started: datetime,
    stamped: Iterable[str] = (),
    written: Mapping[str, str] | None = None,
    notes: Mapping[str, Any] | None = None,
) -> Ancestor:
    """Turn the folder into an artifact: write manifest, lineage, provenance and seal.

    Args:
        folder: prepared by `begin`, with all files of the step.
        step: its definition.
        content: path in the folder -> content hash, or None to compute it. Only these files
            determine the id; others (logs, curves with times) are sealed but not part of the id.
        started: start time of the step, UTC.
        stamped: PNG files that get the record as a text chunk.
        written: SHA-256 of files that were hashed while writing.
        notes: additional fields of the provenance.
    """
    files = {name: known or content_hash(folder / name) for name, known in content.items()}
    manifest = json_bytes({**step.head(), "files": dict(sorted(files.items()))})
    _copy_lineage(folder, step.inputs)
    artifact_id = hashlib.sha256(manifest).hexdigest()
    provenance = json_bytes(
        provenance_document(
            artifact_id, [_as_input(a, folder) for a in step.inputs], started=started, notes=notes
        )
    )
    write_file(folder / MANIFEST, manifest)
    write_file(folder / PROVENANCE, provenance)
    artifact = Ancestor(manifest, provenance, folder)
    for name in stamped:
        path = folder / name
        write_file(path, png_with_text(path.read_bytes(), RECORD_KEY, artifact.record))
    write_file(folder / SEAL, seal_of(folder, written or {}))
    (folder / UNFINISHED).unlink(missing_ok=True)
    return artifact


def read_intact(folder: Path, kind: str) -> Ancestor:
    """Like `read_artifact`, but also checks all files against the seal."""
    artifact = read_artifact(folder, kind)
    altered = altered_files(folder)
    if altered:
        more = f" and {len(altered) - 3} more" if len(altered) > 3 else ""
        raise ArtifactError(
            f"the {kind} is not what was sealed", where=str(folder),
            found="; ".join(altered[:3]) + more,
            remedy="restore the files or create it again",
        )  # fmt: skip
    return artifact


def read_artifact(folder: Path, kind: str | None = None) -> Ancestor:
    """Read a finished folder as an input of another step.

    Raises:
        ArtifactError: if the folder is not a finished artifact, or of another kind.
    """
    if not is_artifact(folder):
        found = (
            "an unfinished one" if (folder / UNFINISHED).exists() else "a folder without a manifest"
        )
        raise ArtifactError(
            f"no finished {kind or 'artifact'} here", where=str(folder),
            found=found if folder.is_dir() else "a file" if folder.exists() else "no such folder",
            remedy=MADE_BY.get(kind or ""),
        )  # fmt: skip
    artifact = Ancestor(
        (folder / MANIFEST).read_bytes(), (folder / PROVENANCE).read_bytes(), folder
    )
    try:
        found_kind = artifact.kind
    except (ValueError, KeyError, TypeError) as error:
        raise ArtifactError("the manifest is damaged", where=str(folder / MANIFEST)) from error
    if kind is not None and found_kind != kind:
        raise ArtifactError(
            f"this is no {kind}", where=str(folder), expected=kind, found=found_kind,
            remedy=MADE_BY.get(kind),
        )  # fmt: skip
    return artifact


def make_source(files: Mapping[str, str], *, location: str, started: datetime) -> Ancestor:
    """Describe a user's folder as an ancestor, without writing into it.

    Args:
        files: path in the source -> SHA-256 of its bytes, for every file used.
        location: as given by the user.
        started: when it was read, UTC.
    """
    step = Step("source", 1)
    manifest = json_bytes({**step.head(), "files": dict(sorted(files.items()))})
    artifact_id = hashlib.sha256(manifest).hexdigest()
    document = provenance_document(artifact_id, (), started=started, notes={"location": location})
    return Ancestor(manifest, json_bytes(document))


def contradictions(folder: Path) -> list[str]:
    """Mismatches between the files and the manifest, independent of the seal."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    findings = []
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file():
            findings.append(f"{name} is missing")
        elif content_hash(folder / name) != digest:
            findings.append(f"{name} does not match the manifest")
    stated = json.loads((folder / PROVENANCE).read_bytes()).get("id")
    if stated != hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest():
        findings.append(f"{PROVENANCE} belongs to another manifest")
    return findings


def _as_input(ancestor: Ancestor, folder: Path) -> dict[str, str | None]:
    """An input as recorded in the provenance of `folder`."""
    return {
        "kind": ancestor.kind, "id": ancestor.id, "record": ancestor.record,
        "folder": _relative_path(ancestor.folder, folder),
    }  # fmt: skip


def _relative_path(target: Path | None, start: Path) -> str | None:
    """Relative path: valid if both folders are moved together, and reveals no machine details."""
    if target is None:
        return None
    return Path(os.path.relpath(target.resolve(), start.resolve())).as_posix()


def _key_in(manifest: Path) -> str:
    head = json.loads(manifest.read_bytes())
    head.pop("files", None)
    return hashlib.sha256(canonical_json(head)).hexdigest()


def _copy_lineage(folder: Path, inputs: Iterable[Ancestor]) -> None:
    for ancestor in inputs:
        target = folder / LINEAGE / ancestor.id
        target.mkdir(parents=True, exist_ok=True)
        write_file(target / MANIFEST, ancestor.manifest)
        write_file(target / PROVENANCE, ancestor.provenance)
        ancestors = ancestor.folder / LINEAGE if ancestor.folder else None
        if ancestors and ancestors.is_dir():
            shutil.copytree(ancestors, folder / LINEAGE, dirs_exist_ok=True)
