"""Folders of releases: laid beside each other, and pruned."""

import json
import os
import shutil
from dataclasses import dataclass
from pathlib import Path

from infra.machine.unetops_host.commands import pip
from infra.machine.unetops_host.environments import base_name, build, lay_base, requirements
from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.files import sha256
from infra.machine.unetops_host.links import target
from infra.machine.unetops_host.machine import Machine

KEPT = 3  # releases, and backups of the database


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """A release that shall serve: by its id, and by a wheel or by where one comes from."""

    id: str
    lock: Path
    wheel: Path | None = None
    source: str | None = None
    torch_index: str | None = None
    address: str | None = None


def refuse_name(name: str) -> None:
    """Raise `HostError` where a release's name could lead elsewhere than to its folder."""
    if not name or name.startswith(".") or not name.replace(".", "").replace("-", "").isalnum():
        raise HostError(f"the release's name is no name: expected a commit, found {name!r}")


def lay(machine: Machine, given: Wanted) -> Path:
    """The release's folder beside the others; a second call finds it.

    The same release on another lock or index of torch is a folder of its own, since the first one
    may serve now and must stay to go back to.
    """
    if not given.lock.is_file():
        raise HostError(f"no lock file at {given.lock}: send requirements.lock first")
    index = _index(machine, given)
    folder = machine.opt / "releases" / given.id
    if folder.exists():
        base = base_name(given.lock, index, requirements(folder))
        if facts_of(folder)["base"] == base:
            return folder
        folder = folder.with_name(f"{given.id}.{sha256(base.encode())[:8]}")
    return folder if folder.exists() else _new(machine, given, folder=folder, index=index)


def _index(machine: Machine, given: Wanted) -> str | None:
    """Where torch comes from: as first boot was told if nothing is said; nothing is an answer."""
    told = machine.facts().get("torch_index") if given.torch_index is None else given.torch_index
    return told or None


def _new(machine: Machine, given: Wanted, *, folder: Path, index: str | None) -> Path:
    wheel = given.wheel or build(machine, str(given.source))
    if not wheel.is_file():
        raise HostError(f"no wheel at {wheel}: send it first")
    base = lay_base(machine, wheel, given.lock, index)
    beside = folder.with_name(f".{folder.name}.new")
    shutil.rmtree(beside, ignore_errors=True)
    pip(base, "install", "--no-deps", "--target", str(beside), str(wheel))
    facts = {"id": given.id, "base": base.name, "source": given.source or wheel.name}
    (beside / "release.json").write_text(json.dumps(facts, indent=1) + "\n")
    (beside / "run").write_text(_start_script(folder, given.id, base))
    (beside / "run").chmod(0o755)
    os.sync()  # a name is given only to what lies on the disk
    beside.rename(folder)
    return folder


def facts_of(folder: Path) -> dict[str, str]:
    """What was noted when a release was laid: its id, base and source."""
    found: dict[str, str] = json.loads((folder / "release.json").read_text())
    return found


def _start_script(folder: Path, commit: str, base: Path) -> str:
    # PYTHONSAFEPATH: the working folder belongs to the service, and no code is taken from it.
    lines = [
        "#!/bin/sh",
        f"export PYTHONPATH={folder} PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1",
        f"export UNETOPS_COMMIT={commit}",
        f'exec {base}/bin/python -m app.cli "$@"',
    ]
    return "\n".join(lines) + "\n"


def prune(machine: Machine) -> None:
    """Remove old releases, environments that none of the others uses, and old backups."""
    releases = machine.opt / "releases"
    named = {target(machine, "current"), target(machine, "previous")}
    found = [path for path in releases.iterdir() if not path.name.startswith(".")]
    found.sort(key=lambda path: (path.name in named, path.stat().st_mtime_ns), reverse=True)
    for path in [*found[KEPT:], *releases.glob(".*.new")]:
        shutil.rmtree(path)
    used = {facts_of(path)["base"] for path in found[:KEPT]}
    for path in (machine.opt / "base").iterdir():
        if path.name not in used:
            shutil.rmtree(path)
    for path in sorted((machine.mount / "backups").glob("*-*"))[:-KEPT]:
        shutil.rmtree(path)
