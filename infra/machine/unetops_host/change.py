"""Switching from one release to the next, with a rollback if any step fails."""

import contextlib
import json
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from infra.machine.unetops_host.address import set_address
from infra.machine.unetops_host.backups import migrate, restore
from infra.machine.unetops_host.commands import systemctl
from infra.machine.unetops_host.console import say
from infra.machine.unetops_host.errors import HostError, reason
from infra.machine.unetops_host.files import write
from infra.machine.unetops_host.health import health
from infra.machine.unetops_host.links import switch, target
from infra.machine.unetops_host.locks import release_lock
from infra.machine.unetops_host.machine import UNITS, Machine
from infra.machine.unetops_host.releases import (
    ReleaseRequest,
    check_release_id,
    install_release,
    prune,
)
from infra.machine.unetops_host.signals import ignore_signals


@dataclass(frozen=True)
class Pending:
    """A release that has stopped the service and is not yet known to be healthy."""

    id: str
    before: str | None  # the release that was serving
    previous: str | None  # the one before that
    backups: str  # folder with the backup of this attempt
    step: str = "migrating"  # then "switched"


def install(machine: Machine, given: ReleaseRequest) -> None:
    """Make a release serve, or keep the one that serves now."""
    check_release_id(given.id)
    with release_lock(machine):
        recover(machine)
        if given.address:
            set_address(machine, given.address)
        folder = install_release(machine, given)
        before = target(machine, "current")
        if before == folder.name:
            systemctl("start", *UNITS)
        else:
            change(machine, folder, before)
        health(machine, machine.health_s)
        prune(machine)
    say(f"release {given.id} serves")


def change(machine: Machine, folder: Path, before: str | None) -> None:
    """Stop, back up and migrate, switch, start; roll back if the new release fails.

    The service stops before the backup: a rollback would lose anything written after it.
    """
    backups = machine.mount / "backups" / f"{time.time_ns()}-{folder.name}"
    pending = Pending(folder.name, before, target(machine, "previous"), str(backups))
    write_pending(machine, pending)
    try:
        stop()
        migrate(machine, folder, backups)
        pending = replace(pending, step="switched")
        write_pending(machine, pending)
        switch(machine, "previous", before)
        switch(machine, "current", folder.name)
        systemctl("start", *UNITS)
        health(machine, machine.health_s)
    except BaseException as error:  # on any failure the service is stopped at this point
        with ignore_signals():
            outcome = try_roll_back(machine, pending)
        if not isinstance(error, Exception):
            raise
        raise HostError(f"release {folder.name} failed, {outcome}\n{reason(error)}") from error
    clear_pending(machine)


def stop() -> None:
    """Stop the workers, which lets their jobs save a checkpoint, and then the web process."""
    for unit in reversed(UNITS):
        systemctl("stop", unit)


def try_roll_back(machine: Machine, pending: Pending) -> str:
    """Roll back; returns the outcome as text, since the original failure is the one to raise."""
    try:
        roll_back(machine, pending)
    except Exception as error:
        return f"and so did its rollback, `unetops-host recover` retries it: {reason(error)}"
    return f"{pending.before} serves again"


def roll_back(machine: Machine, pending: Pending) -> None:
    """Make the old release serve again, with its database if the new one changed it.

    If a step fails, the old release is started all the same; `recover` then retries the rest.
    """
    try:
        stop()
        restore(machine, Path(pending.backups))
    finally:
        switch(machine, "current", pending.before)
        switch(machine, "previous", pending.previous)
        if pending.before:
            systemctl("start", *UNITS)
    if pending.before:
        with contextlib.suppress(HostError):  # the original failure is more informative
            health(machine, machine.health_s)
    clear_pending(machine)


def recover(machine: Machine) -> None:
    """Complete or roll back a release that was interrupted."""
    file = machine.state / "pending.json"
    if not file.exists():
        return
    pending = Pending(**json.loads(file.read_text()))
    say(f"release {pending.id} was interrupted")
    if pending.step == "switched" and target(machine, "current") == pending.id:
        # It may have served for hours since: if healthy, it stays, with everything it wrote.
        with contextlib.suppress(Exception):
            systemctl("start", *UNITS)
            health(machine, machine.health_s)
            clear_pending(machine)
            return
    with ignore_signals():
        roll_back(machine, pending)


def recover_locked(machine: Machine) -> None:
    """`recover`, unless a release is in progress."""
    with release_lock(machine):
        recover(machine)


def write_pending(machine: Machine, pending: Pending) -> None:
    """Record the progress of a release."""
    write(machine.state / "pending.json", json.dumps(asdict(pending)))


def clear_pending(machine: Machine) -> None:
    """Record that no release is in progress."""
    (machine.state / "pending.json").unlink(missing_ok=True)
