"""A file sent by a client."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Upload:
    """A received file and the form's text fields."""

    path: Path
    name: str = ""  # the client's name of the file
    size_bytes: int = 0
    fields: dict[str, str] = field(default_factory=dict)
