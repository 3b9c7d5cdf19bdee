"""Droplets with non-default options, and the servers around them."""

from __future__ import annotations

import hashlib
import http.client
import json
import random
import socket
import ssl
import subprocess
from contextlib import ExitStack
from pathlib import Path

from infra.cloud_init import MachineSpec
from tests.guest.droplet import Droplet, build_wheel, new_key
from tests.guest.files import Files
from tests.guest.guest import ROOT
from tests.guest.volume import Volume

DATA = random.Random(1).randbytes(3 << 20)
SHA256 = hashlib.sha256(DATA).hexdigest()
LOCK = (ROOT / "requirements.lock").read_text()


class Made:
    """Two droplets with different options, and the servers around them."""

    def __init__(self, folder: Path, files: Files, ends: ExitStack) -> None:
        self.folder, self.files, self.ends = folder, files, ends
        self.key, self.public = new_key(folder / "keys")
        self.wheel = build_wheel(folder / "wheel")
        self.commit = publish(folder / "wheel/source", folder / "repository.git")
        files.folders["/repository.git"] = folder / "repository.git"
        files.folders["/dist"] = self.wheel.parent
        files.texts["/images.zip"] = DATA

    def droplet(self, name: str) -> Droplet:
        volume = Volume(name, self.folder / "volumes")
        made = Droplet(name, "", volume, self.key)
        self.ends.callback(made.guest.destroy)
        return made

    def site(self, droplet: Droplet) -> str:
        return f"http://{droplet.guest.reserve().here}:{self.files.port}"

    def spec(self, droplet: Droplet) -> MachineSpec:
        return MachineSpec(
            hostname=droplet.volume.name,
            volume_name=droplet.volume.name,
            deploy_keys=(self.public,),
            release_id="first",
            lock=LOCK,
        )


def publish(source: Path, to: Path) -> str:
    """Publish a repository as plain files for any web server; returns its commit."""
    who = ("-c", "user.name=tests", "-c", "user.email=tests@example.org")
    words = (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "Release"))
    for line in (*words, ("clone", "-q", "--bare", ".", str(to))):
        subprocess.run(["git", "-C", str(source), *line], check=True, capture_output=True)
    subprocess.run(["git", "-C", str(to), "update-server-info"], check=True)
    told = subprocess.run(["git", "-C", str(to), "rev-parse", "HEAD"], capture_output=True)
    return told.stdout.decode().strip()


def told(droplet: Droplet, *command: str) -> str:
    """Output of a command in the guest, whatever its exit status."""
    done = droplet.guest.exec(*command, check=False)
    return (done.stdout + done.stderr).strip()


def boot_log(droplet: Droplet) -> list[str]:
    return list(json.loads(told(droplet, "cat", "/var/lib/unetops/boot.json"))["log"])


class Named(http.client.HTTPSConnection):
    """A connection to a droplet under a name, as if DNS resolved to it."""

    def __init__(self, name: str, address: str, trust: ssl.SSLContext) -> None:
        super().__init__(name, timeout=10, context=trust)
        self.address, self.trust = address, trust

    def connect(self) -> None:
        plain = socket.create_connection((self.address, 443), self.timeout)
        self.sock = self.trust.wrap_socket(plain, server_hostname=self.host)


def ask(
    droplet: Droplet, path: str, trust: ssl.SSLContext, *, name: str
) -> tuple[int, dict[str, str]]:
    """One request from outside under a name: status and headers."""
    made = Named(name, droplet.address, trust)
    try:
        made.request("GET", path)
        answer = made.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}
    finally:
        made.close()
