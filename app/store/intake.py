"""Import artifacts created on the command line into the service's store."""

import shutil
import uuid
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from app.ground.settings import Settings
from app.store import artifacts
from app.store.db import migrate, open_engine, transaction
from dataset_rules.artifacts.manifest import read_artifact


def import_artifacts(home: Path, folders: Sequence[Path]) -> None:
    """Copy artifacts into the store of `home` and register them; known ones are skipped."""
    settings = replace(Settings.from_environment(), home=home.expanduser().resolve())
    migrate(settings)
    engine = open_engine(settings)
    for folder in folders:
        if artifacts.is_intact(settings.home / "artifacts" / read_artifact(folder).id):
            continue
        copy = artifacts.work_folder(settings, uuid.uuid4().hex)
        shutil.copytree(folder, copy)
        with transaction(engine) as session:
            artifacts.store_folder(settings, session, copy, label=folder.name)
    engine.dispose()
