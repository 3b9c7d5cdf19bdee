"""The Pulumi CLI for tests: from PATH, or built from pinned Go modules into a cache."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.missing import missing

MODULES = Path(__file__).parent / "engine"
SDK = "github.com/pulumi/pulumi/sdk/v3"
EXECUTOR = "pulumi-language-python-exec"
LAUNCHER = """#!/bin/sh
# The language host of the tests; the real one cannot be built from the Go module proxy.
PULUMI_PYTHON_EXECUTOR="$(dirname "$(readlink -f "$0")")/{executor}"
export PULUMI_PYTHON_EXECUTOR
exec "${{UNETOPS_TEST_PYTHON:?}}" "${{UNETOPS_LANGUAGE_HOST:?}}" "$@"
"""


def version() -> str:
    """The version that go.mod pins, such as `v3.259.0`."""
    lines = (MODULES / "go.mod").read_text().splitlines()
    return next(line.split()[-1] for line in lines if line.split()[:1] == [SDK])


@functools.cache
def pulumi_folder() -> Path:
    """The folder to put first on PATH. The first call builds the CLI (five minutes)."""
    on_path = shutil.which("pulumi")
    if on_path and _fits(Path(on_path)) and shutil.which("pulumi-language-python"):
        return Path(os.path.realpath(on_path)).parent
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = cache / "unetops" / f"pulumi-{version().removeprefix('v')}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # two test processes build once
        if not (folder / EXECUTOR).exists() or not _fits(folder / "pulumi"):
            _build(folder)
    _write_launcher(folder)
    return folder


def _fits(pulumi: Path) -> bool:
    if not pulumi.exists():
        return False
    env = {**os.environ, "PULUMI_SKIP_UPDATE_CHECK": "true"}
    done = subprocess.run([pulumi, "version"], env=env, capture_output=True, text=True, check=False)
    return done.stdout.strip() == version()


def _build(folder: Path) -> None:
    if not shutil.which("go"):
        missing(f"no pulumi {version()} on PATH and no Go to build it: install one of the two")
    sys.stderr.write(f"building pulumi {version()} into {folder}: minutes, once\n")
    # Two packages at a time limit the memory used; without cgo the binary runs on any Linux.
    env = {**os.environ, "CGO_ENABLED": "0"}
    flags = ["-mod=readonly", "-p", "2", "-trimpath", "-tags", "osusergo,grpcnotrace"]
    link = f"-s -w -X {SDK}/go/common/version.Version={version()}"
    main = "github.com/pulumi/pulumi/pkg/v3/cmd/pulumi"
    fresh = folder / "pulumi.new"
    _go("build", *flags, "-ldflags", link, "-o", str(fresh), main, env=env)
    modules = _go("list", "-mod=readonly", "-m", "-f", "{{.Dir}}", SDK, env=env).strip()
    shutil.copyfile(Path(modules, "python", "cmd", EXECUTOR), folder / EXECUTOR)
    (folder / EXECUTOR).chmod(0o755)
    fresh.replace(folder / "pulumi")


def _go(*words: str, env: dict[str, str]) -> str:
    done = subprocess.run(
        ["go", *words], cwd=MODULES, env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        missing(f"pulumi could not be built: go {words[0]} said: {done.stderr[-500:]}")
    return done.stdout


def _write_launcher(folder: Path) -> None:
    """Placed next to `pulumi`, which warns at every run about a host elsewhere on PATH."""
    path = folder / "pulumi-language-python"
    text = LAUNCHER.format(executor=EXECUTOR)
    if not path.exists() or path.read_text() != text:
        fresh = folder / f".launcher-{os.getpid()}"
        fresh.write_text(text)
        fresh.chmod(0o755)
        fresh.replace(path)
