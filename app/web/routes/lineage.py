"""Lineage: the chain from a mask or artifact back to its source and commit."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel

from app.access.route_roles import GuardedRoute
from app.access.service import ServiceDep
from app.store import artifacts
from app.store.db import transaction
from app.store.tables import Artifact
from dataset_rules.artifacts.lineage import Link, LinkState, is_intact, trace

router = APIRouter(prefix="/lineage", tags=["lineage"], route_class=GuardedRoute)


class Chain(BaseModel):
    """The links, nearest first; `whole` is false if one of them is broken."""

    id: str
    kind: str
    whole: bool
    links: list[dict[str, Any]]


@router.get("/{artifact_id}")
def read_lineage(service: ServiceDep, artifact_id: str) -> Chain:
    """The lineage of an artifact, with every file rehashed; a prediction's starts at its mask."""
    with transaction(service.engine) as session:
        row = artifacts.find(session, artifact_id)
        place = artifacts.artifact_path(service.settings, row)
    links = _links(row, place)
    documents = [link.document() for link in links]
    return Chain(id=row.id, kind=row.kind, whole=is_intact(links), links=documents)


def _links(row: Artifact, place: Path) -> list[Link]:
    if row.kind in {"rules", "source"}:  # user input: chains end here
        return [Link(row.kind, row.id, LinkState.OK, row.label, row.record)]
    return trace(place / row.facts["mask"] if "mask" in row.facts else place)
