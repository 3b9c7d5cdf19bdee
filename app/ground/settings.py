"""Settings of the service: made once from the environment, frozen, passed in."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.ground.errors import AppError
from app.ground.home import home_folder

LONGEST_SOCKET_PATH = 100  # the kernel takes 107 bytes; macOS takes 103


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Where the service keeps its things and what it accepts.

    Every field is read from `UNETOPS_` + its name in capitals.
    """

    home: Path
    require_auth: bool = False  # refuse everything until a token exists, whatever the address
    allow_open: bool = False  # start without a token also where a proxy is to be expected
    secret: str | None = None  # signs sessions; without it one is made and kept in `home`
    max_upload_bytes: int = 8 << 30
    max_image_bytes: int = 512 << 20
    max_image_pixels: int = 64 << 20  # of one image that is predicted while the client waits
    fetch_loopback: bool = False  # sources may be fetched from this machine itself

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Settings from `UNETOPS_*`; raises `AppError` for a value that is no number."""
        given = os.environ if environment is None else environment
        return cls(
            home=home_folder(given),
            require_auth=_switch(given, "UNETOPS_REQUIRE_AUTH"),
            allow_open=_switch(given, "UNETOPS_ALLOW_OPEN"),
            secret=given.get("UNETOPS_SECRET") or None,
            max_upload_bytes=_number(given, "UNETOPS_MAX_UPLOAD_BYTES", cls.max_upload_bytes),
            max_image_bytes=_number(given, "UNETOPS_MAX_IMAGE_BYTES", cls.max_image_bytes),
            max_image_pixels=_number(given, "UNETOPS_MAX_IMAGE_PIXELS", cls.max_image_pixels),
            fetch_loopback=_switch(given, "UNETOPS_FETCH_LOOPBACK"),
        )

    @property
    def database(self) -> Path:
        """The SQLite file with our rows and those of the job queue."""
        return self.home / "unetops.db"

    @property
    def uploads(self) -> Path:
        """Bodies of requests while they stream in."""
        return self.home / "uploads"

    @property
    def predictor_socket(self) -> Path:
        """Unix socket of the predictor; beside `home` in /tmp where the path would be too long."""
        inside = self.home / "run" / "predictor.sock"
        if len(os.fsencode(inside)) <= LONGEST_SOCKET_PATH:
            return inside
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"unetops-{os.getuid()}-{name}" / "predictor.sock"


def _switch(given: Mapping[str, str], name: str) -> bool:
    value = given.get(name, "").strip().lower()
    if value in {"", "0", "false", "no", "off"}:
        return False
    if value in {"1", "true", "yes", "on"}:
        return True
    raise AppError("the setting is no switch", where=name, expected="0 or 1", found=value)


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    value = given.get(name, "").strip()
    if not value:
        return default
    if value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    raise AppError("the setting is no number", where=name, expected="a number > 0", found=value)
