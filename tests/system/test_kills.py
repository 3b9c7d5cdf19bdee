"""The engine is killed while droplets boot for real: one command and `pulumi up` restore all.

Each point is drawn: a call to the cloud or over SSH, before or after it took effect, or a moment
while the machine works.
"""

from __future__ import annotations

import contextlib
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.api import CloudApi
from tests.cloud.faults import CloudError, Fault
from tests.cloud.stack import TOKEN, kill
from tests.guest.needs import require
from tests.infra.api_double import Api, serving
from tests.system.deployment import Deployment, deployment
from tests.system.test_boot import Clock
from tests.system.test_recover import strangers
from tests.system.test_service import PAPER

pytestmark = pytest.mark.timeout(900)

CALLS = {"first": 20, "bootstrap": 22, "release": 9}
"""Requests of one undisturbed `up` of each sort."""
LONG_COMMANDS = {"first": "create", "bootstrap": "create", "release": "update"}
"""How the engine calls the commands over SSH that last: end of the boot, installation."""
SHORT = ("first", "bootstrap", "release over SSH")
LONG = ("first", "bootstrap", "release", "bootstrap over SSH", "release", "provider")
KEPT = "/srv/unetops/kept"


@dataclass
class Life:
    """One deployment through many kills, and what must stay the same."""

    one: Deployment
    api: Api
    dice: random.Random
    clock: Clock
    number: int = 1
    uuid: str = ""
    token: str = ""
    rules: Any = None

    def through(self, point: str) -> None:
        """One kill, the recovery, the `up` after it, and checks."""
        sort, _, how = point.partition(" ")
        self._ask_for(sort)
        said = self._killed(sort, how)
        self.clock.start()
        named = self._recover()
        began = time.monotonic()
        self.one.stack.up()
        self._look(named)
        self.one.stack.up("--expect-no-changes")
        took = f"recovered in {began - self.clock.last:.0f} s"
        self.clock.lap(f"{point}: {said}; {took}, {len(named)} named; with up and all checks")

    def _ask_for(self, sort: str) -> None:
        self.number += 1
        if sort in ("bootstrap", "provider"):
            self.one.stack.config("bootstrap", str(self.number))
        elif sort == "release":
            self.one.commit("README.md", f"\nLine {self.number}.\n")

    def _killed(self, sort: str, how: str) -> str:
        stack = self.one.stack
        if sort == "provider":
            return self._provider_killed()
        if how == "over SSH":
            fault, said = self._moment(sort)
        else:
            call, after = self.dice.randint(1, CALLS[sort]), self.dice.random() < 0.6
            fault = Fault(stack.kill_engine(), nth=call, after=after)
            said = f"{'after' if after else 'before'} call {call}"
        mark, stack.cloud.faults = len(stack.cloud.calls), [fault]
        stack.up(code=-9)
        stack.cloud.faults = []
        return f"{said} ({stack.cloud.calls[mark:][-1]})"

    def _moment(self, sort: str) -> tuple[Fault, str]:
        seconds, nth = (
            self.dice.uniform(0.3, 4),
            1 if sort == "release" else self.dice.choice([1, 2]),
        )

        def later() -> None:
            threading.Timer(seconds, lambda: kill(self.one.stack.engines())).start()

        fault = Fault(later, LONG_COMMANDS[sort], "remote.Command", nth=nth)
        return fault, f"{seconds:.1f} s into command {nth}"

    def _provider_killed(self) -> str:
        """The provider's last action is not reported; the engine survives and writes its state."""
        call = self.dice.randint(3, CALLS["bootstrap"])
        with relayed(self.one) as dies:
            self.one.stack.cloud.faults = [Fault(dies, nth=call, after=True)]
            self.one.stack.up(code=1)
            self.one.stack.cloud.faults = []
        return f"after call {call}"

    def _recover(self) -> set[str]:
        """Run the documented command; it lists what is left for a person to decide."""
        stack = self.one.stack
        command = [sys.executable, "-m", "app.cli", "infra", "recover"]  # unetops, of this copy
        env = stack.env | {"DIGITALOCEAN_API_URL": self.api.address}
        done = subprocess.run(
            [*command, "--stack", stack.name, "--yes"],
            cwd=stack.project, env=env, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        stack.said += done.stdout
        assert "next: " in done.stdout, f"{done.returncode}: {done.stdout}{done.stderr}"
        return {i for i in strangers(self.one.stack) if i in done.stdout}

    def _look(self, named: set[str]) -> None:
        """Check for one droplet, one volume with all its data, and the service behind its token."""
        one, cloud = self.one, self.one.stack.cloud
        assert strangers(one.stack) == named
        assert len(set(cloud.objects["Droplet"]) - named) == 1
        cloud.only("Volume")
        if not self.token:
            self._begin()
        (disk,) = one.machines.disks.values()
        assert disk.uuid() == one.status()["volume_uuid"] == self.uuid
        assert one.typed(f"{one.stack.outputs()['ssh']} cat {KEPT}") == self.uuid
        with one.site(self.token) as site:
            assert site.get(f"/rules/{self.rules['id']}") == self.rules["rules"]

    def _begin(self) -> None:
        one = self.one
        shown = one.stack.outputs()
        self.uuid = self.uuid or one.status()["volume_uuid"]
        self.token = one.typed(shown["adminTokenCommand"])
        one.typed(f"{shown['ssh']} 'echo {self.uuid} >{KEPT}; sync'")
        with one.site(self.token) as site:
            self.rules = site.post("/rules", json=PAPER)


@contextlib.contextmanager
def relayed(one: Deployment) -> Iterator[Callable[[], None]]:
    """Put a process between the engine and the providers; yields a function that kills it."""
    attached = one.stack.env["PULUMI_DEBUG_PROVIDERS"]
    ports = dict(part.split(":") for part in attached.split(","))
    command = [sys.executable, "-m", "tests.cloud.relay", *ports.values()]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        front = zip(ports, process.stdout.readline().split(), strict=True)
        one.stack.env["PULUMI_DEBUG_PROVIDERS"] = ",".join(":".join(pair) for pair in front)

        def dies() -> None:
            process.kill()
            raise CloudError(0, "nobody is left to read this")

        try:
            yield dies
        finally:
            process.kill()
            one.stack.env["PULUMI_DEBUG_PROVIDERS"] = attached


@pytest.mark.parametrize(
    ("seed", "points"),
    [
        pytest.param(0, SHORT, marks=pytest.mark.system),
        *[
            pytest.param(seed, LONG, marks=[pytest.mark.long, pytest.mark.timeout(3600)])
            for seed in range(1, 5)
        ],
    ],
)
def test_killed_anywhere_one_command_and_up_bring_all_back(
    tmp_path: Path, request: pytest.FixtureRequest, seed: int, points: tuple[str, ...]
) -> None:
    require()
    with (
        deployment(tmp_path, is_prepared=points == SHORT) as one,
        serving(CloudApi(one.stack.cloud), token=TOKEN) as api,
    ):
        life = Life(one, api, random.Random(seed), Clock(request.config))
        for point in points:
            life.through(point)
