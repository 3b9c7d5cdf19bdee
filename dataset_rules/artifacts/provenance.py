"""How an artifact came about: which code, on which machine, when, and from what."""

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
    """How an artifact came about: commit, libraries, machine, times, and what its inputs were."""
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
    """The commit of the running code, '+changes' behind it where files differ from it."""
    return os.environ.get("UNETOPS_COMMIT") or checked_out(Path(__file__).resolve().parents[2])


@cache
def checked_out(root: Path) -> str | None:
    """As `commit`, of the working copy in `root`; None where there is none."""
    if not (root / ".git").exists():
        return None
    head = _git(root, "rev-parse", "HEAD")
    return head and head + ("+changes" if _git(root, "status", "--porcelain") else "")


def deployment() -> dict[str, dict[str, str]]:
    """Where the code was deployed: Pulumi project, stack and droplet; empty on other machines."""
    names = ("project", "stack", "droplet")
    stated = {name: os.environ.get(f"UNETOPS_{name.upper()}", "") for name in names}
    known = {name: value for name, value in stated.items() if value}
    return {"deployment": known} if known else {}


def _git(root: Path, *words: str) -> str:
    # Without its locks, which git takes to write down what it saw: killed, it would leave them.
    command = ["git", "--no-optional-locks", "-C", str(root), *words]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)
    return done.stdout.strip() if done.returncode == 0 else ""


@cache
def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
