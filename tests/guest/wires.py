"""The network of a guest: a namespace, a link to this machine and a metadata service."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from tests.guest.shell import sh

METADATA = "169.254.169.254"
PREFIX = "uo"
SECRET = "what only root may read"


class Wires:
    """Addresses 10.231.N.1 (this machine) and 10.231.N.2 (guest), without further routes.

    The metadata service lives in a namespace of its own, so that this machine's own metadata
    address, if it has one, stays what it is.
    """

    def __init__(self) -> None:
        """Take the first free number; creating the namespace reserves it."""
        for number in range(1, 250):
            if sh("ip", "netns", "add", f"{PREFIX}{number}", check=False).returncode == 0:
                break
        else:
            raise RuntimeError("no free network number: 249 guests are up, or were left behind")
        self.name, self.cloud = f"{PREFIX}{number}", f"{PREFIX}{number}m"
        self.here, self.address = f"10.231.{number}.1", f"10.231.{number}.2"
        self._listener: subprocess.Popen[bytes] | None = None

    def up(self, folder: Path) -> None:
        """Create the links and start the metadata service, which serves one file from `folder`."""
        sh("ip", "link", "add", f"v{self.name}", "type", "veth", "peer", "eth0", "netns", self.name)
        sh("ip", "addr", "add", f"{self.here}/30", "dev", f"v{self.name}")
        sh("ip", "link", "set", f"v{self.name}", "up")
        self._inside(self.name, "eth0", f"{self.address}/30")
        sh("ip", "netns", "add", self.cloud)
        pair = ("eth1", "netns", self.name, "type", "veth", "peer", "eth0", "netns", self.cloud)
        sh("ip", "link", "add", *pair)
        self._inside(self.name, "eth1", "169.254.9.9/16")
        self._inside(self.cloud, "eth0", f"{METADATA}/16")
        (folder / "metadata").mkdir(parents=True, exist_ok=True)
        (folder / "metadata/user-data").write_text(SECRET)
        serve = ("-m", "http.server", "80", "--bind", METADATA, "-d", folder / "metadata")
        words = [str(w) for w in ("ip", "netns", "exec", self.cloud, sys.executable, *serve)]
        quiet = subprocess.DEVNULL
        self._listener = subprocess.Popen(words, stdin=quiet, stdout=quiet, stderr=quiet)

    def also(self, address: str) -> None:
        """Route an additional (reserved) address to this guest."""
        sh("ip", "-n", self.name, "addr", "replace", f"{address}/32", "dev", "eth0")
        sh("ip", "route", "replace", f"{address}/32", "via", self.address)

    def no_longer(self, address: str) -> None:
        """Remove an additional address."""
        sh("ip", "-n", self.name, "addr", "del", f"{address}/32", "dev", "eth0", check=False)
        sh("ip", "route", "del", f"{address}/32", "via", self.address, check=False)

    @contextlib.contextmanager
    def internet(self, address: str) -> Iterator[None]:
        """Act as a machine on the internet, from the guest's view."""
        link = f"v{self.name}"
        sh("ip", "addr", "add", f"{address}/32", "dev", link)
        sh("ip", "-n", self.name, "route", "replace", f"{address}/32", "via", self.here)
        try:
            yield
        finally:
            sh("ip", "addr", "del", f"{address}/32", "dev", link, check=False)

    def down(self) -> None:
        """Remove everything; a second call does nothing."""
        if self._listener:
            self._listener.kill()
            self._listener.wait()
            self._listener = None
        remove(self.name)

    @staticmethod
    def _inside(namespace: str, link: str, address: str) -> None:
        sh("ip", "-n", namespace, "addr", "add", address, "dev", link)
        for name in ("lo", link):
            sh("ip", "-n", namespace, "link", "set", name, "up")


def remove(name: str) -> None:
    """Remove the links of a namespace by name; the guest must have stopped."""
    sh("ip", "link", "del", f"v{name}", check=False)
    for namespace in (f"{name}m", name):
        for pid in sh("ip", "netns", "pids", namespace, check=False).stdout.split():
            with contextlib.suppress(ProcessLookupError):
                sh("kill", "-9", pid, check=False)
        sh("ip", "netns", "del", namespace, check=False)
