"""What the service fetches from elsewhere: an archive, from public machines only."""

import json
import shutil
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from app.ground.errors import Unprocessable
from app.ground.settings import Settings
from app.store import artifacts
from app.store.tables import Artifact
from dataset_rules.artifacts.hashes import file_hash
from dataset_rules.ground.disk import write_json
from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.address import address_of
from dataset_rules.sources.archive import unpack
from dataset_rules.sources.download import Bounds, fetch
from dataset_rules.sources.limits import Progress
from dataset_rules.sources.public_addresses import PublicOnly

VERSION = 1  # raised by hand when the same archive gives other files
ARCHIVE, FILES, FACTS = "archive", "files", "fetched.json"  # in the folder of the job
TELL_EVERY_S = 0.5


def fetch_source(url: str, work: Path, settings: Settings, on_progress: Progress) -> None:
    """Fetch an archive and unpack it below `work`; an earlier try goes on where it was.

    Raises:
        RulesError: if it cannot be had, is none, or holds what no archive should.
        Unprocessable: if there is no file in it.
    """
    address = address_of(url)
    archive = fetch(
        address, work / ARCHIVE, on_progress=_now_and_then(on_progress),
        bounds=Bounds(size_bytes=settings.max_upload_bytes),
        transport=partial(PublicOnly, is_loopback_allowed=settings.fetch_loopback),
    )  # fmt: skip
    shutil.rmtree(work / FILES, ignore_errors=True)
    try:
        unpack(archive, work / FILES)
    except RulesError as error:
        raise _told_of(error, archive, address.redacted) from error
    if not any(path.is_file() for path in (work / FILES).rglob("*")):
        raise Unprocessable("there is no file in the archive", where=address.redacted)
    facts = {
        "address": address.redacted, "archive_bytes": archive.stat().st_size,
        "archive_sha256": file_hash(archive),
    }  # fmt: skip
    write_json(work / FACTS, facts)


def keep_fetched(settings: Settings, session: Session, work: Path, url: str) -> Artifact:
    """The stored source of what `fetch_source` left; equal files are stored once."""
    facts: dict[str, Any] = json.loads((work / FACTS).read_bytes())
    label = address_of(url).name
    return artifacts.keep_source(settings, session, work / FILES, label=label, facts=facts)


def _told_of(error: RulesError, archive: Path, place: str) -> RulesError:
    return RulesError(
        error.what, where=(error.where or "").replace(str(archive), place) or place,
        expected=error.expected, found=error.found, remedy=error.remedy,
    )  # fmt: skip


def _now_and_then(show: Progress) -> Callable[[int, int], None]:
    """Every block is told to nobody; some are enough."""
    told_at = 0.0

    def tell(done: int, total: int) -> None:
        nonlocal told_at
        if time.monotonic() - told_at > TELL_EVERY_S or done == total:
            told_at = time.monotonic()
            show(done, total)

    return tell
