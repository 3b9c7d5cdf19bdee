"""The objects that all routes share, created at the start of the web process."""

from dataclasses import dataclass
from typing import Annotated

from dbos import DBOSClient
from fastapi import Depends, Request
from sqlalchemy import Engine

from app.access.sessions import Sessions
from app.ground.settings import Settings


@dataclass(frozen=True)
class Service:
    """Settings, database, job queue and session signer."""

    settings: Settings
    engine: Engine
    client: DBOSClient
    sessions: Sessions


def get_service(request: Request) -> Service:
    """FastAPI dependency: the application's `Service`."""
    service: Service = request.app.state.service
    return service


ServiceDep = Annotated[Service, Depends(get_service)]
