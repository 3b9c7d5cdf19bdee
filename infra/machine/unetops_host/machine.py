"""Paths on the machine, and the settings from first boot."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HEALTH_S = 120.0  # importing torch takes long on a small machine
UNITS = ("unetops-web.service", "unetops-worker.service", "unetops-fetcher.service")


@dataclass(frozen=True)
class Machine:
    """Paths of the machine; `root` differs only in tests."""

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
        """State of this program."""
        return self.at("/var/lib/unetops")

    @property
    def database(self) -> Path:
        """The service's SQLite file."""
        return self.mount / "home/unetops.db"

    def facts(self) -> dict[str, Any]:
        """Settings that user_data passed to the machine."""
        file = self.at("/etc/unetops/machine.json")
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found
