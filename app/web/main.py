"""The web process: wiring only."""

import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import uvicorn
from fastapi import FastAPI
from fastapi.staticfiles import StaticFiles

from app.access.guard import AccessMiddleware
from app.access.route_roles import include_router
from app.access.service import Service
from app.access.sessions import Sessions, load_secret
from app.ground import errors, logs
from app.ground.settings import Settings
from app.jobs import queue
from app.jobs.process import die_with_parent
from app.store.artifacts import managed_uploads
from app.store.db import migrate, open_engine
from app.web.pages import HERE, login_page
from app.web.routes import (
    datasets,
    health,
    lineage,
    measurements,
    models,
    pages,
    predictions,
    rules,
    runs,
    sources,
)
from app.web.routes import jobs as job_routes

SOCKET = "UNETOPS_SOCKET"  # number of the open socket that the supervisor hands over
PROXIES = ["127.0.0.1", "::1"]  # whose X-Forwarded-Proto and X-Forwarded-For count
NOUNS = (rules, sources, datasets, runs, models, predictions, measurements, job_routes, lineage)


def create_app(settings: Settings) -> FastAPI:
    """The application; its database is opened and brought up to date when it starts."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        migrate(settings)
        engine = open_engine(settings)
        client = queue.open_client(engine)
        app.state.service = Service(settings, engine, client, Sessions(load_secret(settings)))
        with managed_uploads(settings):
            yield
        client.destroy()
        engine.dispose()

    app = FastAPI(
        title="unetops", lifespan=life, openapi_url="/api/v1/openapi.json", docs_url=None,
        redoc_url=None,
    )  # fmt: skip
    app.add_middleware(AccessMiddleware, login_page=login_page)
    errors.install(app)
    include_router(app, health.router)
    for noun in NOUNS:
        include_router(app, noun.router, prefix="/api/v1")
    include_router(app, pages.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    return app


def main() -> None:
    """Serve on the socket that the supervisor opened."""
    die_with_parent()
    logs.configure("web")
    run(Settings.from_environment(), socket.socket(fileno=int(os.environ[SOCKET])))


def run(settings: Settings, listener: socket.socket) -> None:
    """Serve on a socket until SIGTERM; a proxy is believed only if it runs on this machine."""
    config = uvicorn.Config(
        create_app(settings), log_level="warning", timeout_graceful_shutdown=3,
        proxy_headers=True, forwarded_allow_ips=PROXIES,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
