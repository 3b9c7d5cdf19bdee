"""Artifacts on the volume: `artifacts/<id>/`, `sources/<id>/`, `rules/<id>.json`, `work/<job>/`.

All inputs and outputs of steps are two folders deep, so that the lineage's relative links stay
valid when a finished folder moves from `work/` to `artifacts/`. The folder is moved before its
row is written: a crash leaves garbage to prune, never a dangling row.
"""

import hashlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects.sqlite import insert
from sqlalchemy.orm import Session

from app.ground.errors import Conflict, NotFound, Unprocessable
from app.ground.locks import is_locked, locked
from app.ground.settings import Settings
from app.store import tables
from app.store.tables import Alias, Artifact, Job
from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.artifacts.manifest import MODEL_FOLDER, is_artifact, read_artifact
from dataset_rules.artifacts.seal import altered_files
from dataset_rules.ground.disk import write_file, write_json
from dataset_rules.ground.errors import ArtifactError
from dataset_rules.rules.rules import Rules, read_rules, rules_document, rules_id

PRODUCTION = "production"
JOB_ID_LENGTH = 32
PROCESS_ID = uuid.uuid4().hex  # of this process; prefix of its uploads
REPORT = "report.json"  # in the folder of a doctor job


def work_folder(settings: Settings, job_id: str) -> Path:
    """Folder of an unfinished job; creates the parent."""
    folder = settings.home / "work" / job_id
    folder.parent.mkdir(parents=True, exist_ok=True)
    return folder


def artifact_path(settings: Settings, row: Artifact) -> Path:
    """File or folder of an artifact; raises `NotFound` if it is missing on disk."""
    path = settings.home / row.path
    if not path.exists():
        raise NotFound(
            f"the {row.kind} is registered but missing on disk", where=row.id,
            remedy="restore the folder from a backup, or create it again",
        )  # fmt: skip
    return path


def store_rules(settings: Settings, session: Session, rules: Rules) -> Artifact:
    """Store rules; equal rules are stored once."""
    name = rules_id(rules)
    path = settings.home / "rules" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, rules_document(rules))  # always, which also repairs an altered file
    size = f"{rules.width} x {rules.height}" if rules.width else "own size"
    return _row(
        settings, session, Artifact(id=name, kind="rules", label=f"{size} {rules.image_format}"),
        path=path,
    )  # fmt: skip


def load_rules(settings: Settings, session: Session, name: str) -> Rules:
    """The rules with this id."""
    return read_rules(artifact_path(settings, find(session, name, kind="rules")))


def store_source(
    settings: Settings, session: Session, folder: Path, *, label: str, facts: dict[str, Any]
) -> Artifact:
    """Move `folder` into the store as a source; equal files are stored once."""
    target = source_folder(settings, folder)
    name = target.name
    facts = {"files": sum(1 for _ in _files(folder)), **facts}
    _move(folder, target, is_kept=lambda: _source_id(target) == name)
    return _row(
        settings, session, Artifact(id=name, kind="source", label=label, facts=facts), path=target
    )


def source_folder(settings: Settings, folder: Path) -> Path:
    """The folder's path once it is stored as a source."""
    return settings.home / "sources" / _source_id(folder)


def _source_id(folder: Path) -> str:
    names = sorted(path.relative_to(folder).as_posix() for path in _files(folder))
    lines = "".join(f"{file_hash(folder / name)}  {name}\n" for name in names)
    return hashlib.sha256(lines.encode()).hexdigest()


def store_folder(
    settings: Settings, session: Session, folder: Path, *, job_id: str | None = None,
    label: str = "", facts: dict[str, Any] | None = None,
) -> Artifact:  # fmt: skip
    """Move a finished `folder` into the store and register it, a run with its model.

    The first finished model becomes `production`.
    """
    artifact = read_artifact(folder)
    target = settings.home / "artifacts" / artifact.id
    _move(folder, target, is_kept=lambda: is_intact(target))
    row = _row(
        settings, session,
        Artifact(
            id=artifact.id, kind=artifact.kind, record=artifact.record, label=label,
            facts=facts or {}, job_id=job_id,
        ),
        path=target,
    )  # fmt: skip
    if is_artifact(target / "model"):
        _keep_model(settings, session, target / "model", job_id=job_id, label=label)
    return row


