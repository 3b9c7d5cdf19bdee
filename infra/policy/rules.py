"""The rules of the policy pack as plain functions over what a stack declares.

Each takes things and returns its complaints, so that tests need no engine.
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
"""Kinds that bill by the piece, with their key in the price table."""

OPEN_PORTS = ("22", "80", "443")
TAG_PREFIX = "unetops-"
DEFAULT_CEILING = 200.0
# Wider networks are no given addresses: two halves of the internet are the internet.
WIDEST = {4: 8, 6: 16}


@dataclass(frozen=True, kw_only=True)
class Thing:
    """One resource as the engine shows it to a policy."""

    type: str
    name: str
    props: Mapping[str, Any] = field(default_factory=dict)
    protect: bool = False


Rule = Callable[[Sequence[Thing]], list[str]]


def droplets_have_a_firewall(things: Sequence[Thing]) -> list[str]:
    """A droplet shares a tag with a firewall of its stack."""
    guarded = {tag for wall in _all(things, FIREWALL) for tag in _list(wall, "tags")}
    return [
        f"{one.name}: no firewall names a tag of this droplet (its tags: "
        f"{_words(_list(one, 'tags'))}; guarded: {_words(guarded)}); give both the stack's tag"
        for one in _all(things, DROPLET)
        if not guarded & set(_list(one, "tags"))
    ]


def volumes_are_protected(things: Sequence[Thing]) -> list[str]:
    """A volume carries `protect`, so that `destroy` leaves it."""
    return [
        f"{one.name}: this volume is not protected; give it ResourceOptions(protect=True)"
        for one in _all(things, VOLUME)
        if not one.protect
    ]


def only_known_ports_are_open(things: Sequence[Thing]) -> list[str]:
    """Nothing but 22, 80 and 443 comes in."""
    return [
        f"{wall.name}: port {port} ({rule.get('protocol')}) is open; "
        f"only {', '.join(OPEN_PORTS)} may be"
        for wall in _all(things, FIREWALL)
        for rule in _list(wall, "inboundRules")
        if rule.get("protocol") != "icmp"
        and (port := str(rule.get("portRange") or "all")) not in OPEN_PORTS
    ]


def ssh_is_for_given_addresses(things: Sequence[Thing]) -> list[str]:
    """Port 22 is open for narrow networks only."""
    return [
        f"{wall.name}: port 22 is open for {address}; name the addresses that need it in sshFrom"
        for wall in _all(things, FIREWALL)
        for rule in _list(wall, "inboundRules")
        if str(rule.get("portRange")) == "22"
        for address in rule.get("sourceAddresses") or ()
        if _is_wide(address)
    ]


def tags_are_there(things: Sequence[Thing]) -> list[str]:
    """Droplets and volumes carry the tag of their stack: it is how they are found again."""
    return [
        f"{one.name}: no tag begins with {TAG_PREFIX!r} (tags: {_words(_list(one, 'tags'))})"
        for one in things
        if one.type in (DROPLET, VOLUME)
        and not any(str(tag).startswith(TAG_PREFIX) for tag in _list(one, "tags"))
    ]


def price_is_below(
    things: Sequence[Thing],
    ceiling: float = DEFAULT_CEILING,
    *,
    prices: Mapping[str, float] = PRICES,
) -> list[str]:
    """All that bills stays below a monthly price, by the table of the estimate."""
    items = _billed(things)
    said = [
        f"no price is known for {key!r}; add it to the config value `prices`"
        for key in sorted({key for key, _ in items} - prices.keys())
    ]
    total = sum(prices[key] * amount for key, amount in items if key in prices)
    if total > ceiling:
        said.append(
            f"${total:.2f} a month is above the ceiling of ${ceiling:.2f}; make it smaller, or "
            "raise the config value `priceCeiling`"
        )
    return said


def _billed(things: Sequence[Thing]) -> list[tuple[str, float]]:
    volumes = [float(one.props.get("size") or 0) for one in _all(things, VOLUME)]
    return [
        *((str(one.props.get("size")), 1.0) for one in _all(things, DROPLET)),
        *(("volume-gib", gib) for gib in volumes),
        # What a snapshot holds is known when it is made; a full volume is the most it can be.
        *(("snapshot-gib", max(volumes, default=0.0)) for _ in _all(things, SNAPSHOT)),
        *((COUNTED[one.type], 1.0) for one in things if one.type in COUNTED),
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
