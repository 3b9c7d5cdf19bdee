"""Release folders: installed next to each other, and pruned."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from infra.machine.unetops_host.commands import pip
from infra.machine.unetops_host.environments import base_name, build, create_base, requirements
from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.files import sha256
from infra.machine.unetops_host.links import target
from infra.machine.unetops_host.machine import Machine

KEPT = 3  # number of releases, and of database backups


@dataclass(frozen=True, kw_only=True)
class ReleaseRequest:
    """The release to serve: its id, and a wheel or where to get one."""

    id: str
    lock: Path
    wheel: Path | None = None
    source: str | None = None
    torch_index: str | None = None
    address: str | None = None


def check_release_id(name: str) -> None:
    """Raise `HostError` if a release's id could lead to another folder than its own."""
    if not name or name.startswith(".") or not name.replace(".", "").replace("-", "").isalnum():
        raise HostError(f"invalid release id: expected a commit, found {name!r}")


def install_release(machine: Machine, given: ReleaseRequest) -> Path:
    """Install the release's folder next to the others; a second call reuses it.

    The same release with another lock or torch index gets a separate folder, since the first one
    may be serving and must remain available for a rollback.
    """
    if not given.lock.is_file():
        raise HostError(f"no lock file at {given.lock}: upload requirements.lock first")
    index = _index(machine, given)
    folder = machine.opt / "releases" / given.id
    if folder.exists():
        base = base_name(given.lock, index, requirements(folder))
        if facts_of(folder)["base"] == base:
            return folder
        folder = folder.with_name(f"{given.id}.{sha256(base.encode())[:8]}")
    return folder if folder.exists() else _new(machine, given, folder=folder, index=index)


def _index(machine: Machine, given: ReleaseRequest) -> str | None:
    """Package index of torch: that of first boot unless given; an empty one means none."""
    index = machine.facts().get("torch_index") if given.torch_index is None else given.torch_index
    return index or None


def _new(machine: Machine, given: ReleaseRequest, *, folder: Path, index: str | None) -> Path:
    wheel = given.wheel or build(machine, str(given.source))
    if not wheel.is_file():
        raise HostError(f"no wheel at {wheel}: upload it first")
    base = create_base(machine, wheel, given.lock, index)
    new = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(new, ignore_errors=True)
    pip(base, "install", "--no-deps", "--target", str(new), str(wheel))
    facts = {"id": given.id, "base": base.name, "source": given.source or wheel.name}
    (new / "release.json").write_text(json.dumps(facts, indent=1) + "\n")
    (new / "run").write_text(_start_script(folder, given.id, base))
    (new / "run").chmod(0o755)
    os.sync()  # rename only once everything is on disk
    new.rename(folder)
    return folder


def facts_of(folder: Path) -> dict[str, str]:
    """The id, base and source recorded when a release was installed."""
    found: dict[str, str] = json.loads((folder / "release.json").read_text())
    return found


def _start_script(folder: Path, commit: str, base: Path) -> str:
    # PYTHONSAFEPATH: import no code from the working directory, which the service can write.
    lines = [
        "#!/bin/sh",
        f"export PYTHONPATH={folder} PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1",
        f"export UNETOPS_COMMIT={commit}",
        f'exec {base}/bin/python -m app.cli "$@"',
    ]
    return "\n".join(lines) + "\n"


def prune(machine: Machine) -> None:
    """Remove old releases, environments that no remaining release uses, and old backups."""
    releases = machine.opt / "releases"
    linked = {target(machine, "current"), target(machine, "previous")}
    found = [path for path in releases.iterdir() if not path.name.startswith(".")]
    found.sort(key=lambda path: (path.name in linked, path.stat().st_mtime_ns), reverse=True)
    for path in [*found[KEPT:], *releases.glob(".*.new")]:
        shutil.rmtree(path)
    used = {facts_of(path)["base"] for path in found[:KEPT]}
    for path in (machine.opt / "base").iterdir():
        if path.name not in used:
            shutil.rmtree(path)
    for path in sorted((machine.mount / "backups").glob("*-*"))[:-KEPT]:
        shutil.rmtree(path)
