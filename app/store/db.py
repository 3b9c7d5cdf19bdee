"""The database: engine, transactions, migrations and backups."""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from dbos import DBOS
from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.orm import Session

from app.ground.errors import AppError, Conflict
from app.ground.locks import locked
from app.ground.settings import Settings

BUSY_TIMEOUT_MS = 30_000


def database_url(settings: Settings) -> str:
    """URL of the SQLite file with the service's tables and the job queue's."""
    return f"sqlite:///{settings.database}"


def open_engine(settings: Settings) -> Engine:
    """An engine whose write transactions are serialized while others read."""
    engine = create_engine(database_url(settings))

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = "IMMEDIATE"
        connection.execute(f"PRAGMA busy_timeout={BUSY_TIMEOUT_MS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


@contextmanager
def transaction(engine: Engine) -> Iterator[Session]:
    """A session, committed at the end of the block and rolled back on errors."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def migrate(settings: Settings, backups: Path | None = None) -> Path | None:
    """Migrate the database to the newest version; safe to call from several processes at once.

    Args:
        settings: specify the database.
        backups: folder for a copy of the database, made before any change.

    Returns:
        Path of the copy; None if none was requested or no database exists yet.

    Raises:
        Conflict: if a newer release has migrated the database; it is left unchanged.
        AppError: if the backup fails; the database is left unchanged.
    """
    for folder in (settings.home, settings.uploads):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    busy = "another process has been migrating the database for a minute"
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with locked(settings.home / "migrate.lock", wait_s=60, busy=busy):
        engine = open_engine(settings)
        try:
            with engine.connect() as connection:
                version = _known_version(connection, config, settings.database)
            is_new = version is None  # a first migration that was killed leaves an empty file
            copy = None if backups is None or is_new else _back_up(settings.database, backups)
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        finally:
            engine.dispose()
        DBOS.migrate(database_url(settings))
    return copy


def _known_version(connection: Connection, config: Config, database: Path) -> str | None:
    """Version of the database, None before the first; raises `Conflict` for a newer one."""
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in known:
        raise Conflict(
            "the database was migrated by a newer release", where=str(database),
            expected=f"version {scripts.get_current_head()} or older", found=f"version {found}",
            remedy="run that release, or stop the service and restore the backup made before it",
        )  # fmt: skip
    return found


def _back_up(database: Path, folder: Path) -> Path:
    """A complete, verified copy of the database as one file, made while others use it.

    Only a copy that was verified and flushed to disk gets a name ending in `.db`; a failed one is
    removed.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _remove_parts(folder)  # of a killed backup
    copy = folder / f"unetops-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.db"
    partial = copy.with_suffix(".part")
    try:
        _copy(database, partial)
        _check(partial)
        _flush(partial)
        partial.replace(copy)
        _flush(folder)
    except (OSError, sqlite3.Error) as error:
        raise AppError(
            "the database could not be backed up, nothing was changed", where=str(database),
            expected=f"a complete copy in {folder}", found=str(error),
            remedy="free disk space; restore a damaged database from an earlier backup",
        ) from error  # fmt: skip
    finally:
        _remove_parts(folder)
    return copy


def _remove_parts(folder: Path) -> None:
    for path in folder.glob("unetops-*.part*"):  # including SQLite's auxiliary files
        path.unlink()


def _copy(database: Path, to: Path) -> None:
    os.close(os.open(to, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))  # it has the tokens' hashes
    with closing(sqlite3.connect(database)) as source, closing(sqlite3.connect(to)) as target:
        source.backup(target)
        target.execute("PRAGMA journal_mode=DELETE")  # otherwise the copy is three files


def _check(copy: Path) -> None:
    """Raise `sqlite3.Error` unless the copy is undamaged and has a version."""
    with closing(sqlite3.connect(copy)) as opened:
        (found,) = opened.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise sqlite3.DatabaseError(f"the copy is damaged: {found}")
        if not opened.execute("SELECT version_num FROM alembic_version").fetchall():
            raise sqlite3.DatabaseError("the copy has no version")


def _flush(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)
