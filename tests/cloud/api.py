"""DigitalOcean's HTTP API for the simulated cloud, for programs that use `pydo`."""

from __future__ import annotations

from typing import Any

from tests.cloud.cloud import Cloud
from tests.cloud.kinds import INTEGER_IDS, Props
from tests.infra.api_double import Api

# List in the API's answer -> kind, properties that have another name there.
LISTS: dict[str, tuple[str, dict[str, str]]] = {
    "droplets": ("Droplet", {"created_at": "createdAt"}),
    "volumes": ("Volume", {"size_gigabytes": "size"}),
    "firewalls": ("Firewall", {}),
    "vpcs": ("Vpc", {}),
    "ssh_keys": ("SshKey", {"public_key": "publicKey"}),
    "projects": ("Project", {}),
    "checks": ("UptimeCheck", {}),
    "policies": ("MonitorAlert", {"uuid": "uuid"}),
    "reserved_ips": ("ReservedIp", {"ip": "ipAddress"}),
    "snapshots": ("VolumeSnapshot", {}),
}
SLUG_REGIONS = ("Vpc", "Firewall")


class CloudApi(Api):
    """The contents of a cloud at the time of each request."""

    def __init__(self, cloud: Cloud) -> None:
        super().__init__()
        self.cloud = cloud

    def answer(self, path: str, query: dict[str, str]) -> tuple[int, dict[str, Any]]:
        with self.cloud.lock:
            self.objects |= {key: self._rows(key) for key in LISTS}
        return super().answer(path, query)

    def _rows(self, key: str) -> list[Props]:
        kind, names = LISTS[key]
        return [self._row(kind, id_, names) for id_ in self.cloud.objects[kind]]

    def _row(self, kind: str, id_: str, names: dict[str, str]) -> Props:
        held = self.cloud.get(kind, id_)
        row = {k: held[k] for k in ("name", "tags", "description") if k in held}
        row |= {theirs: held[ours] for theirs, ours in names.items() if ours in held}
        region = held.get("region")
        row["region"] = region if kind in SLUG_REGIONS or not region else {"slug": region}
        if kind == "ReservedIp":
            row["droplet"] = self._droplet_behind(id_)
        return {"id": int(id_) if kind in INTEGER_IDS else id_, **row}

    def _droplet_behind(self, address: str) -> Props | None:
        for held in self.cloud.objects["ReservedIpAssignment"].values():
            if held["ipAddress"] == address:
                return {"id": int(held["dropletId"])}
        return None
