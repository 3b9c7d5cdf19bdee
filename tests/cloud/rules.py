"""Requests that the cloud rejects, with the API's messages where known.

Each rule states its source. API: docs.digitalocean.com/reference/api; TF: the source of
terraform-provider-digitalocean 2.99; seen: quoted in public threads about the message.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from tests.cloud.catalogue import GPU_REGIONS, IMAGES, REGIONS, SIZES, USER_DATA_LIMIT
from tests.cloud.faults import CloudError
from tests.cloud.kinds import KINDS, Props, fingerprint

if TYPE_CHECKING:
    from tests.cloud.cloud import Cloud

Rule = Callable[["Cloud", str, Props], None]


def plain_id(value: object) -> str:
    """Ids arrive as strings or as JSON numbers (VolumeAttachment.dropletId: 1001.0)."""
    return str(int(value)) if isinstance(value, int | float) else str(value)


def check_common(cloud: Cloud, kind: str, props: Props) -> None:
    """Check that everything a request refers to exists, including its region."""
    for name, target in KINDS[kind].refs.items():
        value = props.get(name)
        for ref in value if isinstance(value, list) else [value]:
            if ref not in (None, "") and not _known(cloud, target, plain_id(ref)):
                raise CloudError(422, f"{name}: no {target} {plain_id(ref)}")
    region = props.get("region", "nyc3")
    if region not in REGIONS and region not in GPU_REGIONS:
        raise CloudError(422, f"You specified an invalid region: {region}")


def _known(cloud: Cloud, kind: str, ref: str) -> bool:
    objects = cloud.objects[kind]
    return ref in objects or any(o.get("fingerprint") == ref for o in objects.values())


def _new_droplet(cloud: Cloud, id_: str, p: Props) -> None:
    if p["image"] not in IMAGES:  # seen
        raise CloudError(422, "You specified an invalid image for Droplet creation.")
    if p["size"] not in SIZES:  # seen
        raise CloudError(422, "You specified an invalid size for Droplet creation.")
    if p["size"].startswith("gpu-") and p.get("region") not in GPU_REGIONS:  # API: availability
        raise CloudError(422, "Size is not available in this region.")
    if len(p.get("userData", "").encode()) > USER_DATA_LIMIT:  # API: 64 KiB
        raise CloudError(422, "User data cannot be larger than 64 KiB")
    vpc = cloud.objects["Vpc"].get(p.get("vpcUuid", ""))
    if vpc and vpc["region"] != p.get("region"):  # API: a VPC belongs to one region
        raise CloudError(422, "Droplet and VPC must be in the same region")
    for volume in p.get("volumeIds", []):
        _may_attach(cloud, "", p, volume)


def _changed_droplet(cloud: Cloud, id_: str, p: Props) -> None:
    if p["size"] not in SIZES:
        raise CloudError(422, "You specified an invalid size for Droplet resize.")
    if p["size"] != cloud.objects["Droplet"][id_]["size"]:
        cloud.occupy(id_)  # API: resize is a droplet action


def _may_attach(cloud: Cloud, droplet_id: str, droplet: Props, volume_id: str) -> None:
    if cloud.objects["Volume"][volume_id]["region"] != droplet["region"]:  # API: volumes
        raise CloudError(422, "Droplet and volume must be in the same region")
    if cloud.holder(volume_id) not in (None, droplet_id):  # API: one droplet at a time
        raise CloudError(422, "Volume is already attached to a Droplet")


def _new_attachment(cloud: Cloud, id_: str, p: Props) -> None:
    droplet = plain_id(p["dropletId"])
    _may_attach(cloud, droplet, cloud.objects["Droplet"][droplet], p["volumeId"])
    if cloud.holder(p["volumeId"]) != droplet:  # TF: an attached volume is not attached again
        cloud.occupy(droplet)


def _gone_attachment(cloud: Cloud, id_: str, p: Props) -> None:
    cloud.occupy(plain_id(p["dropletId"]))


def _new_assignment(cloud: Cloud, id_: str, p: Props) -> None:
    droplet = plain_id(p["dropletId"])
    address = cloud.objects["ReservedIp"][p["ipAddress"]]
    if address["region"] != cloud.objects["Droplet"][droplet]["region"]:  # API: reserved IPs
        raise CloudError(422, "Reserved IP and Droplet must be in the same region")
    cloud.occupy(droplet)


def _gone_volume(cloud: Cloud, id_: str, p: Props) -> None:
    if cloud.holder(id_):  # API: detach first
        raise CloudError(409, "A volume that's attached to a Droplet cannot be deleted.")


def _changed_volume(cloud: Cloud, id_: str, p: Props) -> None:
    if p["size"] < cloud.objects["Volume"][id_]["size"]:  # TF: CustomizeDiff; API: resize
        raise CloudError(422, "New size must be larger than the current size")


def _new_key(cloud: Cloud, id_: str, p: Props) -> None:
    marks = {k["fingerprint"] for k in cloud.objects["SshKey"].values()}
    if fingerprint(p["publicKey"]) in marks:  # seen
        raise CloudError(422, "SSH Key is already in use on your account")


def _gone_vpc(cloud: Cloud, id_: str, p: Props) -> None:
    if any(d.get("vpcUuid") == id_ for d in cloud.objects["Droplet"].values()):  # seen
        raise CloudError(403, "Can not delete VPC with members")


def _firewall(cloud: Cloud, id_: str, p: Props) -> None:
    """API: tag names of a firewall must exist; a droplet's or volume's tag makes it exist."""
    carried = {
        t
        for k in ("Droplet", "Volume")
        for o in cloud.objects[k].values()
        for t in o.get("tags", [])
    }
    missing = set(p.get("tags", [])) - carried - set(cloud.objects["Tag"])
    if missing:
        raise CloudError(422, f"tags: no tag {sorted(missing)[0]}")
    if not p.get("inboundRules") and not p.get("outboundRules"):  # seen
        raise CloudError(422, "Firewall must have at least one inbound or outbound rule")


def _new_bucket(cloud: Cloud, id_: str, p: Props) -> None:
    if not REGIONS.get(p.get("region", "nyc3")):  # docs: Spaces, regional availability
        raise CloudError(422, f"Spaces are not available in {p.get('region')}")


def _named(kind: str) -> Rule:
    def rule(cloud: Cloud, id_: str, p: Props) -> None:
        for other in cloud.objects[kind].values():
            if other["name"] == p["name"] and other.get("region") == p.get("region"):
                raise CloudError(409, f"{kind} {p['name']} already exists")

    return rule


def _all(*rules: Rule) -> Rule:
    def rule(cloud: Cloud, id_: str, p: Props) -> None:
        for one in rules:
            one(cloud, id_, p)

    return rule


RULES: dict[tuple[str, str], Rule] = {
    ("create", "Droplet"): _new_droplet,
    ("update", "Droplet"): _changed_droplet,
    ("create", "VolumeAttachment"): _new_attachment,
    ("delete", "VolumeAttachment"): _gone_attachment,
    ("create", "ReservedIpAssignment"): _new_assignment,
    ("create", "Volume"): _named("Volume"),  # API: a volume's name is unique in its region
    ("update", "Volume"): _changed_volume,
    ("delete", "Volume"): _gone_volume,
    ("create", "SshKey"): _new_key,
    ("delete", "Vpc"): _gone_vpc,
    ("create", "Vpc"): _named("Vpc"),  # API: a VPC's name is unique
    ("create", "Domain"): _named("Domain"),
    ("create", "Firewall"): _all(_firewall, _named("Firewall")),  # API: duplicate name
    ("update", "Firewall"): _firewall,
    ("create", "SpacesBucket"): _all(_new_bucket, _named("SpacesBucket")),
}
