"""What the routes share, made once at the start of the web process."""

from dataclasses import dataclass
from typing import Annotated

from dbos import DBOSClient
from fastapi import Depends, Request
from sqlalchemy import Engine

from app.access.sessions import Sessions
from app.ground.settings import Settings


@dataclass(frozen=True)
class Service:
    """Settings, database, queue and the signer of sessions."""

    settings: Settings
    engine: Engine
    client: DBOSClient
    sessions: Sessions


def service_of(request: Request) -> Service:
    """The one service of the application."""
    service: Service = request.app.state.service
    return service


Here = Annotated[Service, Depends(service_of)]
