"""The database: backed up and migrated by a release, put back where that release failed."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from infra.machine.unetops_host.commands import as_service, environment, own, owned, run
from infra.machine.unetops_host.console import say
from infra.machine.unetops_host.machine import Machine


def migrate(machine: Machine, folder: Path, backups: Path) -> None:
    """Back up the database and bring it to the release's version."""
    own(machine, backups, 0o700)
    run(*as_service(machine), str(folder / "run"), "migrate", "--backup", str(backups),
        env=environment(machine))  # fmt: skip


def restore(machine: Machine, backups: Path) -> None:
    """Put the backup in the database's place where a migration changed its structure.

    A backup that is cut short, damaged or without our tables never takes that place. A copy beside
    the database that bears its whole name is one that an earlier call had begun to put there.
    """
    beside = machine.database.with_suffix(".restoring")
    if not beside.exists():
        found = whole_backup(backups)
        if found is None or structure(found) == structure(machine.database):
            return
        part = beside.with_name(f"{beside.name}.part")
        shutil.copyfile(found, part)
        owned(machine, part, 0o600)
        os.sync()
        part.replace(beside)
    for end in ("-wal", "-shm"):  # of the changed database; they would be played into the old one
        Path(f"{machine.database}{end}").unlink(missing_ok=True)
    beside.replace(machine.database)
    os.sync()
    say(f"the database is as before the release again, from {backups}")


def whole_backup(backups: Path) -> Path | None:
    """The newest backup in a folder that is a whole database of ours, if there is one."""
    found = sorted(backups.glob("unetops-*.db"))  # their names hold the time
    for file in reversed(found):
        if structure(file) is not None:
            return file
        say(f"{file} is no whole database of ours: it is not used")
    return None


def structure(database: Path) -> list[Any] | None:
    """Tables and version of a database; None if it is none of ours, or damaged."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            if opened.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
                return None
            tables = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
            found: list[Any] = opened.execute(tables).fetchall()
            versions = opened.execute("SELECT version_num FROM alembic_version").fetchall()
            return [*found, *versions] if versions else None
    except sqlite3.Error:
        return None
