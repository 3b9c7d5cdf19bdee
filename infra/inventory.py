"""What the account holds that is a stack's own: kinds of objects, and by what they are known.

Names and tags are those that the program gives; an object without either (a reserved address) is
the stack's own only where it leads to one of its droplets.
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
    """One kind of object: where it is listed, what it is for Pulumi, what deletes it."""

    word: str
    type: str
    operation: str
    """Method of DigitalOcean's client."""
    key: str
    """Its answer's list, of objects whose identity is `id`."""
    component: str
    """The component of the program that makes it."""
    delete: str
    id: str = "id"
    within: tuple[str, str] | None = None
    """Property that names the object it belongs to, and that argument of `operation`."""
    listed: bool = True
    """Whether one that is in no state is worth a line; snapshots, for one, stay on purpose."""


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
# What cannot be found by name, or has no importer that knows it again, and what to do about that.
UNSEEN = {
    f"{PACKAGE}uptimeAlert:UptimeAlert": "a second one may stay: control panel, Monitoring, Uptime",
    f"{PACKAGE}spacesKey:SpacesKey": "its secret is lost: delete it, control panel, Spaces Keys",
    f"{PACKAGE}spacesBucket:SpacesBucket": "if `pulumi up` says that it exists: pulumi import "
    "digitalocean:index/spacesBucket:SpacesBucket NAME REGION,BUCKET",
}
BY_TYPE = {kind.type: kind for kind in KINDS}
BY_WORD = {kind.word: kind for kind in KINDS}


@dataclass(frozen=True)
class Thing:
    """An object of the account; `name` is its resource's in the program."""

    kind: Kind
    id: str
    name: str
    facts: str = ""

    @property
    def word(self) -> str:
        """What `--take` wants: `droplet/1234`."""
        return f"{self.kind.word}/{self.id}"


def tagged(account: Account, name: str) -> list[Thing]:
    """All objects that carry the stack's name or tag."""
    droplets: set[str] = set()
    found = []
    for kind in (kind for kind in KINDS if kind.listed):
        for one in account.listing(kind.operation, kind.key):
            resource = _resource_name(kind, one, name, droplets)
            if resource:
                found.append(Thing(kind, str(one[kind.id]), resource, _facts(one)))
                droplets |= {found[-1].id} if kind.word == "droplet" else set()
    return found


def candidates(account: Account, kind: Kind, inputs: Record, tag: str) -> list[Thing]:
    """Objects that a creation with these inputs made, or may have made."""
    filters = {}
    if kind.within:
        if not isinstance(inputs.get(kind.within[0]), str):
            return []
        filters = {kind.within[1]: inputs[kind.within[0]]}
    rows = account.listing(kind.operation, kind.key, **filters)
    fitting: Iterable[Record] = (one for one in rows if fits(kind, one, inputs, tag=tag))
    prefix = f"{inputs[kind.within[0]]}," if kind.within else ""
    return [Thing(kind, f"{prefix}{one[kind.id]}", _name(one), _facts(one)) for one in fitting]


def loose_addresses(account: Account, region: str) -> Iterator[Thing]:
    """Reserved addresses that lead nowhere: they bear no name, so nobody knows whose they are."""
    kind = BY_WORD["reserved-ip"]
    for one in account.listing(kind.operation, kind.key):
        if not one.get("droplet") and _region(one) in ("", region):
            yield Thing(kind, str(one[kind.id]), "", "leads to no droplet")


def fits(kind: Kind, one: Record, inputs: Record, *, tag: str) -> bool:
    """Whether an object is what these inputs describe."""
    if kind.word == "reserved-ip":
        return False
    if kind.word == "alert":
        return bool(one.get("description") == inputs.get("description"))
    if kind.word == "record" and one.get("type") != inputs.get("type"):
        return False
    if tag in (inputs.get("tags") or ()) and "tags" in one and tag not in (one["tags"] or ()):
        return False
    same_region = _region(one) in ("", inputs.get("region", _region(one)))
    return bool(one.get("name") == inputs.get("name")) and same_region


def _resource_name(kind: Kind, one: Record, name: str, droplets: set[str]) -> str | None:
    if kind.word == "reserved-ip":
        return name if str((one.get("droplet") or {}).get("id")) in droplets else None
    if kind.word == "alert":
        about = str(one.get("description", ""))
        return f"{name}-{about.split()[1]}" if about.startswith(f"{name}: ") else None
    if kind.word == "ssh-key":
        ours = re.fullmatch(re.escape(name) + "-[0-9a-f]{8}", _name(one))
        return _name(one) if ours else None
    return name if _name(one) == name or name in (one.get("tags") or ()) else None


def _name(one: Record) -> str:
    return str(one.get("name", ""))


def _region(one: Record) -> str:
    region = one.get("region") or ""
    return str(region.get("slug", "")) if isinstance(region, dict) else str(region)


def _facts(one: Record) -> str:
    size = f"{one['size_gigabytes']} GiB" if "size_gigabytes" in one else ""
    since = f"since {one['created_at']}" if one.get("created_at") else ""
    return ", ".join(filter(None, [size, _region(one), since]))
