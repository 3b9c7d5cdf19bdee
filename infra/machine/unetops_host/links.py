"""The links `current` and `previous`: which release serves, and which one did."""

from pathlib import Path

from infra.machine.unetops_host.machine import Machine


def target(machine: Machine, link: str) -> str | None:
    """The release that a link leads to."""
    path = machine.opt / link
    return path.readlink().name if path.is_symlink() else None


def switch(machine: Machine, link: str, release: str | None) -> None:
    """Lead a link to a release in one step; None removes it."""
    path = machine.opt / link
    if release is None:
        path.unlink(missing_ok=True)
        return
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(Path("releases") / release)
    beside.replace(path)
