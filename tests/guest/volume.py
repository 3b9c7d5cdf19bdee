"""Block storage of a guest: a sparse file on a loop device."""

import threading
import time
from pathlib import Path

from tests.guest.shell import sh


class Volume:
    """/dev/disk/by-id/scsi-0DO_Volume_NAME of a droplet; its file survives the guest."""

    def __init__(self, name: str, folder: Path, *, gib: int = 2) -> None:
        """Open the volume's file in `folder`, or create a sparse empty one of `gib`."""
        self.name, self.path = name, folder / f"{name}.img"
        self.device: str | None = None
        self._lock = threading.Lock()
        folder.mkdir(parents=True, exist_ok=True)
        if not self.path.exists():
            with self.path.open("wb") as file:
                file.truncate(gib << 30)

    @property
    def link(self) -> str:
        """Its device path on a droplet."""
        return f"/dev/disk/by-id/scsi-0DO_Volume_{self.name}"

    def attach(self) -> str:
        """The loop device, created if there is none."""
        with self._lock:  # a guest that starts and one who plugs it in may come at the same time
            if self.device is None:
                self.device = sh("losetup", "-f", "--show", self.path).stdout.strip()
            return self.device

    def detach(self, wait: float = 20) -> None:
        """Release the device and wait: a second one on the same file would lose writes."""
        end = time.monotonic() + wait
        while self.device and sh("losetup", "-j", self.path).stdout.strip():
            if time.monotonic() > end:
                raise RuntimeError(f"{self.device} ({self.path}) is still in use after {wait} s")
            sh("losetup", "-d", self.device, check=False)
            time.sleep(0.05)
        self.device = None

    def uuid(self) -> str:
        """The filesystem's UUID; empty if there is no filesystem."""
        probe = ("blkid", "-p", "-s", "UUID", "-o", "value", self.device or self.path)
        return sh(*probe, check=False).stdout.strip()
