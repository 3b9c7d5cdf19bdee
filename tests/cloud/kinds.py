"""Differences between kinds of resources, as data.

Property names are those of the Pulumi SDK. `replaces` are the ForceNew marks in the source of the
Terraform provider that the Pulumi provider wraps (terraform-provider-digitalocean, `digitalocean/*/
resource_*.go`, 2.99); `unread` are the properties that its Read functions never set.
"""

from __future__ import annotations

import base64
import hashlib
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.cloud.catalogue import SIZES

Props = dict[str, Any]


@dataclass(frozen=True)
class Kind:
    replaces: frozenset[str] = frozenset()
    unread: frozenset[str] = frozenset()  # drift in these is not detected
    refs: dict[str, str] = field(default_factory=dict)  # property with ids -> kind it points at


def kind(replaces: str = "", unread: str = "", **refs: str) -> Kind:
    return Kind(frozenset(replaces.split()), frozenset(unread.split()), refs)


KINDS: dict[str, Kind] = {
    "Droplet": kind(
        "image region sshKeys userData vpcUuid monitoring dropletAgent publicNetworking",
        "image sshKeys userData dropletAgent gracefulShutdown resizeDisk",
        vpcUuid="Vpc",
        volumeIds="Volume",
        sshKeys="SshKey",
    ),
    "Volume": kind(
        "region name description snapshotId initialFilesystemType initialFilesystemLabel",
        "snapshotId",
        snapshotId="VolumeSnapshot",
    ),
    "VolumeAttachment": kind("dropletId volumeId", dropletId="Droplet", volumeId="Volume"),
    "ReservedIpAssignment": kind(
        "dropletId ipAddress", dropletId="Droplet", ipAddress="ReservedIp"
    ),
    "ReservedIp": kind("region", dropletId="Droplet"),
    "Vpc": kind("ipRange region"),
    "SshKey": kind("publicKey"),
    "DnsRecord": kind("domain type", domain="Domain"),
    "Domain": kind("name ipAddress"),
    "Firewall": kind(dropletIds="Droplet"),
    "Tag": kind("name"),
    "Project": kind(),
    "ProjectResources": kind("project", project="Project"),
    "SpacesBucket": kind("name region", "forceDestroy"),
    "SpacesBucketCorsConfiguration": kind("bucket region", bucket="SpacesBucket"),
    "SpacesKey": kind(),
    "UptimeCheck": kind(),
    "UptimeAlert": kind("checkId", checkId="UptimeCheck"),
    "MonitorAlert": kind(entities="Droplet"),
    "VolumeSnapshot": kind("name volumeId", volumeId="Volume"),
}
INTEGER_IDS = ("Droplet", "SshKey", "DnsRecord")
NAME_IS_ID = ("Tag", "SpacesBucket", "Domain")
TIMED = ("Droplet", "Firewall", "Vpc", "Project", "SpacesKey", "VolumeSnapshot")
KEPT = ("createdAt", "accessKey", "secretKey", "ipv4Address")  # an update does not touch these


def fingerprint(public_key: str) -> str:
    digest = hashlib.md5(base64.b64decode(public_key.split()[1])).hexdigest()
    return ":".join(digest[i : i + 2] for i in range(0, 32, 2))


def now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _droplet(id_: str, p: Props) -> Props:
    memory, vcpus, disk, price = SIZES[p["size"]]
    place = int(id_) % 250 + 1
    return {
        "memory": memory,
        "vcpus": vcpus,
        "disk": disk,
        "priceMonthly": price,
        "priceHourly": round(price / 672, 5),
        "dropletUrn": f"do:droplet:{id_}",
        "locked": False,
        "status": "active",
        "ipv4Address": f"203.0.113.{place}",
        "ipv4AddressPrivate": f"10.108.0.{place}",
    }


def _volume(id_: str, p: Props) -> Props:
    label = p.get("initialFilesystemLabel", "")
    return {"volumeUrn": f"do:volume:{id_}", "filesystemLabel": label, "dropletIds": []}


def _bucket(id_: str, p: Props) -> Props:
    region = p.get("region", "nyc3")
    host = f"{region}.digitaloceanspaces.com"
    names = {"bucketDomainName": f"{id_}.{host}", "endpoint": host}
    return {"bucketUrn": f"do:space:{id_}", "region": region, **names}


def _tag(id_: str, p: Props) -> Props:
    counted = ("total", "droplets", "volumes", "images", "databases", "volumeSnapshots")
    return {"totalResourceCount" if c == "total" else f"{c}Count": 0 for c in counted}


# Properties that the cloud adds to the given ones.
ADDED: dict[str, Callable[[str, Props], Props]] = {
    "Droplet": _droplet,
    "SshKey": lambda i, p: {"fingerprint": fingerprint(p["publicKey"])},
    "Volume": _volume,
    "Vpc": lambda i, p: {
        "vpcUrn": f"do:vpc:{i}",
        "default": False,
        "ipRange": p.get("ipRange", "10.108.0.0/20"),
    },
    "Firewall": lambda i, p: {"status": "succeeded", "pendingChanges": []},
    "ReservedIp": lambda i, p: {"ipAddress": i, "reservedIpUrn": f"do:reservedip:{i}"},
    "Tag": _tag,
    "Project": lambda i, p: {"ownerId": 1, "ownerUuid": "owner", "updatedAt": now()},
    "SpacesBucket": _bucket,
    "SpacesKey": lambda i, p: {"accessKey": f"AK{i[:8]}", "secretKey": f"secret-{i}"},
    "MonitorAlert": lambda i, p: {"uuid": i},
    "VolumeSnapshot": lambda i, p: {"minDiskSize": 1, "size": 0.1, "regions": []},
    "DnsRecord": lambda i, p: {"fqdn": f"{p.get('name', '@')}.{p['domain']}"},
    "Domain": lambda i, p: {"domainUrn": f"do:domain:{i}", "ttl": 1800},
}
