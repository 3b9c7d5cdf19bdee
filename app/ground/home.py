"""The default data directory."""

from collections.abc import Mapping
from pathlib import Path


def home_folder(environment: Mapping[str, str]) -> Path:
    """`UNETOPS_HOME`, by default `~/.local/share/unetops`."""
    home = environment.get("UNETOPS_HOME") or str(Path.home() / ".local/share/unetops")
    return Path(home).expanduser().resolve()
