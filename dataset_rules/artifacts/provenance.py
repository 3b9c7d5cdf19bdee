"""Provenance of an artifact: code version, machine, times and inputs."""

import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

LIBRARIES = (
    "imagecodecs", "isal", "numpy", "opencv-python-headless", "pillow", "scipy", "simplejpeg",
    "tifffile", "torch",
)  # fmt: skip


def provenance_document(
    artifact_id: str,
    inputs: Sequence[Mapping[str, Any]],
    *,
    started: datetime,
    notes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Provenance record: commit, libraries, machine, times and inputs."""
    return {
        "id": artifact_id,
        "unetops": _version("unetops"),
        "commit": commit(),
        **deployment(),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "started": started.isoformat(timespec="seconds"),
        "ended": datetime.now(UTC).isoformat(timespec="seconds"),
        "inputs": list(inputs),
        **(notes or {}),
    }


def commit() -> str | None:
    """Commit of the running code, with the suffix '+changes' if files were modified."""
    return os.environ.get("UNETOPS_COMMIT") or checkout_commit(Path(__file__).resolve().parents[2])


@cache
def checkout_commit(root: Path) -> str | None:
    """Like `commit`, for the git checkout in `root`; None if there is none."""
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "HEAD")
    return head and head + ("+changes" if _git(root, "status", "--porcelain") else "")


def deployment() -> dict[str, dict[str, str]]:
    """Pulumi project, stack and droplet of the deployment; empty on other machines."""
    names = ("project", "stack", "droplet")
    values = {name: os.environ.get(f"UNETOPS_{name.upper()}", "") for name in names}
    known = {name: value for name, value in values.items() if value}
    return {"deployment": known} if known else {}


def _git(root: Path, *arguments: str) -> str:
    # Optional locks, used for index refreshes, would be left behind by a killed process.
    command = ["git", "--no-optional-locks", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
