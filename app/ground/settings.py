"""Settings of the service: read once from the environment, immutable, passed explicitly."""

import hashlib
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from app.ground.errors import AppError
from app.ground.home import home_folder

MAX_SOCKET_PATH_BYTES = 100  # the kernel takes 107 bytes; macOS takes 103


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Data directory, security and limits of the service.

    Every field is read from the variable `UNETOPS_<FIELD>`.
    """

    home: Path
    require_auth: bool = False  # refuse all requests until a token exists
    allow_open: bool = False  # start without a token even if a proxy is possible
    secret: str | None = None  # signs sessions; default: generated and stored in `home`
    max_upload_bytes: int = 8 << 30
    max_image_bytes: int = 512 << 20
    max_image_pixels: int = 64 << 20  # of one image predicted while the client waits
    fetch_loopback: bool = False  # allow sources from this machine's own servers

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Settings":
        """Settings from `UNETOPS_*`; raises `AppError` for an invalid value."""
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
        """The SQLite file with the service's tables and the job queue's."""
        return self.home / "unetops.db"

    @property
    def uploads(self) -> Path:
        """Request bodies while they are received."""
        return self.home / "uploads"

    @property
    def predictor_socket(self) -> Path:
        """Unix socket of the predictor; in /tmp if the path in `home` would be too long."""
        inside = self.home / "run" / "predictor.sock"
        if len(os.fsencode(inside)) <= MAX_SOCKET_PATH_BYTES:
            return inside
        name = hashlib.sha256(os.fsencode(self.home)).hexdigest()[:16]
        return Path(tempfile.gettempdir()) / f"unetops-{os.getuid()}-{name}" / "predictor.sock"


def _switch(given: Mapping[str, str], name: str) -> bool:
    value = given.get(name, "").strip().lower()
    if value in {"", "0", "false", "no", "off"}:
        return False
    if value in {"1", "true", "yes", "on"}:
        return True
    raise AppError("the setting must be 0 or 1", where=name, expected="0 or 1", found=value)


def _number(given: Mapping[str, str], name: str, default: int) -> int:
    value = given.get(name, "").strip()
    if not value:
        return default
    if value.isascii() and value.isdigit() and int(value) > 0:
        return int(value)
    raise AppError("invalid setting", where=name, expected="an integer > 0", found=value)
