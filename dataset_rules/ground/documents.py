"""Documents: small JSON files that people read and edit, and their two byte forms."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict


def json_bytes(value: Any) -> bytes:
    """A JSON document as people read it."""
    return (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode()


def canonical_json(value: Any) -> bytes:
    """The one byte form of a JSON value that is hashed: sorted keys, no spaces, UTF-8."""
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    ).encode()


class Document(BaseModel):
    """A small JSON that a person reads and edits: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")
