"""The rules of the policy pack as plain functions over the resources of a stack.

Each takes resources and returns its violations, so that tests need no engine.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from infra.prices import PRICES

DROPLET = "digitalocean:index/droplet:Droplet"
VOLUME = "digitalocean:index/volume:Volume"
FIREWALL = "digitalocean:index/firewall:Firewall"
SNAPSHOT = "digitalocean:index/volumeSnapshot:VolumeSnapshot"
COUNTED = {
    "digitalocean:index/spacesBucket:SpacesBucket": "spaces",
    "digitalocean:index/reservedIp:ReservedIp": "reserved-ip",
    "digitalocean:index/uptimeCheck:UptimeCheck": "uptime-check",
}
"""Resource types billed per unit, with their key in the price table."""

OPEN_PORTS = ("22", "80", "443")
TAG_PREFIX = "unetops-"
DEFAULT_CEILING = 200.0
# Wider networks are rejected: two halves of the internet are the internet.
WIDEST = {4: 8, 6: 16}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One resource as the engine presents it to a policy."""

    type: str
    name: str
    props: Mapping[str, Any] = field(default_factory=dict)
    protect: bool = False


Rule = Callable[[Sequence[Thing]], list[str]]


def droplets_have_a_firewall(things: Sequence[Thing]) -> list[str]:
    """Every droplet shares a tag with a firewall of its stack."""
    covered = {tag for firewall in _all(things, FIREWALL) for tag in _list(firewall, "tags")}
    return [
        f"{resource.name}: no firewall covers a tag of this droplet (its tags: "
        f"{_words(_list(resource, 'tags'))}; covered: {_words(covered)}); give both the stack's tag"
        for resource in _all(things, DROPLET)
        if not covered & set(_list(resource, "tags"))
    ]


def volumes_are_protected(things: Sequence[Thing]) -> list[str]:
    """Every volume has `protect` set, so that `destroy` keeps it."""
    return [
        f"{resource.name}: this volume is not protected; give it ResourceOptions(protect=True)"
        for resource in _all(things, VOLUME)
        if not resource.protect
    ]


def only_known_ports_are_open(things: Sequence[Thing]) -> list[str]:
    """Only ports 22, 80 and 443 accept inbound traffic."""
    return [
        f"{firewall.name}: port {port} ({rule.get('protocol')}) is open; "
        f"only {', '.join(OPEN_PORTS)} may be"
        for firewall in _all(things, FIREWALL)
        for rule in _list(firewall, "inboundRules")
        if rule.get("protocol") != "icmp"
        and (port := str(rule.get("portRange") or "all")) not in OPEN_PORTS
    ]


def ssh_is_for_given_addresses(things: Sequence[Thing]) -> list[str]:
    """Port 22 is open to narrow networks only."""
    return [
        f"{firewall.name}: port 22 is open to {address}; list the addresses that need it in sshFrom"
        for firewall in _all(things, FIREWALL)
        for rule in _list(firewall, "inboundRules")
        if str(rule.get("portRange")) == "22"
        for address in rule.get("sourceAddresses") or ()
        if _is_wide(address)
    ]


def tags_are_there(things: Sequence[Thing]) -> list[str]:
    """Droplets and volumes carry the tag of their stack, which identifies them."""
    return [
        f"{resource.name}: no tag starts with {TAG_PREFIX!r} "
        f"(tags: {_words(_list(resource, 'tags'))})"
        for resource in things
        if resource.type in (DROPLET, VOLUME)
        and not any(str(tag).startswith(TAG_PREFIX) for tag in _list(resource, "tags"))
    ]


def price_is_below(
    things: Sequence[Thing],
    ceiling: float = DEFAULT_CEILING,
    *,
    prices: Mapping[str, float] = PRICES,
) -> list[str]:
    """The total of all billed resources stays below a monthly price."""
    items = _billed(things)
    violations = [
        f"no price is known for {key!r}; add it to the config value `prices`"
        for key in sorted({key for key, _ in items} - prices.keys())
    ]
    total = sum(prices[key] * amount for key, amount in items if key in prices)
    if total > ceiling:
        violations.append(
            f"${total:.2f} a month is above the ceiling of ${ceiling:.2f}; use smaller resources "
            "or raise the config value `priceCeiling`"
        )
    return violations


def _billed(things: Sequence[Thing]) -> list[tuple[str, float]]:
    volumes = [float(resource.props.get("size") or 0) for resource in _all(things, VOLUME)]
    return [
        *((str(resource.props.get("size")), 1.0) for resource in _all(things, DROPLET)),
        *(("volume-gib", gib) for gib in volumes),
        # A snapshot's size is known only once taken; a full volume is the upper bound.
        *(("snapshot-gib", max(volumes, default=0.0)) for _ in _all(things, SNAPSHOT)),
        *((COUNTED[resource.type], 1.0) for resource in things if resource.type in COUNTED),
    ]


def _all(things: Sequence[Thing], type_: str) -> list[Thing]:
    return [thing for thing in things if thing.type == type_]


def _list(thing: Thing, key: str) -> list[Any]:
    return list(thing.props.get(key) or ())


def _words(tags: object) -> str:
    return ", ".join(sorted(map(str, tags))) if isinstance(tags, list | set) and tags else "none"


def _is_wide(address: str) -> bool:
    network = ip_network(address, strict=False)
    return network.prefixlen < WIDEST[network.version]
