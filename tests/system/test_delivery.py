"""The deploy and drift jobs on the real engine: SSH is opened and closed again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.cloud.api import CloudApi
from tests.cloud.faults import Fault, answer
from tests.cloud.stack import ROOT, TOKEN, Stack, stack
from tests.infra.api_double import serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
RUNNER = "198.18.0.99"
LASTING = "198.18.0.7/32"
ALWAYS = 1000
DRIFT, LOCKED = 7, 1


class Job:
    """A checkout on a runner, and the output of `stack.sh` there."""

    def __init__(self, one: Stack, folder: Path, address: str) -> None:
        self.stack = one
        named = {"STACK": one.name, "RUNNER_ADDRESS": RUNNER, "RUNNER_TEMP": str(folder)}
        self.env = {**one.env, **named, "DIGITALOCEAN_API_URL": address}

    def start(self, step: str) -> subprocess.Popen[str]:
        words = [self.stack.project / ".github/scripts/stack.sh", step]
        return subprocess.Popen(
            words, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def run(self, step: str, *, code: int = 0) -> str:
        with self.start(step) as process:
            said = process.communicate(timeout=300)[0]
        assert process.returncode == code, said
        return said

    def may_come_in(self) -> list[str]:
        """Addresses with access to port 22, according to the cloud's firewall."""
        walls = self.stack.cloud.objects["Firewall"].values()
        doors = [door for wall in walls for door in wall["inboundRules"]]
        return [a for door in doors if door["portRange"] == "22" for a in door["sourceAddresses"]]


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    """The project without its release, which needs a machine that boots."""
    with stack() as one:
        main = ROOT / "tests/cloud/unbooted/__main__.py"
        (one.project / "infra/__main__.py").write_text(main.read_text())
        one.env["PYTHONPATH"] = str(one.project)
        one.config("sshFrom[0]", LASTING, "--path")
        who = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
        commit = ["git", *who, "commit", "-qam", "The stack"]
        subprocess.run(commit, cwd=one.project, check=True)
        with serving(CloudApi(one.cloud), token=TOKEN) as api:
            yield Job(one, tmp_path, api.address)


def test_the_runner_comes_in_for_its_own_time(job: Job) -> None:
    job.run("open")
    job.run("deploy")
    assert sorted(job.may_come_in()) == [LASTING, f"{RUNNER}/32"]
    job.run("close")
    assert job.may_come_in() == [LASTING]
    said = ["git", "status", "--porcelain"]
    assert subprocess.check_output(said, cwd=job.stack.project) == b""
    assert "no drift" in job.run("drift")
    job.stack.cloud.only("Droplet")[1]["tags"] = ["by-hand"]
    assert "::error title=Drift::" in job.run("drift", code=DRIFT)
    job.stack.cloud.faults = [Fault(answer(503), "read", "*", times=ALWAYS)]
    said = job.run("drift", code=1)
    assert "::error title=Check failed::" in said
    assert "title=Drift" not in said


def killed(job: Job) -> Callable[[], None]:
    return job.stack.kill_engine()


@pytest.mark.parametrize("call", ["create Firewall", "create Droplet"])
def test_a_first_deployment_that_is_cut_off_leaves_no_door_open(job: Job, call: str) -> None:
    job.run("open")
    job.stack.cloud.faults = [Fault(killed(job), *call.split(), after=True)]
    job.run("deploy", code=128 + signal.SIGKILL)
    assert f"{RUNNER}/32" in job.may_come_in()
    job.stack.cloud.faults = []
    job.run("close")
    assert job.may_come_in() == [LASTING]
    job.run("deploy")
    assert job.stack.cloud.only("Droplet") and job.stack.cloud.only("Firewall")


def test_an_update_of_the_firewall_that_is_cut_off_is_undone(job: Job) -> None:
    job.run("deploy")
    job.run("open")
    job.stack.cloud.faults = [Fault(killed(job), "update", "Firewall", after=True)]
    job.run("deploy", code=128 + signal.SIGKILL)
    assert f"{RUNNER}/32" in job.may_come_in()
    job.stack.cloud.faults = []
    job.run("close")
    assert job.may_come_in() == [LASTING]


def test_an_engine_that_outlives_its_step_is_ended_before_the_door_is_closed(job: Job) -> None:
    """GitHub kills the script of a step that takes too long, but not its child processes."""
    asked, answered = threading.Event(), threading.Event()

    def hang() -> None:
        asked.set()
        answered.wait(120)

    job.run("open")
    job.stack.cloud.faults = [Fault(hang, "create", "Droplet", after=True)]
    with job.start("deploy") as process:
        assert asked.wait(60)
        until = time.monotonic() + 30
        while not job.may_come_in() and time.monotonic() < until:
            time.sleep(0.2)
        os.kill(process.pid, signal.SIGTERM)
        assert process.wait(10) == -signal.SIGTERM
        assert job.stack.engines()
        job.run("close")
        answered.set()
    assert job.may_come_in() == [LASTING]
    assert job.stack.engines() == []


def test_a_firewall_that_no_state_knows_is_named_with_the_line_that_settles_it(job: Job) -> None:
    """As left by a provider that dies after the cloud has acted: neither mark nor lock."""
    job.run("open")
    door = {"protocol": "tcp", "portRange": "22", "sourceAddresses": [f"{RUNNER}/32"]}
    wall = job.stack.cloud.create("Firewall", {"name": "unetops-dev", "inboundRules": [door]})
    assert "already exists" in job.run("deploy", code=1)
    said = job.run("close", code=1)
    assert "::error title=SSH may be open::" in said
    line = f"unetops infra recover --stack dev --take firewall/{wall}"
    assert line in said
    words = [sys.executable, "-m", "infra.recover", *line.split("recover ")[1].split()]
    subprocess.run(words, cwd=job.stack.project, env=job.env, check=True, capture_output=True)
    job.run("close")
    assert job.may_come_in() == [LASTING]


def test_somebody_elses_lock_stays(job: Job) -> None:
    job.run("deploy")
    job.stack.config("bootstrap", "2")
    job.stack.cloud.faults = [Fault(killed(job), "create", "Droplet")]
    job.stack.up(code=-signal.SIGKILL)
    job.stack.cloud.faults = []
    job.run("open")
    for step in ("deploy", "close"):
        assert "currently locked" in job.run(step, code=LOCKED)
    assert job.may_come_in() == [LASTING]


def test_what_the_pack_refuses_is_not_deployed(job: Job) -> None:
    job.stack.config("priceCeiling", "10")
    assert "above the ceiling of $10.00" in job.run("deploy", code=1)
    assert job.stack.cloud.log == []
