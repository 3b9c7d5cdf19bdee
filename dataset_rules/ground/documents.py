"""Documents: small JSON files that people read and edit, and their two serializations."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict


def json_bytes(value: Any) -> bytes:
    """Human-readable JSON."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def canonical_json(value: Any) -> bytes:
    """Canonical JSON for hashing: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class Document(BaseModel):
    """A small JSON document that people read and edit: frozen, rejects unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid")
