import io
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI

from app.ground.settings import Settings
from app.jobs.process import PARENT, SHARE
from app.store.db import migrate, open_engine
from app.web.main import create_app
from dataset_rules.pixels.images import encode
from tests.drawn import draw_discs

PAPER = {
    "_token": "abc", "height": "48", "width": "32", "image_type": "2", "color_model": "1",
    "separate_file_format": "on", "description": "_mask",
}  # fmt: skip


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(home=tmp_path / "home")


@pytest.fixture
def engine(settings: Settings):
    migrate(settings)
    engine = open_engine(settings)
    yield engine
    engine.dispose()


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    return create_app(settings)


class Browser:
    """A client of the application at a given address, with cookies."""

    def __init__(self, app: FastAPI, portal: BlockingPortal, address: str) -> None:
        transport = httpx.ASGITransport(app, client=(address, 50_000), raise_app_exceptions=False)
        self._http = httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000")
        self._portal = portal
        self.cookies = self._http.cookies

    def request(self, method: str, url: str, **options) -> httpx.Response:
        return self._portal.call(partial(self._http.request, method, url, **options))

    def get(self, url: str, **options) -> httpx.Response:
        return self.request("GET", url, **options)

    def post(self, url: str, **options) -> httpx.Response:
        return self.request("POST", url, **options)

    def delete(self, url: str) -> httpx.Response:
        return self.request("DELETE", url)


@contextmanager
def browsing(app: FastAPI, address: str = "127.0.0.1") -> Iterator[Browser]:
    """A client at this address of the started application."""
    with (
        start_blocking_portal() as portal,
        portal.wrap_async_context_manager(app.router.lifespan_context(app)),
    ):
        yield Browser(app, portal, address)


@pytest.fixture
def http(app: FastAPI) -> Iterator[Browser]:
    with browsing(app) as client:
        yield client


@pytest.fixture
def run(discs: Path, tmp_path: Path) -> Path:
    """A run of four patches, with a barely trained model."""
    from unet.planning.fingerprint import fingerprint  # loads torch, which most tests do not need
    from unet.planning.plan import make_plan
    from unet.runs.train import train

    plan = make_plan(fingerprint([discs]), patches=4)
    plan = plan.model_copy(update={"widths": (4, 8), "batch": 2})
    return train([discs], tmp_path / "run", plan=plan)


def drawn_zip(count: int = 4, size: int = 64) -> bytes:
    """A zip of images and masks in two folders."""
    rng = np.random.default_rng(0)
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for index in range(count):
            image, instances = draw_discs(rng, size=size)
            mask = (instances > 0).astype(np.uint8) * 255
            archive.writestr(f"set/images/case{index:03}.png", encode(image, ".png"))
            archive.writestr(f"set/masks/case{index:03}.png", encode(mask, ".png"))
    return data.getvalue()


def post_source(http, count: int = 4) -> str:
    answer = http.post("/api/v1/sources", files={"file": ("set.zip", drawn_zip(count))})
    assert answer.status_code == 201, answer.text
    return answer.json()["id"]


def post_dataset(http, count: int = 4) -> str:
    """Submit a dataset; return its job."""
    rules = http.post("/api/v1/rules", json=PAPER).json()["id"]
    body = {"source": post_source(http, count), "rules": rules}
    answer = http.post("/api/v1/datasets", json=body)
    assert answer.status_code == 202, answer.text
    return answer.json()["job"]


def wait_for(condition, seconds: float = 90.0):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if value := condition():
            return value
        time.sleep(0.1)
    raise AssertionError(f"did not happen in {seconds} s")


def finished(http, job: str, seconds: float = 90.0) -> dict:
    def ended():
        view = http.get(f"/api/v1/jobs/{job}").json()
        return view if view["status"] not in {"queued", "running"} else None

    return wait_for(ended, seconds)


def start_worker(home: Path, share: str = "all") -> subprocess.Popen:
    with (home / "worker.err").open("ab") as errors:
        return subprocess.Popen(
            [sys.executable, "-m", "app.jobs.worker"], stderr=errors,
            env={**os.environ, "UNETOPS_HOME": str(home), PARENT: str(os.getpid()), SHARE: share},
        )  # fmt: skip


@contextmanager
def working(home: Path, share: str = "all") -> Iterator[subprocess.Popen]:
    process = start_worker(home, share)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(20)


def processes_of(job: str) -> list[int]:
    """All running processes of a job."""
    mark, found = f"UNETOPS_JOB={job}".encode(), []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and mark in (folder / "environ").read_bytes().split(b"\0"):
                found.append(int(folder.name))
        except OSError:
            continue
    return found
