"""`pulumi up`: read the configuration, build the components, export the outputs."""

import sys
from pathlib import Path

import pulumi
from pulumi.runtime.config import CONFIG

# Run the code of this checkout, even if .venv belongs to another one.
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infra import live, prices, stack, volume
from infra.checks import read_config, warnings_of
from infra.cloud_init import user_data
from infra.config import ConfigError, StackConfig
from infra.source import source_of


def main() -> None:
    """Build the stack; configuration errors are reported together and nothing is created."""
    try:
        config, found = _config()
        source = source_of(config.source, stack.ROOT, stack.CACHE)
    except ConfigError as e:
        raise pulumi.RunError(str(e)) from e
    for warning in warnings_of(config):
        pulumi.log.warn(warning)
    price = prices.estimate(config, live=live.prices_of(config.size))
    pulumi.log.info(f"price: {price}")
    if config.price_ceiling is not None and price.usd_month > config.price_ceiling:
        raise pulumi.RunError(f"{price} is above priceCeiling ${config.price_ceiling:.2f}")
    parts = stack.build(config, source, found)
    stack.export(config, source, parts=parts, price=price)


def _config() -> tuple[StackConfig, volume.FoundVolume | None]:
    mark = f"{pulumi.get_project()}:"
    values = {k.removeprefix(mark): v for k, v in CONFIG.get().items() if k.startswith(mark)}
    found: list[volume.FoundVolume] = []

    def gib_now(name: str, region: str) -> int | None:
        there = volume.find_volume(name, region)
        found.extend([there] if there else [])
        return there.size_gib if there else None

    config = read_config(
        values,
        pulumi.get_stack(),
        stack.read_file,
        volume_gib_now=gib_now,
        render=lambda c: user_data(stack.machine_spec(c)),
    )
    return config, found[0] if found else None


main()
