"""Everything of the first boot that cloud-init does not do."""

import contextlib
import json
import os
from pathlib import Path

from infra.machine.unetops_host.change import install
from infra.machine.unetops_host.commands import LAST_LINES, attempt, own, run, systemctl
from infra.machine.unetops_host.console import say
from infra.machine.unetops_host.download import fetch
from infra.machine.unetops_host.errors import HostError, reason
from infra.machine.unetops_host.files import write
from infra.machine.unetops_host.machine import UNITS, Machine
from infra.machine.unetops_host.releases import Wanted


def boot(machine: Machine) -> None:
    """Everything of the first boot that cloud-init does not do; its end stands in boot.json."""
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
    """The volume is there; without it data would go to the droplet's own disk."""
    if machine.root == Path("/") and not machine.mount.is_mount():
        device = machine.facts().get("device")
        raise HostError(
            f"the volume is not mounted at {machine.mount}: is {device} attached? If so, "
            "/var/log/cloud-init-output.log says why it was not formatted"
        )


def packages(machine: Machine) -> str:
    """What cloud-init was to install; it does not go on by itself where the power went."""
    wanted = machine.facts().get("packages") or []
    query = ("dpkg-query", "--show", "--showformat=${db:Status-Status}")
    lacking = [name for name in wanted if attempt(*query, name) != "installed"]
    if not lacking:
        return "all there"
    calm = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold")
    with contextlib.suppress(HostError):  # what it cannot finish, apt-get does
        run("dpkg", "--force-confold", "--configure", "-a", env=calm)
    run("apt-get", *wait, "update", env=calm)
    run("apt-get", *wait, "-y", "--fix-broken", "install", *lacking, env=calm)
    return f"installed now: {', '.join(lacking)}"


def folders(machine: Machine) -> None:
    """Folders on the volume and on the disk."""
    for name in ("home", "backups"):
        own(machine, machine.mount / name, 0o700)
    for path in (machine.mount / "incoming", machine.opt / "releases", machine.opt / "base"):
        path.mkdir(parents=True, exist_ok=True)
    machine.at("/etc/caddy/address.d").mkdir(parents=True, exist_ok=True)


def swap(machine: Machine) -> str:
    """The swap file; a machine that refuses it (a container) goes on without."""
    size, file = int(machine.facts().get("swap_gib") or 0), machine.at("/swapfile")
    table, line = machine.at("/etc/fstab"), f"{file} none swap sw 0 0\n"
    if not size:
        return "none asked for"
    if table.exists() and line in table.read_text():
        return "there already"
    try:
        file.unlink(missing_ok=True)  # of a boot that was cut off here
        file.touch(0o600)
        run("fallocate", "-l", f"{size}G", str(file))
        run("mkswap", str(file))
        run("swapon", str(file))
    except HostError as error:
        file.unlink(missing_ok=True)
        return f"not on: {error}"
    with table.open("a") as lines:
        lines.write(line)
    return f"{size} GiB"


def system(machine: Machine) -> str:
    """Kernel settings, log limits, firewall, SSH, units, Caddy."""
    refused = []
    # Refused by a container; a droplet takes them.
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
    """A GPU size has a driver that answers."""
    if not machine.facts().get("gpu"):
        return "no GPU"
    try:
        return run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").strip()
    except HostError as error:
        raise HostError(f"no GPU driver answers: take a GPU image\n{error}") from error


def first_release(machine: Machine) -> str:
    """The release that first boot is to install, where it is one."""
    facts = machine.facts()
    if not facts.get("source"):
        return "comes over SSH"
    lock = machine.at("/etc/unetops/requirements.lock")
    install(machine, Wanted(id=facts["release_id"], source=facts["source"], lock=lock))
    return str(facts["release_id"])


def first_dataset(machine: Machine) -> str:
    """The dataset that first boot is to fetch, where there is one."""
    url = machine.facts().get("dataset_url")
    return str(fetch(machine, url)) if url else "none asked for"
