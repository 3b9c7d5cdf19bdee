"""Data sources: the catalogue and what is in the account, by the names of the provider."""

from __future__ import annotations

import inspect
from typing import Any

from tests.cloud.catalogue import GPU_REGIONS, IMAGES, REGIONS, SIZES
from tests.cloud.cloud import Cloud
from tests.cloud.faults import CloudError
from tests.cloud.kinds import INTEGER_IDS, KINDS, Props
from tests.cloud.sdk import digitalocean as sdk

BY_DEFAULT = {"Image": "slug", "Region": "slug"}
PLURALS = {  # data source -> kind or catalogue that it lists, property of the answer
    "Sizes": ("Size", "sizes"),
    "Regions": ("Region", "regions"),
    "Images": ("Image", "images"),
    "SshKeys": ("SshKey", "sshKeys"),
    "Droplets": ("Droplet", "droplets"),
    "Projects": ("Project", "projects"),
    "Domains": ("Domain", "domains"),
    "Tags": ("Tag", "tags"),
    "SpacesBuckets": ("SpacesBucket", "buckets"),
}
CONTROLS = ("filters", "sorts", "gpus")
ACCOUNT = {
    "email": "owner@example.org",
    "emailVerified": True,
    "status": "active",
    "statusMessage": "",
    "uuid": "account",
    "dropletLimit": 25,
    "floatingIpLimit": 3,
}


def look_up(cloud: Cloud, what: str, args: Props) -> Props:
    """Answer `getWhat`; a single object that is missing or not unique is an error."""
    _check(what, args)
    with cloud.request("lookup", what), cloud.lock:
        if what == "Account":
            return {"id": "account", **ACCOUNT}
        if what in PLURALS:
            kind, name = PLURALS[what]
            return {"id": what, name: _filtered(_rows(cloud, kind), args)}
        return _single(cloud, what, args)


def _check(what: str, args: Props) -> None:
    function = getattr(sdk, "get_" + _snake(what), None)
    if function is None:
        raise CloudError(501, f"digitalocean has no data source get{what}")
    known = {_camel(n) for n in inspect.signature(function).parameters} - {"opts"}
    strange = sorted(args.keys() - known)
    if strange:
        raise CloudError(400, f"get{what}: unknown argument {strange[0]}")


def _snake(name: str) -> str:
    return "".join(f"_{c.lower()}" if c.isupper() else c for c in name).lstrip("_")


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(w.title() for w in rest)


def _single(cloud: Cloud, what: str, args: Props) -> Props:
    asked = {k: v for k, v in args.items() if k not in CONTROLS}
    rows = [r for r in _rows(cloud, what) if all(_same(r.get(k), v) for k, v in asked.items())]
    if len(rows) != 1:
        raise CloudError(404 if not rows else 422, f"{len(rows)} of {what} with {asked}")
    return {"id": rows[0].get("slug"), **rows[0]}


def _same(a: Any, b: Any) -> bool:
    return str(a) == str(b)


def _filtered(rows: list[Props], args: Props) -> list[Props]:
    for f in args.get("filters", []):
        values = [str(v) for v in f["values"]]
        rows = [r for r in rows if _fits(r.get(f["key"]), values)]
    return rows


def _fits(value: Any, wanted: list[str]) -> bool:
    """Of a list (tags, regions) any member may fit, as the provider's filter does without `all`."""
    members = value if isinstance(value, list) else [value]
    return any(str(m) in wanted for m in members)


def _rows(cloud: Cloud, kind: str) -> list[Props]:
    if kind in ("Size", "Region", "Image"):
        return {"Size": _sizes, "Region": _regions, "Image": _images}[kind]()
    if kind not in KINDS:
        raise CloudError(501, f"the double lists no {kind}")
    number = int if kind in INTEGER_IDS else str
    return [{**cloud._seen(kind, i), "id": number(i)} for i in cloud.objects[kind]]


def _sizes() -> list[Props]:
    return [
        {
            "slug": slug,
            "available": True,
            "transfer": 1.0,
            "regions": list(GPU_REGIONS if slug.startswith("gpu-") else REGIONS),
            "memory": memory,
            "vcpus": vcpus,
            "disk": disk,
            "priceMonthly": price,
            "priceHourly": price / 672,
        }
        for slug, (memory, vcpus, disk, price) in SIZES.items()
    ]


def _regions() -> list[Props]:
    features = ["storage", "backups", "ipv6"]
    return [
        {"slug": r, "name": r, "available": True, "sizes": list(SIZES), "features": features}
        for r in REGIONS
    ]


def _images() -> list[Props]:
    return [
        {
            "id": number,
            "slug": slug,
            "name": slug,
            "type": "base",
            "status": "available",
            "distribution": slug.split("-")[0].title(),
            "regions": list(REGIONS),
        }
        for number, slug in enumerate(IMAGES, 1)
    ]
