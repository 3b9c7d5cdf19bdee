"""The database: backed up and migrated by a release, restored if that release fails."""

import contextlib
import os
import shutil
import sqlite3
from pathlib import Path
from typing import Any

from infra.machine.unetops_host.commands import (
    as_service,
    environment,
    make_owned_folder,
    run,
    set_owner,
)
from infra.machine.unetops_host.console import say
from infra.machine.unetops_host.machine import Machine


def migrate(machine: Machine, folder: Path, backups: Path) -> None:
    """Back up the database and migrate it to the release's version."""
    make_owned_folder(machine, backups, 0o700)
    run(*as_service(machine), str(folder / "run"), "migrate", "--backup", str(backups),
        env=environment(machine))  # fmt: skip


def restore(machine: Machine, backups: Path) -> None:
    """Replace the database by the backup if a migration changed its structure.

    A backup that is truncated, damaged or without our tables is never used. A copy named
    `*.restoring` next to the database is complete: an earlier call was interrupted after making it.
    """
    restoring = machine.database.with_suffix(".restoring")
    if not restoring.exists():
        found = newest_backup(backups)
        if found is None or structure(found) == structure(machine.database):
            return
        partial = restoring.with_name(f"{restoring.name}.part")
        shutil.copyfile(found, partial)
        set_owner(machine, partial, 0o600)
        os.sync()
        partial.replace(restoring)
    for suffix in ("-wal", "-shm"):  # of the migrated database; would be replayed into the old
        Path(f"{machine.database}{suffix}").unlink(missing_ok=True)
    restoring.replace(machine.database)
    os.sync()
    say(f"the database was restored to its state before the release, from {backups}")


def newest_backup(backups: Path) -> Path | None:
    """The newest intact backup of our database in a folder, if there is one."""
    found = sorted(backups.glob("unetops-*.db"))  # their names contain the time
    for file in reversed(found):
        if structure(file) is not None:
            return file
        say(f"{file} is not an intact database of ours: ignored")
    return None


def structure(database: Path) -> list[Any] | None:
    """Tables and version of a database; None if it is damaged or not ours."""
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
