"""The web process: assembles the application."""

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

SOCKET = "UNETOPS_SOCKET"  # file descriptor of the supervisor's listening socket
PROXIES = ["127.0.0.1", "::1"]  # trusted for X-Forwarded-Proto and X-Forwarded-For
RESOURCES = (rules, sources, datasets, runs, models, predictions, measurements, job_routes, lineage)


def create_app(settings: Settings) -> FastAPI:
    """The application; it opens and migrates its database on startup."""

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        migrate(settings)
        engine = open_engine(settings)
        client = queue.open_client(engine)
        app.state.service = Service(settings, engine, client, Sessions(load_secret(settings)))
        with managed_uploads(settings):
            yield
        client.destroy()
        engine.dispose()

    app = FastAPI(
        title="unetops", lifespan=lifespan, openapi_url="/api/v1/openapi.json", docs_url=None,
        redoc_url=None,
    )  # fmt: skip
    app.add_middleware(AccessMiddleware, login_page=login_page)
    errors.install(app)
    include_router(app, health.router)
    for resource in RESOURCES:
        include_router(app, resource.router, prefix="/api/v1")
    include_router(app, pages.router)
    app.mount("/static", StaticFiles(directory=HERE / "static"), name="static")
    return app


def main() -> None:
    """Serve on the supervisor's socket."""
    die_with_parent()
    logs.configure("web")
    run(Settings.from_environment(), socket.socket(fileno=int(os.environ[SOCKET])))


def run(settings: Settings, listener: socket.socket) -> None:
    """Serve on a socket until SIGTERM; only proxies on this machine are trusted."""
    config = uvicorn.Config(
        create_app(settings), log_level="warning", timeout_graceful_shutdown=3,
        proxy_headers=True, forwarded_allow_ips=PROXIES,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listener])


if __name__ == "__main__":
    main()
