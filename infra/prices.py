"""Monthly cost of a stack, from a dated price table whose entries can be overridden."""

from collections.abc import Mapping
from dataclasses import dataclass

from infra.catalog import DATED as DATED
from infra.catalog import SIZES, SOURCES
from infra.config import StackConfig

# US dollars per month; the key of a droplet is its size.
# Volumes and snapshots: https://docs.digitalocean.com/products/volumes/details/pricing/
# Spaces: .../products/spaces/details/pricing/ (250 GiB included). Uptime: one check is free.
PRICES: dict[str, float] = {
    **{slug: size.usd_month for slug, size in SIZES.items()},
    "volume-gib": 0.10,
    "snapshot-gib": 0.06,
    "spaces": 5.0,
    "reserved-ip": 0.0,
    "uptime-check": 0.0,
}


@dataclass(frozen=True, kw_only=True)
class PriceLine:
    """One billed item."""

    what: str
    usd_month: float

    def __str__(self) -> str:
        return f"{self.what}: ${self.usd_month:.2f}"


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """All lines of a stack, the items without a known price, and the sum."""

    lines: tuple[PriceLine, ...]
    unknown: tuple[str, ...] = ()
    dated: str = DATED
    live: tuple[str, ...] = ()
    """Keys whose price came from the live API."""

    @property
    def usd_month(self) -> float:
        """Sum of the lines that have a price."""
        return round(sum(line.usd_month for line in self.lines), 2)

    def __str__(self) -> str:
        parts = ", ".join(str(line) for line in self.lines)
        missing = f"; no price known for {', '.join(self.unknown)}" if self.unknown else ""
        origin = f"{', '.join(self.live)} by the live API, else " if self.live else ""
        return (
            f"about ${self.usd_month:.2f} a month ({parts}{missing}; {origin}list prices of "
            f"{self.dated}, {SOURCES['sizes']})"
        )


def estimate(
    config: StackConfig,
    prices: Mapping[str, float] = PRICES,
    *,
    live: Mapping[str, float] | None = None,
) -> Estimate:
    """Monthly price of a stack.

    Args:
        config: the checked configuration; its `prices` override `live`, which overrides `prices`.
        prices: dollars per month by key; a droplet's key is its size.
        live: current prices from the API, by the same keys.
    """
    current = {key: usd for key, usd in (live or {}).items() if key not in config.prices}
    table = {**prices, **current, **config.prices}
    wanted = [(f"droplet {config.size}", config.size, 1.0)]
    wanted.append((f"volume {config.volume_gib} GiB", "volume-gib", float(config.volume_gib)))
    wanted.append(("reserved address while assigned", "reserved-ip", 1.0))
    wanted.append(("uptime check", "uptime-check", 1.0))
    if config.bucket:
        wanted.append(("Spaces bucket", "spaces", 1.0))
    if config.snapshot:
        # A snapshot is billed by the space used; a full volume is the upper bound.
        gib = float(config.volume_gib)
        wanted.append((f"volume snapshot, at most {config.volume_gib} GiB", "snapshot-gib", gib))
    return Estimate(
        lines=tuple(
            PriceLine(what=what, usd_month=round(table[key] * amount, 2))
            for what, key, amount in wanted
            if key in table
        ),
        unknown=tuple(what for what, key, _ in wanted if key not in table),
        live=tuple(key for _, key, _ in wanted if key in current),
    )
