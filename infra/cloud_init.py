"""user_data for a droplet's first boot, built from plain values.

Pure and independent of Pulumi: equal values give equal text. It contains no secrets: every
process on the machine can read user_data, and the stack's state stores it in clear text.
"""

import base64
import gzip
import json
from collections import Counter
from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

from infra import units
from infra.caddy import caddyfile
from infra.host_program import host_program

MAX_BYTES = 64 * 1024  # DigitalOcean's limit
LARGE_BYTES = 2000  # larger files are compressed
USER_ID = 612  # must not change: the files on the volume outlive the droplet
HEADER = "#cloud-config\n"
PACKAGES = ("caddy", "git", "nftables", "python3-venv", "unattended-upgrades")
# The top-level keys of cloud-init 22.4 that a droplet may use; its schema ignores unknown keys.
KNOWN = frozenset(
    {"apt", "bootcmd", "ca_certs", "chpasswd", "disable_root", "disk_setup", "final_message"}
    | {"fqdn", "fs_setup", "groups", "growpart", "hostname", "locale", "manage_etc_hosts"}
    | {"mount_default_fields", "mounts", "ntp", "package_reboot_if_required", "package_update"}
    | {"package_upgrade", "packages", "power_state", "preserve_hostname", "resize_rootfs"}
    | {"runcmd", "ssh", "ssh_authorized_keys", "ssh_deletekeys", "ssh_genkeytypes", "ssh_pwauth"}
    | {"swap", "timezone", "users", "write_files"}
)
SECRET_MARKS = ("PRIVATE KEY-----", "dop_v1_", "UNETOPS_SECRET=", "PULUMI_ACCESS_TOKEN")


@dataclass(frozen=True, kw_only=True)
class MachineSpec:
    """Everything that determines how a droplet is set up.

    Attributes:
        hostname: host name, also the name of the droplet.
        volume_name: name of the data volume, which identifies it below /dev/disk/by-id.
        deploy_keys: public keys with root access.
        domain: name that resolves to the droplet; None serves its address.
        acme_directory: ACME directory that issues certificates; None for Caddy's default.
        swap_gib: size of the swap file; 0 for none.
        dataset_url: archive that first boot fetches to the volume, optionally with `#sha256=`.
        gpu: whether the size has an NVIDIA GPU.
        gpu_idle_minutes: power off after so many minutes without jobs; None for never.
        torch_index: additional package index for torch.
        source: release that first boot installs; None waits for a wheel over SSH.
        release_id: id of that release.
        lock: contents of requirements.lock, the versions of all dependencies.
    """

    hostname: str
    volume_name: str
    deploy_keys: tuple[str, ...] = ()
    domain: str | None = None
    acme_directory: str | None = None
    swap_gib: int = 0
    dataset_url: str | None = None
    gpu: bool = False
    gpu_idle_minutes: int | None = None
    torch_index: str | None = None
    source: str | None = None
    release_id: str | None = None
    lock: str = ""
    stack: str = "dev"
    project: str = "unetops"

    @property
    def device(self) -> str:
        """Path of the volume's device on the droplet."""
        return f"/dev/disk/by-id/scsi-0DO_Volume_{self.volume_name}"


def user_data(spec: MachineSpec) -> str:
    """The droplet's user_data, checked.

    Raises:
        ValueError: if `check` finds an error in it, such as excessive length.
    """
    text = HEADER + yaml.safe_dump(cloud_config(spec), sort_keys=False, width=1000)
    mistakes = check(text)
    if mistakes:
        raise ValueError("user_data: " + "; ".join(mistakes))
    return text


def cloud_config(spec: MachineSpec) -> dict[str, Any]:
    """The user_data as a mapping, one entry per top-level key of cloud-init."""
    return {
        "hostname": spec.hostname,
        "disable_root": False,
        "ssh_pwauth": False,
        "package_update": True,
        "packages": list(PACKAGES),
        # Not fs_setup or a file of write_files, which run later: see the script.
        "bootcmd": [["sh", "-c", _machine("volume.sh"), "volume", spec.device]],
        "mounts": [_mount(spec.device)],
        "users": _users(spec.deploy_keys),
        "write_files": [_file(path, *file) for path, file in files(spec).items()],
        "runcmd": [[units.HOST, "boot"]],
    }


