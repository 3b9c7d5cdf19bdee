"""The part of the first boot that cloud-init does not do."""

import contextlib
import json
import os
from pathlib import Path

from infra.machine.unetops_host.change import install
from infra.machine.unetops_host.commands import (
    LAST_LINES,
    attempt,
    make_owned_folder,
    run,
    systemctl,
)
from infra.machine.unetops_host.console import say
from infra.machine.unetops_host.download import fetch
from infra.machine.unetops_host.errors import HostError, reason
from infra.machine.unetops_host.files import write
from infra.machine.unetops_host.machine import UNITS, Machine
from infra.machine.unetops_host.releases import ReleaseRequest


def boot(machine: Machine) -> None:
    """Run the steps of the first boot that cloud-init does not do; boot.json has the result."""
    lines: list[str] = []
    steps = (mounted, packages, folders, swap, system, driver, first_release, first_dataset)
    try:
        for step in steps:
            lines.append(f"{step.__name__}: {step(machine) or 'done'}")
            say(lines[-1])
    except Exception as error:
        lines += reason(error).splitlines()
        _write_boot(machine, "failed", lines)
        raise HostError(f"first boot failed in {step.__name__}\n{reason(error)}") from error
    _write_boot(machine, "done", lines)


def _write_boot(machine: Machine, end: str, lines: list[str]) -> None:
    made = {"status": end, "log": lines[-LAST_LINES:]}
    write(machine.state / "boot.json", json.dumps(made, indent=1) + "\n")


def mounted(machine: Machine) -> None:
    """Check that the volume is mounted; without it, data would go to the droplet's own disk."""
    if machine.root == Path("/") and not machine.mount.is_mount():
        device = machine.facts().get("device")
        raise HostError(
            f"the volume is not mounted at {machine.mount}: is {device} attached? If so, "
            "/var/log/cloud-init-output.log tells why it was not formatted"
        )


def packages(machine: Machine) -> str:
    """Install what cloud-init should have: it does not resume after a power cut."""
    wanted = machine.facts().get("packages") or []
    query = ("dpkg-query", "--show", "--showformat=${db:Status-Status}")
    lacking = [name for name in wanted if attempt(*query, name) != "installed"]
    if not lacking:
        return "all installed"
    quiet_env = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold")
    with contextlib.suppress(HostError):  # apt-get does what it cannot complete
        run("dpkg", "--force-confold", "--configure", "-a", env=quiet_env)
    broken = _half_unpacked()
    for name in broken:  # neither dpkg nor apt-get gets past one; it is installed anew below
        run("dpkg", "--force-remove-reinstreq", "--force-depends", "--remove", name, env=quiet_env)
    names = [*lacking, *(name for name in broken if name not in lacking)]
    run("apt-get", *wait, "update", env=quiet_env)
    run("apt-get", *wait, "-y", "--fix-broken", "install", *names, env=quiet_env)
    return f"installed now: {', '.join(names)}"


def _half_unpacked() -> list[str]:
    """Packages whose unpacking was cut off: dpkg wants them reinstalled before anything else."""
    shown = attempt("dpkg-query", "--show", "--showformat=${Package} ${db:Status-Eflag}\\n")
    return [line.split()[0] for line in shown.splitlines() if line.endswith(" reinstreq")]


def folders(machine: Machine) -> None:
    """Create the folders on the volume and on the disk."""
    for name in ("home", "backups"):
        make_owned_folder(machine, machine.mount / name, 0o700)
    for path in (machine.mount / "incoming", machine.opt / "releases", machine.opt / "base"):
        path.mkdir(parents=True, exist_ok=True)
    machine.at("/etc/caddy/address.d").mkdir(parents=True, exist_ok=True)


def swap(machine: Machine) -> str:
    """Create the swap file; a machine that does not allow it (a container) continues without."""
    size, file = int(machine.facts().get("swap_gib") or 0), machine.at("/swapfile")
    table, line = machine.at("/etc/fstab"), f"{file} none swap sw 0 0\n"
    if not size:
        return "none requested"
    if table.exists() and line in table.read_text():
        return "exists already"
    try:
        file.unlink(missing_ok=True)  # left by an interrupted boot
        file.touch(0o600)
        run("fallocate", "-l", f"{size}G", str(file))
        run("mkswap", str(file))
        run("swapon", str(file))
    except HostError as error:
        file.unlink(missing_ok=True)
        return f"not enabled: {error}"
    with table.open("a") as lines:
        lines.write(line)
    return f"{size} GiB"


def system(machine: Machine) -> str:
    """Set up kernel settings, log limits, firewall, SSH, units and Caddy."""
    refused = []
    # Containers refuse these; droplets accept them.
    for command in (("sysctl", "--system"), ("systemctl", "restart", "systemd-journald")):
        with contextlib.suppress(HostError):
            run(*command)
            continue
        refused.append(" ".join(command))
    systemctl("daemon-reload")
    systemctl("enable", *UNITS, "unetops-recover.service", "nftables.service", "caddy.service")
    systemctl("restart", "nftables.service")
    systemctl("reload-or-restart", "ssh.service")
    systemctl("restart", "caddy.service")
    if machine.at("/etc/systemd/system/unetops-idle.timer").exists():
        systemctl("enable", "--now", "unetops-idle.timer")
    return f"refused: {', '.join(refused)}" if refused else "done"


def driver(machine: Machine) -> str:
    """Check that the driver of a GPU machine responds."""
    if not machine.facts().get("gpu"):
        return "no GPU"
    try:
        return run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").strip()
    except HostError as error:
        raise HostError(f"no GPU driver responds: use a GPU image\n{error}") from error


def first_release(machine: Machine) -> str:
    """Install the release given for first boot, if any."""
    facts = machine.facts()
    if not facts.get("source"):
        return "comes over SSH"
    lock = machine.at("/etc/unetops/requirements.lock")
    install(machine, ReleaseRequest(id=facts["release_id"], source=facts["source"], lock=lock))
    return str(facts["release_id"])


def first_dataset(machine: Machine) -> str:
    """Fetch the dataset given for first boot, if any."""
    url = machine.facts().get("dataset_url")
    return str(fetch(machine, url)) if url else "none requested"
