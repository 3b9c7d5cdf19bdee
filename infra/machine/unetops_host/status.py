"""The status: what serves, and how to identify this machine."""

import ssl
from pathlib import Path
from typing import Any

from infra.machine.unetops_host.commands import attempt
from infra.machine.unetops_host.files import sha256
from infra.machine.unetops_host.links import target
from infra.machine.unetops_host.machine import Machine
from infra.machine.unetops_host.releases import facts_of

AUTHORITY = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"


def status(machine: Machine) -> dict[str, Any]:
    """The releases that serve and served, and how to identify this machine and its volume."""
    file, boot_id = machine.at(AUTHORITY), Path("/proc/sys/kernel/random/boot_id")
    digits = sha256(ssl.PEM_cert_to_DER_cert(file.read_text())).upper() if file.exists() else ""
    fingerprint = ":".join(digits[start : start + 2] for start in range(0, len(digits), 2))
    device = machine.facts().get("device", "")
    volume = attempt("blkid", "-p", "-s", "UUID", "-o", "value", device).strip()
    return {
        "release": _release(machine, "current"),
        "previous": _release(machine, "previous"),
        "pending": (machine.state / "pending.json").exists(),
        "volume_uuid": volume or None,
        "certificate_authority": fingerprint or None,
        "boot_id": boot_id.read_text().strip(),
    }


def _release(machine: Machine, link: str) -> str | None:
    """The id of a release; the folder's name has a suffix if it was installed twice."""
    return facts_of(machine.opt / link)["id"] if target(machine, link) else None
