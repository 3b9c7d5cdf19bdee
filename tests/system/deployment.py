"""A deployment from its engineer's view: the project, `pulumi`, SSH and HTTPS."""

from __future__ import annotations

import contextlib
import hashlib
import json
import shlex
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.cloud.cloud import Cloud
from tests.cloud.stack import Stack, stack
from tests.guest.droplet import AUTHORITY
from tests.guest.guest import Guest
from tests.guest.machines import Machines
from tests.guest.prepared import prepared

HOST = "/opt/unetops/bin/unetops-host"
DIARY = "journalctl --no-pager -a; cat /var/log/cloud-init*.log"


class Deployment:
    """The stack of a copy of this project, with droplets that boot."""

    def __init__(self, one: Stack, machines: Machines) -> None:
        self.stack, self.machines = one, machines
        self.texts: dict[str, str] = {}
        """What others may read, by name: plans, and the droplets' user_data and logs."""

    @property
    def key(self) -> Path:
        return Path(self.stack.env["HOME"], ".ssh/id_ed25519")

    @property
    def droplet(self) -> str:
        return self.stack.cloud.only("Droplet")[0]

    @property
    def guest(self) -> Guest:
        return self.machines.guests[self.droplet]

    def typed(self, command: str, *, code: int = 0) -> str:
        """Run a command that starts with `ssh`, as in an output, with the engineer's key."""
        words = shlex.split(command)
        assert words[0] == "ssh"
        # ssh looks for its files in the account's home, not in HOME.
        files = {"UserKnownHostsFile": self.known_hosts(), "GlobalKnownHostsFile": "/dev/null"}
        options = {"BatchMode": "yes", "StrictHostKeyChecking": "yes", **files}
        given = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
        started = ["ssh", "-i", str(self.key), *given, *words[1:]]
        done = subprocess.run(started, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout.strip()

    def known_hosts(self) -> Path:
        """A file with the recorded key of the droplet, and no other."""
        file = self.key.with_name("known_hosts")
        file.write_text(f"{self.stack.outputs()['knownHosts']}\n")
        return file

    def status(self) -> dict[str, Any]:
        """The droplet's status report."""
        return dict(json.loads(self.typed(f"{self.stack.outputs()['ssh']} {HOST} status")))

    def plan(self, what: str) -> None:
        """Preview, and save the plan for a later `up`."""
        file = self.stack.root / "plan.json"
        self.stack.preview("--save-plan", str(file))
        self.texts[f"plan of the {what}"] = file.read_text()

    def keep_texts(self) -> None:
        """Save everything that the current droplet was given and has written."""
        guest, told = self.guest, self.stack.cloud.only("Droplet")[1]["userData"]
        self.texts[f"user_data of {guest.name}"] = told
        self.texts[f"logs of {guest.name}"] = guest.exec("sh", "-c", DIARY, check=False).stdout

    def commit(self, file: str, more: str, *, take_away: bool = False) -> str:
        """Add text to a file of the project, or remove it, and commit; returns the commit."""
        path = self.stack.project / file
        text = path.read_text()
        path.write_text(text.removesuffix(more) if take_away else text + more)
        who = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
        for words in ([*who, "commit", "-qam", f"Change {file}"], ["rev-parse", "HEAD"]):
            git = ["git", "-C", str(self.stack.project), *words]
            done = subprocess.run(git, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def site(self, token: str) -> Site:
        """The service at its public URL, trusting the authority of the exported fingerprint."""
        shown = self.stack.outputs()
        authority = self.typed(f"{shown['ssh']} cat {AUTHORITY}") + "\n"
        digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(authority)).hexdigest().upper()
        assert digest == shown["certificateFingerprint"].replace(":", "")
        return Site(shown["url"], authority, token)


class Site:
    """A user of the service, over HTTPS."""

    def __init__(self, url: str, authority: str, token: str) -> None:
        self.http = httpx.Client(
            base_url=f"{url}/api/v1",
            headers={"authorization": f"Bearer {token}"} if token else {},
            verify=ssl.create_default_context(cadata=authority),
            timeout=60,
            trust_env=False,
        )

    def __enter__(self) -> Site:
        return self

    def __exit__(self, *_: object) -> None:
        self.http.close()

    def get(self, path: str) -> Any:
        answer = self.http.get(path)
        assert answer.is_success, answer.text
        return answer.json()

    def post(self, path: str, **body: Any) -> dict[str, Any]:
        answer = self.http.post(path, **body)
        assert answer.is_success, answer.text
        return dict(answer.json())

    def events(self, job: str) -> list[dict[str, Any]]:
        return list(self.get(f"/jobs/{job}/events")["events"])

    def finished(self, job: str, seconds: float = 200) -> dict[str, Any]:
        """Wait for a job to finish; a failed job fails the test."""
        until(lambda: self.get(f"/jobs/{job}")["status"] not in {"queued", "running"}, seconds)
        view = dict(self.get(f"/jobs/{job}"))
        assert view["status"] == "succeeded", view["error"]
        return view


def until(done: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, f"did not happen in {seconds} s"
        time.sleep(0.3)


@contextlib.contextmanager
def deployment(folder: Path, *, is_prepared: bool = False) -> Iterator[Deployment]:
    """An empty account with real machines, and the project on an empty backend.

    The image of prepared machines has the packages and the environment of the service, where a
    test is not about their installation.
    """
    machines = Machines(folder, above=(prepared(),) if is_prepared else ())
    try:
        with stack(cloud=Cloud(machines=machines)) as one:
            yield Deployment(one, machines)
    finally:
        machines.close()