def _keep_model(
    settings: Settings, session: Session, folder: Path, *, job_id: str | None, label: str
) -> None:
    model = read_artifact(folder, "model")
    row = Artifact(id=model.id, kind="model", record=model.record, label=label, job_id=job_id)
    _row(settings, session, row, path=folder)
    if session.get(Alias, PRODUCTION) is None:
        session.add(Alias(name=PRODUCTION, artifact_id=model.id))


def promote(session: Session, model_id: str, alias: str = PRODUCTION) -> Alias:
    """Point the alias to the model."""
    model = find_model(session, model_id)
    row = session.get(Alias, alias) or Alias(name=alias)
    row.artifact_id, row.changed_at = model.id, tables.now()
    session.add(row)
    return row


def find(session: Session, name: str, *, kind: str | None = None) -> Artifact:
    """The artifact with this id, or the result of the finished job with this id.

    Raises:
        NotFound: if there is none.
        Unprocessable: if it is of another kind.
        Conflict: if the job has no result (yet).
    """
    row = session.get(Artifact, name)
    if row is None and (job := session.get(Job, name)) is not None:
        row = _result_of(session, job)
    if row is None:
        raise NotFound(f"no such {kind or 'artifact'}", where=name, remedy="see the lists of ids")
    if kind is not None and row.kind != kind:
        raise Unprocessable("wrong kind of artifact", where=name, expected=kind, found=row.kind)
    return row


def find_model(session: Session, name: str) -> Artifact:
    """The model with this alias or id, or the model of a run or its job."""
    alias = session.get(Alias, name)
    if alias is not None:
        return find(session, alias.artifact_id, kind="model")
    if name == PRODUCTION:
        raise Conflict(
            "there is no model yet", where=name,
            remedy="train one: POST /api/v1/runs; the first finished model becomes production",
        )  # fmt: skip
    row = find(session, name)
    if row.kind == "run":
        models = select(Artifact).where(
            Artifact.kind == "model", Artifact.path.startswith(row.path)
        )
        row = session.scalars(models).first() or row
    if row.kind != "model":
        raise Unprocessable("this is not a model", where=name, expected="model", found=row.kind)
    return row


def list_artifacts(session: Session, kind: str, *, limit: int = 500) -> list[Artifact]:
    """Artifacts of a kind, newest first."""
    rows = select(Artifact).where(Artifact.kind == kind)
    return list(session.scalars(rows.order_by(Artifact.created_at.desc()).limit(limit)))


def model_aliases(session: Session) -> dict[str, list[str]]:
    """Model id -> its aliases."""
    found: dict[str, list[str]] = {}
    for alias in session.scalars(select(Alias).order_by(Alias.name)):
        found.setdefault(alias.artifact_id, []).append(alias.name)
    return found


def file_inside(folder: Path, name: str) -> Path:
    """A file of an artifact by its relative path; raises `NotFound` for paths outside of it."""
    path = (folder / name).resolve()
    if not path.is_relative_to(folder.resolve()) or not path.is_file():
        raise NotFound("no such file in the artifact", where=name)
    return path


def new_upload_path(settings: Settings) -> Path:
    """A unique path in the uploads folder, prefixed with the id of this process."""
    return settings.uploads / f"{PROCESS_ID}-{uuid.uuid4().hex}"


@contextmanager
def managed_uploads(settings: Settings) -> Iterator[None]:
    """Remove uploads of web processes that have ended; protect those of this one by a lock."""
    busy = "another web process has been clearing the uploads for a minute"
    with ExitStack() as locks:
        with locked(settings.home / "uploads.lock", wait_s=60, busy=busy):
            own = _owner_lock(settings, PROCESS_ID)
            if not is_locked(own):  # a second application in this process shares the lock
                locks.enter_context(locked(own, wait_s=0, busy="this process serves it already"))
            _clear_uploads(settings)
        yield


def _clear_uploads(settings: Settings) -> None:
    settings.uploads.mkdir(parents=True, exist_ok=True, mode=0o700)
    for path in settings.uploads.iterdir():
        if not is_locked(_owner_lock(settings, path.name.partition("-")[0])):
            _remove(path)
    for owner in (settings.home / "run").glob("web-*.lock"):
        if not is_locked(owner):
            owner.unlink(missing_ok=True)


