"""The database: engine, migrations, and the one place that commits."""

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

from app.ground.errors import Conflict
from app.ground.locks import locked
from app.ground.settings import Settings

BUSY_TIMEOUT_MS = 30_000


def database_url(settings: Settings) -> str:
    """URL of the SQLite file that holds our rows and those of the job queue."""
    return f"sqlite:///{settings.database}"


def open_engine(settings: Settings) -> Engine:
    """An engine whose transactions write one after another while others read."""
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
    """A session that is committed at the end of the block and rolled back on an error."""
    with Session(engine, expire_on_commit=False) as session, session.begin():
        yield session


def migrate(settings: Settings, backups: Path | None = None) -> Path | None:
    """Bring the database to the newest version; safe to call from several processes at once.

    Args:
        settings: name the database.
        backups: folder that a copy of the database goes to before anything is changed.

    Returns:
        The copy; None where none is asked for or no database exists yet.

    Raises:
        Conflict: if a newer release has changed the database already; nothing is touched then.
    """
    for folder in (settings.home, settings.uploads):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    busy = "another process has been changing the database for a minute"
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    with locked(settings.home / "migrate.lock", wait_s=60, busy=busy):
        engine = open_engine(settings)
        try:
            is_new = not settings.database.exists()
            with engine.connect() as connection:
                _refuse_newer(connection, config, settings.database)
            copy = None if backups is None or is_new else _back_up(settings.database, backups)
            with engine.begin() as connection:
                config.attributes["connection"] = connection
                command.upgrade(config, "head")
        finally:
            engine.dispose()
        DBOS.migrate(database_url(settings))
    return copy


def _refuse_newer(connection: Connection, config: Config, database: Path) -> None:
    scripts = ScriptDirectory.from_config(config)
    known = {script.revision for script in scripts.walk_revisions()}
    found = MigrationContext.configure(connection).get_current_revision()
    if found is not None and found not in known:
        raise Conflict(
            "the database was changed by a newer release", where=str(database),
            expected=f"version {scripts.get_current_head()} or older", found=f"version {found}",
            remedy="run that release, or stop all and put back the backup from before it",
        )  # fmt: skip


def _back_up(database: Path, folder: Path) -> Path:
    """A copy of the whole database as one file, while others read and write it."""
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    copy = folder / f"unetops-{datetime.now(UTC):%Y%m%dT%H%M%S.%fZ}.db"
    beside = copy.with_suffix(".part")
    os.close(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))  # tokens' hashes
    with closing(sqlite3.connect(database)) as here, closing(sqlite3.connect(beside)) as there:
        here.backup(there)
        there.execute("PRAGMA journal_mode=DELETE")  # else the copy is three files, not one
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    return beside.replace(copy)
