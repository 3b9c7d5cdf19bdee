"""Artifacts: finished folders that never change, named by the hash of what they hold.

Three files make a folder an artifact. `manifest.json` says what it is and what it was made of;
its SHA-256 is the artifact's **id**, free of times, hosts and encoders. `provenance.json` says
how it came about; id + provenance give the **record**. `files.sha256` is the seal, written last:
the bytes of every file, readable by `sha256sum -c`. `lineage/` carries the manifests and
provenances of all ancestors, so that a chain can be followed offline.
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
from dataset_rules.artifacts.seal import BEGUN, SEAL, altered_files, seal_of
from dataset_rules.ground.disk import write_file
from dataset_rules.ground.documents import canonical_json, json_bytes
from dataset_rules.ground.errors import ArtifactError, UserError
from dataset_rules.pixels.png import png_with_text

MANIFEST = "manifest.json"
PROVENANCE = "provenance.json"
LINEAGE = "lineage"
RECORD_KEY = "unetops:record"
MODEL_FOLDER = "model"  # of a run: the one artifact that lies in another
MADE_BY = {
    "dataset": "`unetops format` makes a dataset of a folder of images and masks",
    "model": "`unetops train` makes a model; name its run",
    "run": "`unetops train` makes a run",
    "prediction": "`unetops predict` makes a prediction",
}


@dataclass(frozen=True)
class Ancestor:
    """An input of a step as its descendants carry it: the two JSON files, byte for byte."""

    manifest: bytes
    provenance: bytes
    folder: Path | None = None  # where it lay when it was read

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
    """What a folder is (to be): it decides whether an existing folder may be taken up again."""

    kind: str
    version: int
    inputs: tuple[Ancestor, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def key(self) -> str:
        """SHA-256 of kind, version, input ids and parameters."""
        return hashlib.sha256(canonical_json(self.head())).hexdigest()

    def head(self) -> dict[str, Any]:
        """The part of the manifest that is known before the step runs."""
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
    """Prepare `folder` for a step; True if it is finished already.

    An absent or empty folder is begun; one begun or finished by the same step with the same
    inputs is taken up again.

    Raises:
        ArtifactError: if the folder holds anything else. Nothing is overwritten.
    """
    _refuse_inside_an_artifact(folder)
    if is_artifact(folder):
        if _key_in(folder / MANIFEST) == step.key():
            return True
        raise ArtifactError(
            "the folder holds another result", where=str(folder),
            expected=f"a new folder or this very {step.kind}", remedy="name another folder",
        )  # fmt: skip
    begun = folder / BEGUN
    if begun.exists():
        if json.loads(begun.read_bytes()).get("key") == step.key():
            return False
        raise ArtifactError(
            "the folder holds an unfinished step with other inputs", where=str(folder),
            remedy="finish that one with its own inputs, delete the folder or name another",
        )  # fmt: skip
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ArtifactError(
            "the folder is not empty", where=str(folder), expected="a new folder",
            remedy="name a folder that does not exist yet",
        )  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    write_file(begun, canonical_json({"key": step.key(), "kind": step.kind}))
    return False


def _refuse_inside_an_artifact(folder: Path) -> None:
    """A finished folder takes nothing new in, but a run its model."""
    place = folder.resolve()
    sealed = [up for up in place.parents if is_artifact(up)]
    if sealed and not (sealed[0] == place.parent and place.name == MODEL_FOLDER):
        raise ArtifactError(
            "the folder would lie inside a finished result", where=str(folder),
            found=f"{sealed[0]} is sealed", remedy="name a folder outside of it",
        )  # fmt: skip


@contextmanager
def removed_on_refusal(folder: Path) -> Iterator[None]:
    """Remove a begun folder when its step refuses the input: a corrected call finds it free."""
    try:
        yield
    except UserError:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def is_artifact(folder: Path) -> bool:
    """True if the folder is finished: it bears a manifest and the seal."""
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
    """Write manifest, lineage, provenance and seal; the folder is an artifact from then on.

    Args:
        folder: begun by `begin`, with all files of the step in it.
        step: what it is.
        content: path in the folder -> its content hash, or None to hash the file now. Only these
            files decide the id; others (logs, curves with times) are sealed but not in the id.
        started: when the step began, UTC.
        stamped: PNG files in which the record is written as a text chunk.
        written: SHA-256 of the bytes of files, counted when these were written.
        notes: further facts for the provenance.
    """
    files = {name: known or content_hash(folder / name) for name, known in content.items()}
    manifest = json_bytes({**step.head(), "files": dict(sorted(files.items()))})
    _carry_lineage(folder, step.inputs)
    artifact_id = hashlib.sha256(manifest).hexdigest()
    provenance = json_bytes(
        provenance_document(
            artifact_id, [_as_input(a, folder) for a in step.inputs], started=started, notes=notes
        )
    )
    write_file(folder / MANIFEST, manifest)
    write_file(folder / PROVENANCE, provenance)
    made = Ancestor(manifest, provenance, folder)
    for name in stamped:
        path = folder / name
        write_file(path, png_with_text(path.read_bytes(), RECORD_KEY, made.record))
    write_file(folder / SEAL, seal_of(folder, written or {}))
    (folder / BEGUN).unlink(missing_ok=True)
    return made


def read_intact(folder: Path, kind: str) -> Ancestor:
    """As `read_artifact`, with every file compared with the seal: a step uses nothing altered."""
    artifact = read_artifact(folder, kind)
    altered = altered_files(folder)
    if altered:
        more = f" and {len(altered) - 3} more" if len(altered) > 3 else ""
        raise ArtifactError(
            f"the {kind} is not what was sealed", where=str(folder),
            found="; ".join(altered[:3]) + more,
            remedy="bring the files back, or make it again",
        )  # fmt: skip
    return artifact


def read_artifact(folder: Path, kind: str | None = None) -> Ancestor:
    """A finished folder as an input of a further step.

    Raises:
        ArtifactError: if the folder is no finished artifact, or of another kind.
    """
    if not is_artifact(folder):
        found = "an unfinished one" if (folder / BEGUN).exists() else "a folder without manifest"
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
    """A user's folder as an ancestor; nothing is written into it.

    Args:
        files: path in the source -> SHA-256 of its bytes, for every file that is used.
        location: what the user called it.
        started: when it was read, UTC.
    """
    step = Step("source", 1)
    manifest = json_bytes({**step.head(), "files": dict(sorted(files.items()))})
    artifact_id = hashlib.sha256(manifest).hexdigest()
    document = provenance_document(artifact_id, (), started=started, notes={"location": location})
    return Ancestor(manifest, json_bytes(document))


def contradictions(folder: Path) -> list[str]:
    """Where the files contradict the manifest, whatever the seal says."""
    manifest = json.loads((folder / MANIFEST).read_bytes())
    findings = []
    for name, digest in manifest["files"].items():
        if not (folder / name).is_file():
            findings.append(f"{name} is missing")
        elif content_hash(folder / name) != digest:
            findings.append(f"{name} does not hold what the manifest says")
    stated = json.loads((folder / PROVENANCE).read_bytes()).get("id")
    if stated != hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest():
        findings.append(f"{PROVENANCE} belongs to another manifest")
    return findings


def _as_input(ancestor: Ancestor, folder: Path) -> dict[str, str | None]:
    """An input as the provenance of what lies in `folder` names it."""
    return {
        "kind": ancestor.kind, "id": ancestor.id, "record": ancestor.record,
        "folder": _way_to(ancestor.folder, folder),
    }  # fmt: skip


def _way_to(target: Path | None, start: Path) -> str | None:
    """Relative, so that it holds when all is moved together and tells nothing of the machine."""
    if target is None:
        return None
    return Path(os.path.relpath(target.resolve(), start.resolve())).as_posix()


def _key_in(manifest: Path) -> str:
    head = json.loads(manifest.read_bytes())
    head.pop("files", None)
    return hashlib.sha256(canonical_json(head)).hexdigest()


def _carry_lineage(folder: Path, inputs: Iterable[Ancestor]) -> None:
    for ancestor in inputs:
        target = folder / LINEAGE / ancestor.id
        target.mkdir(parents=True, exist_ok=True)
        write_file(target / MANIFEST, ancestor.manifest)
        write_file(target / PROVENANCE, ancestor.provenance)
        carried = ancestor.folder / LINEAGE if ancestor.folder else None
        if carried and carried.is_dir():
            shutil.copytree(carried, folder / LINEAGE, dirs_exist_ok=True)
