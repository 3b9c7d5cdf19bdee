"""Price table and ceiling from a stack's own configuration, for the price rule."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from infra.config import FIELDS, parse
from infra.policy.rules import DEFAULT_CEILING
from infra.prices import PRICES

TABLE, CEILING = "prices", "priceCeiling"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """Price table and ceiling of one stack."""

    prices: Mapping[str, float] = field(default_factory=lambda: PRICES)
    own_ceiling: float | None = None

    @classmethod
    def of(cls, config: Mapping[str, str], project: str) -> "Terms":
        """Read the configuration as the engine stores it, keys with the project's name.

        Invalid values are ignored here: the program itself rejects them.
        """
        own = {
            key: _value(config.get(f"{project}:{key}"), key) for key in ("prices", "priceCeiling")
        }
        return cls(prices={**PRICES, **(own["prices"] or {})}, own_ceiling=own["priceCeiling"])

    def ceiling(self, given: float | None) -> float:
        """Dollars per month: the lower of the pack's and the stack's, else the default."""
        ceilings = [float(value) for value in (given, self.own_ceiling) if value is not None]
        return min(ceilings, default=DEFAULT_CEILING)


def _value(text: str | None, key: str) -> Any:
    try:
        return parse(text, FIELDS[key].type) if text else None
    except ValueError:
        return None
