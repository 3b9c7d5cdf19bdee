"""A guest from the view of an engineer and a visitor: SSH, HTTPS and the host program."""

import http.client
import json
import shutil
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.guest.guest import ROOT, Guest
from tests.guest.shell import sh
from tests.guest.volume import Volume

AUTHORITY = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"
PARTS = ("app", "dataset_rules", "infra", "unet", "pyproject.toml", "README.md", "LICENSE")


def new_key(folder: Path) -> tuple[Path, str]:
    """A key pair without a passphrase: the private key's file and the public key's line."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "key"
    sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "test", "-f", file)
    return file, file.with_suffix(".pub").read_text().strip()


def build_wheel(folder: Path) -> Path:
    """A wheel of the working copy, built in another folder so that nothing is left behind."""
    source = folder / "source"
    for part in PARTS:
        copy = shutil.copytree if (ROOT / part).is_dir() else shutil.copy2
        source.mkdir(parents=True, exist_ok=True)
        copy(ROOT / part, source / part)
    pip = (sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation")
    sh(*pip, "-w", folder, source, timeout=300)
    return next(folder.glob("unetops-*.whl"))


class Droplet:
    """One guest with its volume and the key for logging in."""

    def __init__(self, name: str, user_data: str, volume: Volume, key: Path) -> None:
        """Configure the guest; `up` starts it."""
        self.guest = Guest(name, user_data, (volume,))
        self.volume, self.key = volume, key

    @property
    def address(self) -> str:
        """Address for visitors."""
        return self.guest.address

    def boot(self, timeout: float = 300) -> dict[str, Any]:
        """Start it and wait until the first boot is over; returns its report."""
        self.guest.up()
        self.guest.exec("cloud-init", "status", "--wait", check=False, timeout=timeout)
        report: dict[str, Any] = json.loads(
            self.guest.exec("cat", "/var/lib/unetops/boot.json").stdout
        )
        return report

    def ssh(
        self, command: str, *, check: bool = True, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        """Run a command over SSH, as the program's release step does."""
        return sh("ssh", *self._options(), f"root@{self.address}", command, check=check,
                  timeout=timeout)  # fmt: skip

    def send(self, file: Path, to: str) -> None:
        """Copy a file to the droplet over SSH."""
        sh("scp", "-q", *self._options(), file, f"root@{self.address}:{to}")

    def _options(self) -> list[str]:
        words = {"StrictHostKeyChecking": "no", "UserKnownHostsFile": "/dev/null"}
        words |= {"LogLevel": "ERROR", "ConnectTimeout": "5", "BatchMode": "yes"}
        return ["-i", str(self.key), *[f"-o{name}={value}" for name, value in words.items()]]

    def release(self, release_id: str, wheel: Path) -> subprocess.CompletedProcess[str]:
        """Install a wheel the way the program does: copied over SSH, then one command."""
        there = f"/var/lib/unetops/{wheel.name}"
        self.send(wheel, there)
        self.send(ROOT / "requirements.lock", "/var/lib/unetops/requirements.lock")
        host = "/opt/unetops/bin/unetops-host"
        files = f"--wheel {there} --lock /var/lib/unetops/requirements.lock"
        return self.ssh(f"{host} release --id {release_id} {files}", check=False)

    def authority(self) -> ssl.SSLContext:
        """Trust of a visitor who has compared the fingerprint."""
        return ssl.create_default_context(cadata=self.guest.exec("cat", AUTHORITY).stdout)

    def get(
        self, path: str, *, token: str = "", port: int = 443, timeout: float = 10
    ) -> tuple[int, dict[str, str], str]:
        """One request from outside: status, headers and text. Redirects are not followed."""
        name = self.address
        made = (
            http.client.HTTPSConnection(name, port, context=self.authority(), timeout=timeout)
            if port == 443
            else http.client.HTTPConnection(name, port, timeout=timeout)
        )
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            made.request("GET", path, headers=headers)
            answer = made.getresponse()
            lower = {key.lower(): value for key, value in answer.getheaders()}
            return answer.status, lower, answer.read().decode(errors="replace")
        finally:
            made.close()

    def until(
        self, done: Callable[[], bool], what: str, seconds: float = 60, every: float = 0.2
    ) -> float:
        """Wait for a condition, checked every `every` seconds; returns the duration."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            try:
                if done():
                    return time.monotonic() - began
            except (OSError, RuntimeError, http.client.HTTPException):
                pass
            time.sleep(every)
        raise TimeoutError(f"{what} did not come within {seconds} s on {self.address}")

    def serves(self, seconds: float = 90) -> float:
        """Wait until the service responds through Caddy; returns the duration."""
        return self.until(lambda: self.get("/healthz")[0] == 200, "the service", seconds)
