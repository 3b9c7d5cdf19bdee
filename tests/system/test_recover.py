"""The documented recovery on the real engine: after any kill, one droplet and volume remain."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.api import CloudApi
from tests.cloud.faults import Fault
from tests.cloud.stack import ROOT, TOKEN, Stack, stack
from tests.infra.api_double import Api, serving
from tests.infra.test_doctor import KEY

pytestmark = pytest.mark.timeout(900)
PROGRAM = Path(__file__).parents[1] / "cloud" / "unbooted"
KILLED = -9
REFUSED = 1
FIRST_CALLS, NEXT_CALLS = (
    15,
    6,
)  # minimum for the first `up` and for a new bootstrap
NAMED = ("Droplet", "Volume", "Firewall", "Vpc", "SshKey", "Project", "UptimeCheck", "MonitorAlert")


@pytest.fixture
def one() -> Iterator[Stack]:
    with stack(PROGRAM, extra={"PYTHONPATH": str(ROOT)}) as made:
        made.config("sshPublicKeys", json.dumps([KEY]))
        made.config("sshFrom", '["198.18.0.7/32"]')
        made.config("alertEmails", '["me@example.org"]')
        yield made


@pytest.fixture
def api(one: Stack) -> Iterator[Api]:
    with serving(CloudApi(one.cloud), token=TOKEN) as made:
        yield made


def recover(one: Stack, api: Api, *words: str, module: str = "infra.recover") -> Any:
    command = [sys.executable, "-m", module, *words]
    env = one.env | {"DIGITALOCEAN_API_URL": api.address}
    done = subprocess.run(command, cwd=one.project, env=env, capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    return json.loads(done.stdout) if "--json" in words else done.stdout


def strangers(one: Stack) -> set[str]:
    """Ids of the objects with the stack's name that are in no state."""
    held = {str(r.get("id")) for r in one.state()["resources"]}
    return {id_ for kind in NAMED for id_ in one.cloud.objects[kind]} - held


@pytest.mark.parametrize(
    "seed",
    [
        *(pytest.param(n, marks=pytest.mark.system) for n in range(5)),
        *(pytest.param(n, marks=pytest.mark.long) for n in range(5, 25)),
    ],
)
def test_killed_at_any_call_one_command_and_up_converge(one: Stack, api: Api, seed: int) -> None:
    dice = random.Random(seed)
    is_first = seed % 2 == 0
    if not is_first:
        one.up()
        one.config("bootstrap", "2")
    call = dice.randint(1, FIRST_CALLS if is_first else NEXT_CALLS)
    volumes = set(one.cloud.objects["Volume"])
    one.cloud.faults = [Fault(one.kill_engine(), nth=call, after=dice.random() < 0.7)]
    one.up(code=KILLED)
    one.cloud.faults = []
    marks = [r["resource"]["type"] for r in one.state().get("pending_operations", [])]
    said = recover(one, api, "--yes")
    one.up()
    one.cloud.only("Droplet")
    assert volumes <= {one.cloud.only("Volume")[0]}, f"call {call}, {marks}: {said}"
    named = {extra["id"] for extra in recover(one, api, "--json")["extras"]}
    assert strangers(one) == named, f"call {call}, {marks}: {said}"
    one.up("--expect-no-changes")


@pytest.mark.system
@pytest.mark.parametrize("bootstrap", ["1", "2"], ids=["first_up", "new_droplet"])
def test_a_droplet_that_was_made_is_taken_in_and_not_replaced(
    one: Stack, api: Api, bootstrap: str
) -> None:
    if bootstrap == "2":
        one.up()
        one.config("bootstrap", bootstrap)
    one.cloud.faults = [Fault(one.kill_engine(), "create", "Droplet", after=True)]
    one.up(code=KILLED)
    one.cloud.faults = []
    made = one.cloud.only("Droplet")[0]
    assert f"Droplet unetops-dev {made}" in recover(one, api, "--yes")
    mark = len(one.cloud.log)
    one.up()
    assert not [done for done in one.cloud.since(mark) if done.endswith((" Droplet", " Volume"))
                and not done.startswith("update")]  # fmt: skip
    assert one.cloud.only("Droplet")[0] == made
    one.up("--expect-no-changes")


@pytest.mark.system
@pytest.mark.parametrize(("bootstrap", "step"), [("1", "import"), ("2", "refresh")])
def test_a_recovery_that_is_killed_itself_goes_on_when_typed_again(
    one: Stack, api: Api, bootstrap: str, step: str
) -> None:
    if bootstrap == "2":
        one.up()
        one.config("bootstrap", bootstrap)
    one.cloud.faults = [Fault(one.kill_engine(), "create", "Droplet", after=True)]
    one.up(code=KILLED)
    one.cloud.faults = [Fault(one.kill_engine(), "read", "Droplet")]
    with pytest.raises(AssertionError, match=f"pulumi {step} exited with -9"):
        recover(one, api, "--yes")
    one.cloud.faults = []
    recover(one, api, "--yes")
    made = one.cloud.only("Volume")[0], one.cloud.only("Droplet")[0]
    one.up()
    assert (one.cloud.only("Volume")[0], one.cloud.only("Droplet")[0]) == made
    one.up("--expect-no-changes")


@pytest.mark.system
def test_an_orphan_without_a_mark_is_named_and_taken_in_by_the_line_it_comes_with(
    one: Stack, api: Api
) -> None:
    one.up()
    host = "urn:pulumi:dev::unetops::unetops:infra:Host::unetops-dev"
    one.run("state", "delete", "--yes", "--target-dependents", "--stack", one.name, host)
    extras = recover(one, api, "--json")["extras"]
    assert {extra["id"] for extra in extras} == strangers(one) | {one.cloud.only("ReservedIp")[0]}
    for extra in extras:
        assert extra["take"].startswith("unetops infra recover --stack dev --take ")
        recover(one, api, *extra["take"].split()[3:])
    assert recover(one, api, "--json")["extras"] == []
    one.up()
    for kind in ("Droplet", "ReservedIp", "UptimeCheck", "Project"):
        assert one.cloud.only(kind)[0] in {extra["id"] for extra in extras}


@pytest.mark.system
def test_a_volume_that_the_state_does_not_hold_stops_up_until_it_is_adopted(
    one: Stack, api: Api
) -> None:
    there = {"name": "unetops-dev", "region": "nyc3", "size": 100, "tags": ["unetops-dev"]}
    volume = one.cloud.create("Volume", there)
    line = f"adopt it with its data: unetops infra recover --stack dev --take volume/{volume}"
    assert line in one.preview(code=REFUSED)
    findings = recover(one, api, "--json", module="infra.doctor")
    assert any(finding["remedy"].endswith(line) for finding in findings)
    recover(one, api, *line.split("recover ")[1].split())
    assert line not in one.up()
    assert one.cloud.only("Volume")[0] == volume
    assert line not in one.up("--expect-no-changes")
    one.destroy("--exclude-protected")
    assert line not in one.up()
    assert one.cloud.only("Volume")[0] == volume
