"""A real ACME server (pebble) on this machine, and the DNS server that it queries."""

import fcntl
import json
import os
import shutil
import socket
import ssl
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.guest.golden import cache
from tests.guest.shell import sh
from tests.missing import missing

PEBBLE = "v2.10.1"
PROGRAMS = ("pebble", "pebble-challtestsrv")


def programs() -> Path:
    """The folder with both programs, installed once with the ordinary Go client."""
    folder = cache() / f"pebble-{PEBBLE}"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not all((folder / name).exists() for name in PROGRAMS):
            _install(folder)
    return folder


def _install(folder: Path) -> None:
    if shutil.which("go") is None:
        missing(f"no Go to install pebble {PEBBLE}, the ACME server of the tests")
    from_ = [f"github.com/letsencrypt/pebble/v2/cmd/{name}@{PEBBLE}" for name in PROGRAMS]
    env = {**os.environ, "GOBIN": str(folder), "CGO_ENABLED": "0"}
    done = subprocess.run(["go", "install", *from_], env=env, capture_output=True, text=True)
    if done.returncode:
        missing(f"pebble {PEBBLE} could not be installed: {done.stderr[-500:]}")


class Authority:
    """Pebble at `address`; names do not resolve before `lead`."""

    def __init__(self, folder: Path, address: str) -> None:
        """Choose ports and make the certificate that pebble itself shows."""
        self.folder, self.address = folder, address
        self.acme, self.management, self.dns, self.names = free_ports(4)
        folder.mkdir(parents=True, exist_ok=True)
        make = ("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256")
        whom = ("-nodes", "-subj", "/CN=pebble", "-addext", f"subjectAltName=IP:{address}")
        sh(*make, *whom, "-days", "2", "-keyout", folder / "key.pem", "-out", folder / "cert.pem")

    @property
    def directory(self) -> str:
        """Value for `acmeDirectory`."""
        return f"https://{self.address}:{self.acme}/dir"

    @property
    def own_certificate(self) -> str:
        """The certificate that a machine must trust to connect to the server."""
        return (self.folder / "cert.pem").read_text()

    def start(self) -> list[subprocess.Popen[bytes]]:
        """Start both programs; the caller stops them."""
        (self.folder / "config.json").write_text(json.dumps({"pebble": self._config()}))
        where, off = programs(), ("-http01", "", "-https01", "", "-tlsalpn01", "", "-doh", "")
        names = (where / PROGRAMS[1], "-dnsserver", f"127.0.0.1:{self.dns}", *off)
        names += ("-management", f"127.0.0.1:{self.names}", "-defaultIPv4", "", "-defaultIPv6", "")
        pebble = (where / PROGRAMS[0], "-config", self.folder / "config.json")
        pebble += ("-dnsserver", f"127.0.0.1:{self.dns}")
        with (self.folder / "log").open("ab") as log:
            env = {**os.environ, "PEBBLE_VA_NOSLEEP": "1"}
            return [
                subprocess.Popen([str(w) for w in words], env=env, stdout=log, stderr=log)
                for words in (names, pebble)
            ]

    def _config(self) -> dict[str, object]:
        return {
            "listenAddress": f"0.0.0.0:{self.acme}",
            "managementListenAddress": f"127.0.0.1:{self.management}",
            "certificate": str(self.folder / "cert.pem"),
            "privateKey": str(self.folder / "key.pem"),
            "httpPort": 80,
            "tlsPort": 443,
        }

    def lead(self, name: str, address: str) -> None:
        """Make a name resolve to an address, as the DNS record of a stack does."""
        body = json.dumps({"host": f"{name}.", "addresses": [address]}).encode()
        urllib.request.urlopen(f"http://127.0.0.1:{self.names}/add-a", body, timeout=10).close()

    def trust(self) -> ssl.SSLContext:
        """Trust of a browser that knows this authority."""
        own = ssl.create_default_context()
        own.check_hostname, own.verify_mode = False, ssl.CERT_NONE
        url = f"https://127.0.0.1:{self.management}/roots/0"
        with urllib.request.urlopen(url, context=own, timeout=10) as answer:
            return ssl.create_default_context(cadata=answer.read().decode())


@contextmanager
def authority(folder: Path, address: str) -> Iterator[Authority]:
    """Run an authority that is reachable at `address` inside the block."""
    programs()
    one = Authority(folder, address)
    running = one.start()
    try:
        end = time.monotonic() + 20
        while not (_open(one.acme) and _open(one.names)):
            assert time.monotonic() < end, (folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        yield one
    finally:
        for process in running:
            process.kill()
            process.wait()


def _open(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def free_ports(count: int) -> list[int]:
    """Ports that are currently free."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = [one.getsockname()[1] for one in held]
    for one in held:
        one.close()
    return found
