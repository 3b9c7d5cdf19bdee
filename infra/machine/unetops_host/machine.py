"""Where everything lies on the machine, and what first boot was told of it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEALTH_S = 120.0  # importing torch takes long on a small machine
UNITS = ("unetops-web.service", "unetops-worker.service", "unetops-fetcher.service")


@dataclass(frozen=True)
class Machine:
    """Where everything lies; `root` is another folder only in tests."""

    root: Path = Path("/")
    url: str = "http://127.0.0.1:8000"
    health_s: float = HEALTH_S
    user: str = "unetops"

    def at(self, path: str) -> Path:
        """A path of the machine."""
        return self.root / path.lstrip("/")

    @property
    def opt(self) -> Path:
        """Programs: environments and releases."""
        return self.at("/opt/unetops")

    @property
    def mount(self) -> Path:
        """The volume."""
        return self.at("/srv/unetops")

    @property
    def state(self) -> Path:
        """Notes of this program."""
        return self.at("/var/lib/unetops")

    @property
    def database(self) -> Path:
        """The service's SQLite file."""
        return self.mount / "home/unetops.db"

    def facts(self) -> dict[str, Any]:
        """What first boot was told."""
        file = self.at("/etc/unetops/machine.json")
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found
