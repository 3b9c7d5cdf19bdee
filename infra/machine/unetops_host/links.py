"""The links `current` and `previous`: the release that serves, and the one before it."""

from pathlib import Path

from infra.machine.unetops_host.machine import Machine


def target(machine: Machine, link: str) -> str | None:
    """The release that a link points to."""
    path = machine.opt / link
    return path.readlink().name if path.is_symlink() else None


def switch(machine: Machine, link: str, release: str | None) -> None:
    """Point a link to a release atomically; None removes it."""
    path = machine.opt / link
    if release is None:
        path.unlink(missing_ok=True)
        return
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    new.symlink_to(Path("releases") / release)
    new.replace(path)
