"""Reports of the doctor that jobs have left: one that is asked for, as data and as a page."""

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
    """A report, and the pictures that go with it."""

    document: dict[str, Any]
    pictures: Pictures

    def body(self, title: str) -> str:
        """HTML to be put into a page of ours."""
        return page_body(self.document, self.pictures, title=title)

    def page(self, title: str) -> str:
        """HTML that stands by itself."""
        return whole_page(self.document, self.pictures, title=title)


def find_examination(here: Service, source_id: str, job_id: str | None = None) -> Examination:
    """The report on a source that a job has left, without one the newest.

    Raises:
        NotFound: if there is no such source or job, or it has not looked at the source (yet).
    """
    with transaction(here.engine) as session:
        source = artifacts.find(session, source_id, kind="source")
        newest = queue.newest(session, kind="doctor", limit=1000)
        for job in [queue.find_job(session, job_id)] if job_id else newest:
            folder = artifacts.work_folder(here.settings, job.id)
            is_on_it = job.kind == "doctor" and job.inputs["source"] == source.id
            if is_on_it and job.result and (folder / REPORT).exists():
                return _read(folder)
    raise NotFound(
        "no report on this source yet", where=job_id or source_id,
        remedy=f"POST /api/v1/sources/{source_id}/doctor makes one",
    )  # fmt: skip


def _read(folder: Path) -> Examination:
    pictures = folder / PICTURES
    return Examination(
        json.loads((folder / REPORT).read_bytes()),
        Pictures.model_validate_json(pictures.read_bytes()) if pictures.exists() else NO_PICTURES,
    )
