"""Stored doctor reports, as data and as HTML."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.access.service import Service
from app.ground.errors import NotFound
from app.jobs import queue
from app.store import artifacts
from app.store.artifacts import REPORT
from app.store.db import transaction
from dataset_rules.doctor.page import NO_PICTURES, page_body, whole_page
from dataset_rules.doctor.previews import Pictures

PICTURES = "pictures.json"


@dataclass(frozen=True)
class Examination:
    """A doctor report and its pictures."""

    document: dict[str, Any]
    pictures: Pictures

    def body(self, title: str) -> str:
        """HTML fragment to embed in a page."""
        return page_body(self.document, self.pictures, title=title)

    def page(self, title: str) -> str:
        """Self-contained HTML page."""
        return whole_page(self.document, self.pictures, title=title)


def find_examination(service: Service, source_id: str, job_id: str | None = None) -> Examination:
    """The report on a source by the given job, by default the newest.

    Raises:
        NotFound: if there is no such source or job, or the job has no report on the source (yet).
    """
    with transaction(service.engine) as session:
        source = artifacts.find(session, source_id, kind="source")
        newest = queue.list_jobs(session, kind="doctor", limit=1000)
        for job in [queue.find_job(session, job_id)] if job_id else newest:
            folder = artifacts.work_folder(service.settings, job.id)
            is_on_source = job.kind == "doctor" and job.inputs["source"] == source.id
            if is_on_source and job.result and (folder / REPORT).exists():
                return _read(folder)
    raise NotFound(
        "no report on this source yet", where=job_id or source_id,
        remedy=f"POST /api/v1/sources/{source_id}/doctor creates one",
    )  # fmt: skip


def _read(folder: Path) -> Examination:
    pictures = folder / PICTURES
    return Examination(
        json.loads((folder / REPORT).read_bytes()),
        Pictures.model_validate_json(pictures.read_bytes()) if pictures.exists() else NO_PICTURES,
    )
