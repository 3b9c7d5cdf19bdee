"""The database: engine, migrations, and the one place that commits."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config
from dbos import DBOS
from sqlalchemy import Engine, create_engine, event
from sqlalchemy.orm import Session

from app.process import locked
from app.settings import Settings

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


def migrate(settings: Settings) -> None:
    """Bring the database to the newest version; safe to call from several processes at once."""
    for folder in (settings.home, settings.uploads):
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    busy = "another process has been changing the database for a minute"
    with locked(settings.home / "migrate.lock", wait_s=60, busy=busy):
        engine = open_engine(settings)
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
        with engine.begin() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
        engine.dispose()
        DBOS.migrate(database_url(settings))