def files(spec: MachineSpec) -> dict[str, tuple[str, str | bytes]]:
    """Every file that first boot writes: path -> (permissions, contents)."""
    plain = {
        "/etc/unetops/environment": _environment(spec),
        "/etc/unetops/machine.json": json.dumps(_machine_facts(spec), indent=1) + "\n",
        "/etc/caddy/Caddyfile": caddyfile(spec.domain, spec.acme_directory),
        "/etc/nftables.conf": _machine("nftables.conf"),
        "/etc/sysctl.d/60-unetops.conf": _machine("sysctl.conf"),
        "/etc/systemd/journald.conf.d/60-unetops.conf": _machine("journald.conf"),
        "/etc/ssh/sshd_config.d/10-unetops.conf": _machine("sshd.conf"),
        "/etc/apt/apt.conf.d/60-unetops": _machine("apt.conf"),
        **{f"/etc/systemd/system/{name}": text for name, text in unit_files(spec).items()},
    }
    if spec.source:
        plain["/etc/unetops/requirements.lock"] = spec.lock
    programs: dict[str, str | bytes] = {
        units.HOST: host_program(),
        units.RUN: _machine("unetops.sh"),
    }
    return {
        **{path: ("0644", text) for path, text in plain.items()},
        **{path: ("0755", text) for path, text in programs.items()},
    }


def unit_files(spec: MachineSpec) -> dict[str, str]:
    """The systemd units: name -> text."""
    found = {
        "unetops-web.service": units.web_unit(),
        "unetops-worker.service": units.worker_unit(gpu=spec.gpu),
        "unetops-fetcher.service": units.fetcher_unit(),
        "unetops-recover.service": units.recover_unit(),
    }
    if spec.gpu_idle_minutes is not None:
        found |= units.idle_units(spec.gpu_idle_minutes)
    return found


def check(text: str) -> list[str]:
    """Errors in a user_data that cloud-init's own schema accepts; empty if there are none."""
    size = len(text.encode())
    found = [f"{size} bytes, the limit is {MAX_BYTES}"] if size > MAX_BYTES else []
    found += [f"contains a secret ({mark}...)" for mark in SECRET_MARKS if mark in text]
    if not text.startswith(HEADER):
        return [*found, "the first line is not #cloud-config: cloud-init would ignore the text"]
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [*found, f"not YAML: {error}"]
    if not isinstance(config, dict):
        return [*found, "not a mapping"]
    return [*found, *_unknown(config), *_duplicates(config)]


def _unknown(config: dict[str, Any]) -> list[str]:
    return [f"unknown key {key}: would be ignored" for key in config if key not in KNOWN]


def _duplicates(config: dict[str, Any]) -> list[str]:
    count = Counter(str(file.get("path")) for file in config.get("write_files") or [])
    return [f"{path} is written twice" for path, times in count.items() if times > 1]


def _mount(device: str) -> list[str]:
    # nofail: a machine without its volume still boots and can be inspected over SSH.
    options = "defaults,nofail,discard,noatime,x-systemd.device-timeout=60s"
    return [device, units.MOUNT, "ext4", options, "0", "2"]


def _users(keys: tuple[str, ...]) -> list[dict[str, Any]]:
    service = {
        "name": units.USER, "uid": USER_ID, "system": True, "no_create_home": True,
        "homedir": units.HOME, "shell": "/usr/sbin/nologin", "lock_passwd": True,
    }  # fmt: skip
    entry = {"name": "root", "lock_passwd": True, "ssh_authorized_keys": list(keys)}
    return [entry, service] if keys else [service]


def _environment(spec: MachineSpec) -> str:
    values = {
        "UNETOPS_HOME": units.HOME,
        "UNETOPS_REQUIRE_AUTH": "1",
        "UNETOPS_PROJECT": spec.project,
        "UNETOPS_STACK": spec.stack,
        "UNETOPS_DROPLET": spec.hostname,
    }
    return "".join(f"{name}={value}\n" for name, value in values.items())


def _machine_facts(spec: MachineSpec) -> dict[str, Any]:
    """Values that the host program reads."""
    return {
        "device": spec.device,
        "packages": list(PACKAGES),
        "swap_gib": spec.swap_gib,
        "dataset_url": spec.dataset_url,
        "gpu": spec.gpu,
        "torch_index": spec.torch_index,
        "source": spec.source,
        "release_id": spec.release_id,
    }


def _file(path: str, permissions: str, text: str | bytes) -> dict[str, str]:
    head = {"path": path, "permissions": permissions}
    if isinstance(text, str) and len(text.encode()) <= LARGE_BYTES:
        return {**head, "content": text}
    data = text.encode() if isinstance(text, str) else text
    # No time stamp in the archive: equal text gives equal user_data.
    packed = base64.b64encode(gzip.compress(data, 9, mtime=0)).decode()
    return {**head, "encoding": "gz+b64", "content": packed}


def _machine(name: str) -> str:
    return resources.files("infra").joinpath("machine", name).read_text()
