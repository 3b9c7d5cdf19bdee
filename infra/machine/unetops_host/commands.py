"""Runs commands, as root or as the user of the service."""

import os
import pwd
import shutil
import subprocess
from pathlib import Path

from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.machine import Machine

LAST_LINES = 30


def run(*command: str, env: dict[str, str] | None = None) -> str:
    """Run a command and return its output.

    Raises:
        HostError: if it fails, with the last lines of its output.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    except OSError as error:
        raise HostError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise HostError(f"`{' '.join(command)}` exited with {done.returncode}\n{last}")
    return done.stdout


def attempt(*command: str) -> str:
    """Run a command and return its output; empty if it fails."""
    try:
        return run(*command)
    except HostError:
        return ""


def systemctl(*words: str) -> None:
    """Run systemctl."""
    run("systemctl", *words)


def pip(environment_folder: Path, verb: str, *words: str) -> None:
    """Run an environment's pip."""
    quiet = ("--quiet", "--no-input", "--disable-pip-version-check")
    run(str(environment_folder / "bin/python"), "-m", "pip", verb, *quiet, *words)


def as_service(machine: Machine) -> list[str]:
    """Command prefix that runs a command as the service's user."""
    try:
        pwd.getpwnam(machine.user)
    except KeyError:
        return []
    return ["setpriv", f"--reuid={machine.user}", f"--regid={machine.user}", "--init-groups", "--"]


def environment(machine: Machine) -> dict[str, str]:
    """The environment that the units give the service."""
    lines = machine.at("/etc/unetops/environment").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **given}


def make_owned_folder(machine: Machine, folder: Path, mode: int) -> None:
    """Create a folder owned by the service's user."""
    folder.mkdir(parents=True, exist_ok=True)
    set_owner(machine, folder, mode)


def set_owner(machine: Machine, path: Path, mode: int) -> None:
    """Make the service's user the owner of a path."""
    path.chmod(mode)
    if as_service(machine):
        shutil.chown(path, machine.user, machine.user)
