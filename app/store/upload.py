"""A file that a client has sent."""

from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class Upload:
    """A file that was received, and the text fields beside it."""

    path: Path
    name: str = ""  # as the client calls the file
    size_bytes: int = 0
    fields: dict[str, str] = field(default_factory=dict)
