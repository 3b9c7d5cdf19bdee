"""The first administrator's token."""

import json

from infra.machine.unetops_host.commands import as_service, environment, run
from infra.machine.unetops_host.console import show
from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.links import target
from infra.machine.unetops_host.machine import Machine


def token(machine: Machine, *, another: bool) -> None:
    """Show the first administrator token, once."""
    command = [*as_service(machine), str(machine.opt / "current/run"), "token"]
    if target(machine, "current") is None:
        raise HostError("no release serves yet: the service's own program creates tokens")
    listed = json.loads(run(*command, "list", "--json", env=environment(machine)))
    if not another and any(row["role"] == "admin" and row["state"] == "valid" for row in listed):
        raise HostError("an administrator token was already shown; --new creates another")
    made = run(*command, "create", "--role", "admin", "--label", "host", env=environment(machine))
    show(made.strip())
