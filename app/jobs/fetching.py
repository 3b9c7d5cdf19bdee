"""Download archives by URL, from public machines only."""

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

VERSION = 1  # raised by hand when the same archive gives different files
ARCHIVE, FILES, FACTS = "archive", "files", "fetched.json"  # in the job's folder
PROGRESS_INTERVAL_S = 0.5


def fetch_source(url: str, work: Path, settings: Settings, on_progress: Progress) -> None:
    """Download an archive and unpack it in `work`; an interrupted download resumes.

    Raises:
        RulesError: if it cannot be downloaded, is not an archive or is unsafe.
        Unprocessable: if it contains no file.
    """
    address = address_of(url)
    archive = fetch(
        address, work / ARCHIVE, on_progress=_throttled(on_progress),
        bounds=Bounds(size_bytes=settings.max_upload_bytes),
        transport=partial(PublicOnly, is_loopback_allowed=settings.fetch_loopback),
    )  # fmt: skip
    shutil.rmtree(work / FILES, ignore_errors=True)
    try:
        unpack(archive, work / FILES)
    except RulesError as error:
        raise _with_url(error, archive, address.redacted) from error
    if not any(path.is_file() for path in (work / FILES).rglob("*")):
        raise Unprocessable("the archive contains no file", where=address.redacted)
    facts = {
        "address": address.redacted, "archive_bytes": archive.stat().st_size,
        "archive_sha256": file_hash(archive),
    }  # fmt: skip
    write_json(work / FACTS, facts)


def store_fetched(settings: Settings, session: Session, work: Path, url: str) -> Artifact:
    """Store the files of `fetch_source` as a source; equal files are stored once."""
    facts: dict[str, Any] = json.loads((work / FACTS).read_bytes())
    label = address_of(url).name
    return artifacts.store_source(settings, session, work / FILES, label=label, facts=facts)


def _with_url(error: RulesError, archive: Path, url: str) -> RulesError:
    """The error with the URL instead of the archive's path."""
    return RulesError(
        error.what, where=(error.where or "").replace(str(archive), url) or url,
        expected=error.expected, found=error.found, remedy=error.remedy,
    )  # fmt: skip


def _throttled(show: Progress) -> Callable[[int, int], None]:
    """Report at most every `PROGRESS_INTERVAL_S`, and at the end."""
    shown_at = 0.0

    def report(done: int, total: int) -> None:
        nonlocal shown_at
        if time.monotonic() - shown_at > PROGRESS_INTERVAL_S or done == total:
            shown_at = time.monotonic()
            show(done, total)

    return report
