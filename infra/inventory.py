"""The objects of an account that belong to a stack: their kinds and how to recognise them.

Names and tags are those that the program sets. An object without either, such as a reserved
address, belongs to the stack only if it is assigned to one of its droplets.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from infra.account import Account

Record = dict[str, Any]
PACKAGE = "digitalocean:index/"


@dataclass(frozen=True, kw_only=True)
class Kind:
    """One kind of object: how to list it, its Pulumi type and the command that deletes it."""

    word: str
    type: str
    operation: str
    """Method of DigitalOcean's client."""
    key: str
    """Key of the list in its response; each object is identified by `id`."""
    component: str
    """The program's component that creates it."""
    delete: str
    id: str = "id"
    within: tuple[str, str] | None = None
    """Property naming the object that it belongs to, and the matching argument of `operation`."""
    listed: bool = True
    """Whether to report it when it is in no state; snapshots, for one, are kept on purpose."""


def _kind(word: str, name: str, operation: str, key: str, **more: Any) -> Kind:
    return Kind(word=word, type=f"{PACKAGE}{name}", operation=operation, key=key, **more)


KINDS = (
    _kind("droplet", "droplet:Droplet", "droplets.list", "droplets",
          component="Host", delete="doctl compute droplet delete"),
    _kind("volume", "volume:Volume", "volumes.list", "volumes",
          component="DataVolume", delete="doctl compute volume delete"),
    _kind("firewall", "firewall:Firewall", "firewalls.list", "firewalls",
          component="Network", delete="doctl compute firewall delete"),
    _kind("vpc", "vpc:Vpc", "vpcs.list", "vpcs",
          component="Network", delete="doctl vpcs delete"),
    _kind("ssh-key", "sshKey:SshKey", "ssh_keys.list", "ssh_keys",
          component="SshKeys", delete="doctl compute ssh-key delete"),
    _kind("project", "project:Project", "projects.list", "projects",
          component="Project", delete="doctl projects delete"),
    _kind("uptime-check", "uptimeCheck:UptimeCheck", "uptime.list_checks", "checks",
          component="Monitoring", delete="doctl monitoring uptime delete"),
    _kind("alert", "monitorAlert:MonitorAlert", "monitoring.list_alert_policy", "policies",
          component="Monitoring", delete="doctl monitoring alert delete", id="uuid"),
    _kind("reserved-ip", "reservedIp:ReservedIp", "reserved_ips.list", "reserved_ips",
          component="Host", delete="doctl compute reserved-ip delete", id="ip"),
    _kind("snapshot", "volumeSnapshot:VolumeSnapshot", "snapshots.list", "snapshots",
          component="DataVolume", delete="doctl compute snapshot delete", listed=False),
    _kind("record", "dnsRecord:DnsRecord", "domains.list_records", "domain_records",
          component="Dns", delete="doctl compute domain records delete",
          within=("domain", "domain_name"), listed=False),
)  # fmt: skip
# Objects that cannot be found by name or imported, and what to do about them.
UNSEEN = {
    f"{PACKAGE}uptimeAlert:UptimeAlert": "may be a duplicate: control panel, Monitoring, Uptime",
    f"{PACKAGE}spacesKey:SpacesKey": "its secret is lost: delete it, control panel, Spaces Keys",
    f"{PACKAGE}spacesBucket:SpacesBucket": "if `pulumi up` reports that it exists: pulumi import "
    "digitalocean:index/spacesBucket:SpacesBucket NAME REGION,BUCKET",
}
BY_TYPE = {kind.type: kind for kind in KINDS}
BY_WORD = {kind.word: kind for kind in KINDS}


@dataclass(frozen=True)
class Thing:
    """An object of the account; `name` is that of its resource in the program."""

    kind: Kind
    id: str
    name: str
    facts: str = ""

    @property
    def word(self) -> str:
        """The argument of `--take`, such as `droplet/1234`."""
        return f"{self.kind.word}/{self.id}"


def tagged(account: Account, name: str) -> list[Thing]:
    """All objects with the stack's name or tag."""
    droplets: set[str] = set()
    found = []
    for kind in (kind for kind in KINDS if kind.listed):
        for record in account.listing(kind.operation, kind.key):
            resource = _resource_name(kind, record, name, droplets)
            if resource:
                found.append(Thing(kind, str(record[kind.id]), resource, _facts(record)))
                droplets |= {found[-1].id} if kind.word == "droplet" else set()
    return found


def candidates(account: Account, kind: Kind, inputs: Record, tag: str) -> list[Thing]:
    """Objects that a creation with these inputs may have produced."""
    filters = {}
    if kind.within:
        if not isinstance(inputs.get(kind.within[0]), str):
            return []
        filters = {kind.within[1]: inputs[kind.within[0]]}
    rows = account.listing(kind.operation, kind.key, **filters)
    matching: Iterable[Record] = (record for record in rows if fits(kind, record, inputs, tag=tag))
    prefix = f"{inputs[kind.within[0]]}," if kind.within else ""
    return [
        Thing(kind, f"{prefix}{record[kind.id]}", _name(record), _facts(record))
        for record in matching
    ]


def loose_addresses(account: Account, region: str) -> Iterator[Thing]:
    """Unassigned reserved addresses: they have no name, so their owner is unknown."""
    kind = BY_WORD["reserved-ip"]
    for record in account.listing(kind.operation, kind.key):
        if not record.get("droplet") and _region(record) in ("", region):
            yield Thing(kind, str(record[kind.id]), "", "assigned to no droplet")


def fits(kind: Kind, record: Record, inputs: Record, *, tag: str) -> bool:
    """Whether an object matches these inputs."""
    if kind.word == "reserved-ip":
        return False
    if kind.word == "alert":
        return bool(record.get("description") == inputs.get("description"))
    if kind.word == "record" and record.get("type") != inputs.get("type"):
        return False
    if tag in (inputs.get("tags") or ()) and "tags" in record and tag not in (record["tags"] or ()):
        return False
    same_region = _region(record) in ("", inputs.get("region", _region(record)))
    return bool(record.get("name") == inputs.get("name")) and same_region


def _resource_name(kind: Kind, record: Record, name: str, droplets: set[str]) -> str | None:
    if kind.word == "reserved-ip":
        return name if str((record.get("droplet") or {}).get("id")) in droplets else None
    if kind.word == "alert":
        about = str(record.get("description", ""))
        return f"{name}-{about.split()[1]}" if about.startswith(f"{name}: ") else None
    if kind.word == "ssh-key":
        ours = re.fullmatch(re.escape(name) + "-[0-9a-f]{8}", _name(record))
        return _name(record) if ours else None
    return name if _name(record) == name or name in (record.get("tags") or ()) else None


def _name(record: Record) -> str:
    return str(record.get("name", ""))


def _region(record: Record) -> str:
    region = record.get("region") or ""
    return str(region.get("slug", "")) if isinstance(region, dict) else str(region)


def _facts(record: Record) -> str:
    size = f"{record['size_gigabytes']} GiB" if "size_gigabytes" in record else ""
    since = f"since {record['created_at']}" if record.get("created_at") else ""
    return ", ".join(filter(None, [size, _region(record), since]))
