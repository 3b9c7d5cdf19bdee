"""Powers off an idle machine."""

import contextlib
import time

from infra.machine.unetops_host.commands import systemctl
from infra.machine.unetops_host.console import say
from infra.machine.unetops_host.files import write
from infra.machine.unetops_host.locks import is_awake
from infra.machine.unetops_host.machine import Machine


def idle(machine: Machine, limit_s: float) -> None:
    """Power off if no job, release or fetch ran for the given time.

    A droplet that is powered off is still billed; only destroying it ends that.
    """
    mark = machine.at("/run/unetops-idle")
    if not mark.exists() or is_busy(machine):
        write(mark, "")
    elif time.time() - mark.stat().st_mtime > limit_s:
        say(f"no job for {limit_s / 60:.0f} minutes: powering off")
        systemctl("poweroff")


def is_busy(machine: Machine) -> bool:
    """Whether a step of a job or a long command of this program is running."""
    for file in machine.at("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if b"UNETOPS_JOB=" in file.read_bytes():
                return True
    return is_awake(machine) or (machine.state / "pending.json").exists()
