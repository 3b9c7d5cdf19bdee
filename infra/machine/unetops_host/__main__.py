"""The host program: first boot, releases, health, tokens, datasets by URL.

Standard library only; Python 3.11. Run as root. Every command can be killed at any line and rerun:
pending.json records a release in progress, and the next command completes it or rolls it back.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from infra.machine.unetops_host import signals
from infra.machine.unetops_host.change import install, recover_locked
from infra.machine.unetops_host.console import say, show
from infra.machine.unetops_host.download import fetch
from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.first_boot import boot
from infra.machine.unetops_host.health import health
from infra.machine.unetops_host.idle import idle
from infra.machine.unetops_host.locks import LONG, awake
from infra.machine.unetops_host.machine import Machine
from infra.machine.unetops_host.releases import ReleaseRequest
from infra.machine.unetops_host.status import status
from infra.machine.unetops_host.tokens import token


def main(arguments: Sequence[str] | None = None, machine: Machine | None = None) -> int:
    """Run one command; returns 0, or 1 after printing the reason to standard error."""
    given = _parser().parse_args(arguments)
    machine = machine or Machine()
    signals.install_handlers()
    try:
        with awake(machine) if given.command in LONG else contextlib.nullcontext():
            given.run(machine, given)
    except HostError as error:
        say(f"unetops-host {given.command}: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unetops-host", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[[Machine, argparse.Namespace], None]) -> Any:
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        return command

    release = add("release", lambda m, a: install(m, _release_request(a)))
    release.add_argument("--id", required=True)
    origin = release.add_mutually_exclusive_group(required=True)
    origin.add_argument("--wheel", type=Path)
    origin.add_argument("--source", help="URL of a wheel, or git+https://...@COMMIT")
    release.add_argument("--lock", type=Path, required=True)
    release.add_argument("--torch-index", help="'' for none; default: the index of first boot")
    release.add_argument("--address", help="address for visitors whose client sends no server name")
    add("health", lambda m, a: health(m, a.wait)).add_argument("--wait", type=float, default=0.0)
    token_command = add("token", lambda m, a: token(m, another=a.new))
    token_command.add_argument("--new", action="store_true", help="even if there already is one")
    add("status", lambda m, _: show(json.dumps(status(m), indent=1)))
    add("fetch", lambda m, a: show(str(fetch(m, a.url)))).add_argument("url")
    add("boot", lambda m, _: boot(m))
    add("recover", lambda m, _: recover_locked(m))
    idle_command = add("idle", lambda m, a: idle(m, a.minutes * 60))
    idle_command.add_argument("--minutes", type=float, required=True)
    return parser


def _release_request(given: argparse.Namespace) -> ReleaseRequest:
    names = (field.name for field in fields(ReleaseRequest))
    return ReleaseRequest(**{name: getattr(given, name) for name in names})


if __name__ == "__main__":
    sys.exit(main())