def _owner_lock(settings: Settings, process: str) -> Path:
    """The file that a web process keeps locked while it runs."""
    folder = settings.home / "run"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder / f"web-{process}.lock"


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def result_path(settings: Settings, session: Session, job: Job) -> Path | None:
    """File or folder that a finished job produced; it may no longer exist."""
    if job.kind == "doctor":
        return work_folder(settings, job.id) / REPORT
    row = session.get(Artifact, (job.result or {}).get("id"))
    return None if row is None else settings.home / row.path


def is_intact(made: Path) -> bool:
    """True if an artifact equals its seal byte for byte, and a run has its model."""
    if made.is_file():  # a report has no seal
        return True
    if not is_artifact(made) or altered_files(made):
        return False
    model = made / MODEL_FOLDER
    return read_artifact(made).kind != "run" or (is_artifact(model) and not altered_files(model))


def artifact_id(folder: Path) -> str:
    """Id of a finished folder."""
    return read_artifact(folder).id


def record_move(settings: Settings, job_id: str, artifact_id: str) -> None:
    """Record where a job's folder is about to move, so that a kill in between loses nothing."""
    write_file(settings.home / "work" / f"{job_id}.moved", artifact_id.encode())


def moved_folder(settings: Settings, job_id: str) -> Path | None:
    """A job's folder that was moved into the store while its row was not yet written."""
    note = settings.home / "work" / f"{job_id}.moved"
    if not note.exists() or work_folder(settings, job_id).exists():  # not moved yet
        return None
    folder = settings.home / "artifacts" / note.read_text()
    return folder if is_artifact(folder) else None


def hand_over(settings: Settings, earlier_id: str, job_id: str) -> bool:
    """Hand the work of an earlier job to another; True if there is work to continue."""
    work = settings.home / "work"
    for suffix in ("", ".moved"):  # the folder, and the record of its move
        old, new = work / f"{earlier_id}{suffix}", work / f"{job_id}{suffix}"
        if new.exists():
            return True
        if old.exists():
            old.rename(new)
    return (work / job_id).exists() or moved_folder(settings, job_id) is not None


def clear_move_record(settings: Settings, job_id: str) -> None:
    """Remove the record of the move and the folder's lock, once the row is written."""
    for suffix in ("moved", "lock"):
        (settings.home / "work" / f"{job_id}.{suffix}").unlink(missing_ok=True)


def _result_of(session: Session, job: Job) -> Artifact:
    name = (job.result or {}).get("id")
    row = session.get(Artifact, name) if name else None
    if row is None:
        raise Conflict(
            "the job has no result (yet)", where=job.id, expected="a finished job",
            remedy=f"GET /api/v1/jobs/{job.id} shows its progress",
        )  # fmt: skip
    return row


def _row(settings: Settings, session: Session, row: Artifact, *, path: Path) -> Artifact:
    known = session.get(Artifact, row.id)
    if known is not None:
        return known
    values = {
        "id": row.id, "kind": row.kind, "path": path.relative_to(settings.home).as_posix(),
        "record": row.record, "label": row.label, "facts": row.facts or {}, "job_id": row.job_id,
        "created_at": tables.now(),
    }  # fmt: skip
    session.execute(insert(Artifact).values(values).on_conflict_do_nothing())
    stored = session.get(Artifact, row.id)
    assert stored is not None
    return stored


def _move(folder: Path, target: Path, *, is_kept: Callable[[], bool]) -> None:
    """Rename into the store; an existing target is kept if `is_kept` finds it unaltered."""
    if folder == target:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        if is_kept():
            _discard(folder)
            return
        _discard(target)
    try:
        folder.rename(target)
    except OSError as error:
        if target.exists():  # another process has just stored the same
            _discard(folder)
            return
        raise ArtifactError(
            "the finished folder cannot be moved into the store", where=str(folder),
            found=str(error.strerror), remedy="check free space and permissions of the disk",
        ) from error  # fmt: skip
    _flush(target.parent)


def _discard(folder: Path) -> None:
    """Remove a folder atomically: rename it first, so that a kill leaves no partial folder."""
    renamed = folder.with_name(f"{folder.name}.{uuid.uuid4().hex[:8]}.gone")
    with suppress(FileNotFoundError):  # another process also found it altered
        folder.rename(renamed)
        shutil.rmtree(renamed)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file())
