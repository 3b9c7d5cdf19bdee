"""A real S3 server on loopback: versitygw, built once into a cache."""

import fcntl
import functools
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from obstore.store import S3Store

from tests.cloud.cli import missing

VERSION = "1.8.0"
MODULE = f"github.com/versity/versitygw/cmd/versitygw@v{VERSION}"
KEY, SECRET = "tests", "secret-of-the-tests"


@functools.cache
def versitygw() -> Path:
    """Path of the executable; the first call builds it, which takes minutes."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "unetops" / f"versitygw-{VERSION}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # parallel test processes build only once
        if not (folder / "versitygw").exists():
            _build(folder)
    return folder / "versitygw"


def _build(folder: Path) -> None:
    if not shutil.which("go"):
        missing(f"no Go to build versitygw {VERSION}, the S3 server of the tests")
    sys.stderr.write(f"building versitygw {VERSION} into {folder}: takes minutes, only once\n")
    env = {**os.environ, "CGO_ENABLED": "0", "GOBIN": str(folder / "new")}
    done = subprocess.run(
        ["go", "install", "-p", "2", "-trimpath", MODULE], env=env, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        missing(f"versitygw could not be built: {done.stderr[-500:]}")
    (folder / "new" / "versitygw").replace(folder / "versitygw")


@contextmanager
def s3_server(folder: Path) -> Iterator[dict[str, str]]:
    """Run a server whose buckets are the folders in `folder`; yields the client environment."""
    program = versitygw()
    sidecar = folder.with_name("sidecar")
    for directory in (folder, sidecar):
        directory.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with (folder.parent / "s3.log").open("wb") as log:
        process = subprocess.Popen(
            [program, "--port", f"127.0.0.1:{port}", "--access", KEY, "--secret", SECRET,
             "posix", "--sidecar", str(sidecar), str(folder)], stdout=log, stderr=log,
        )  # fmt: skip
        try:
            _wait_for(port, process, folder.parent / "s3.log")
            yield {
                "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}", "AWS_REGION": "us-east-1",
            }  # fmt: skip
        finally:
            process.terminate()
            process.wait(10)


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        if process.poll() is not None:
            break
        time.sleep(0.1)
    pytest.fail(f"the S3 server did not start: {log.read_text()[-500:]}")


def bucket_of(environment: dict[str, str], name: str) -> S3Store:
    """A client that can write to a bucket."""
    return S3Store(
        name, endpoint=environment["AWS_ENDPOINT_URL"], access_key_id=KEY,
        secret_access_key=SECRET, region="us-east-1", client_options={"allow_http": True},
    )  # fmt: skip
