"""Prices from the live API; the price table is used if the API cannot be reached."""

import pulumi
import pulumi_digitalocean as do


def prices_of(size: str) -> dict[str, float]:
    """US dollars per month for this size; empty if the account cannot be queried."""
    wanted = do.GetSizesFilterArgs(key="slug", values=[size])
    try:
        found = do.get_sizes(filters=[wanted]).sizes
    except Exception as e:  # the engine raises plain Exception for any failed call
        reason = str(e).splitlines()[0][:200] if str(e) else type(e).__name__
        pulumi.log.info(f"no live prices ({reason}): using the price table")
        return {}
    return {row.slug: row.price_monthly for row in found or []}
