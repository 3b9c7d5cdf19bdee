"""The real Pulumi engine, from the command line, with doubles of both providers."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud import sshd
from tests.cloud.faults import Fault, Weather, answer, pending
from tests.cloud.stack import CHANGES, Stack, stack

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
PROGRAM = Path(__file__).parents[1] / "cloud" / "program"
ALWAYS = 1000
FAILED = 1
DROPLET = "digitalocean:index/droplet:Droplet"


@pytest.fixture
def small() -> Iterator[Stack]:
    with stack(PROGRAM) as one:
        yield one


def test_the_project_previews_on_an_empty_backend_with_the_documented_config() -> None:
    with stack() as one:
        began = time.monotonic()
        said = one.preview()
        assert time.monotonic() - began < 30
        assert one.cloud.log == []
    assert re.search(r"price: about \$\d+", said)
    assert "s-2vcpu-4gb by the live API" in said
    assert re.search(r"\+ \d\d to create", said)


def test_preview_knows_what_it_cannot_know_and_calls_nothing(small: Stack) -> None:
    said = small.preview()
    assert "6 to create" in said
    assert small.cloud.log == []


def test_second_up_changes_nothing_and_refresh_finds_no_drift(small: Stack) -> None:
    assert "6 created" in small.up()
    assert "6 unchanged" in small.up("--expect-no-changes")
    small.refresh("--preview-only", "--expect-no-changes")
    small.cloud.only("Droplet")[1]["tags"] = ["by-hand"]
    small.refresh("--preview-only", "--expect-no-changes", code=CHANGES)


def test_a_new_bootstrap_replaces_the_droplet_and_keeps_the_volume(small: Stack) -> None:
    small.up()
    (droplet, _), (volume, _) = small.cloud.only("Droplet"), small.cloud.only("Volume")
    mark = len(small.cloud.log)
    small.config("bootstrap", "2")
    small.up()
    order = [s for s in small.cloud.since(mark) if "Ip" not in s]
    assert order == [
        "delete VolumeAttachment",
        "delete Droplet",
        "create Droplet",
        "create VolumeAttachment",
    ]
    assert small.cloud.only("Volume")[0] == volume
    assert small.cloud.only("Droplet")[0] != droplet


def test_destroy_leaves_what_is_protected(small: Stack) -> None:
    small.up()
    volume = small.cloud.only("Volume")[0]
    small.destroy("--exclude-protected")
    assert small.cloud.only("Volume")[0] == volume
    left = {kind for kind, objects in small.cloud.objects.items() if objects}
    assert left == {"Volume"}


def test_a_value_that_is_secret_is_not_in_the_backend(small: Stack) -> None:
    said = small.up()
    assert "hunter2" in small.cloud.only("Droplet")[1]["userData"]
    assert "hunter2" not in small.state_text() + said
    assert "ciphertext" in small.state_text()


def test_a_type_that_the_sdk_does_not_know_is_refused(small: Stack) -> None:
    small.config("strange", "tag")
    said = small.preview(code=1)
    assert "name: expected str, found ['tag']" in said
    assert "unknown property odd" in said


def test_few_bad_answers_are_retried_and_many_fail_and_up_again_converges(small: Stack) -> None:
    cloud = small.cloud
    cloud.faults = [
        Fault(answer(429), "create", "Droplet", times=2),
        Fault(answer(503), "create", "Volume"),
        Fault(pending(), "create", "VolumeAttachment", times=3),
    ]
    small.up()
    small.config("bootstrap", "2")
    cloud.faults = [Fault(answer(503, "no capacity"), "create", "Droplet", times=ALWAYS)]
    assert "503 no capacity" in small.up(code=1)
    cloud.faults = [Weather(rate=0.2, seed=1)]
    small.up()
    cloud.faults = []
    assert "6 unchanged" in small.up()
    assert cloud.only("Droplet") and cloud.only("Volume")


@pytest.mark.parametrize("after", [False, True], ids=["before_the_cloud_acts", "after_it_acted"])
def test_an_engine_killed_in_create_is_recovered(small: Stack, *, after: bool) -> None:
    small.cloud.faults = [Fault(small.kill_engine(), "create", "Droplet", after=after)]
    small.up(code=-9)
    small.cloud.faults = []
    left = [p["resource"] for p in small.state()["pending_operations"]]
    assert DROPLET in [resource["type"] for resource in left]
    assert "currently locked" in small.up(code=FAILED)
    small.run("cancel", "--yes", small.name)
    small.refresh("--clear-pending-creates")
    assert bool(small.cloud.objects["Droplet"]) == after
    for resource in left:  # the volume is created concurrently, so it may be one of them
        type_, name = resource["type"], resource["urn"].split("::")[-1]
        for id_ in small.cloud.objects[type_.split(":")[-1]]:
            small.take_in(type_, name, id_)
    small.up()
    assert small.cloud.only("Droplet") and small.cloud.only("Volume")
    small.up("--expect-no-changes")


def test_the_engine_does_not_import_what_it_was_told_to_import(small: Stack) -> None:
    """Why recovery uses `pulumi import`: the flag renames the mark, which is then lost."""
    small.cloud.faults = [Fault(small.kill_engine(), "create", "Droplet", after=True)]
    small.up(code=-9)
    small.cloud.faults = []
    (mark,) = [p for p in small.state()["pending_operations"] if p["resource"]["type"] == DROPLET]
    small.run("cancel", "--yes", small.name)
    found = small.cloud.only("Droplet")[0]
    flag = "--import-pending-creates"
    small.refresh(flag, mark["resource"]["urn"], flag, found)
    assert DROPLET not in [r["type"] for r in small.state()["resources"]]


def test_local_commands_run_again_when_an_input_changes(small: Stack) -> None:
    small.config("command", 'echo "$WORD one" | tee -a ran.txt')
    small.up()
    assert small.outputs()["stdout"] == "here one"
    small.up()
    small.config("trigger", "2")
    assert "replace" in small.up()
    small.config("command", 'echo "$WORD, before: $PULUMI_COMMAND_STDOUT" | tee -a ran.txt')
    small.up()
    lines = (small.project / "ran.txt").read_text().splitlines()
    assert lines == ["here one", "here one", "here, before: here one"]
    small.config("command", "echo broken >&2; exit 3")
    said = small.up(code=1)
    assert "exit status 3" in said and "broken" in said


def test_remote_commands_and_copies_go_over_ssh_to_the_host_that_is_known(
    small: Stack, tmp_path: Path
) -> None:
    copied = tmp_path / "copied.yaml"
    with sshd.server() as there:
        small.config("sshPort", str(there.port))
        small.config("hostKey", there.host_key)
        small.config("privateKey", there.private_key, "--secret")
        small.config("target", str(copied))
        said = small.up()
        assert copied.read_bytes() == (small.project / "Pulumi.yaml").read_bytes()
        small.config("trigger", "2")
        said += small.up()
        assert there.ran == ["cat", "echo update"]
        small.up("--expect-no-changes")
        private = there.private_key.splitlines()[1]
        assert private not in small.state_text() + said
    with sshd.server() as other:
        small.config("sshPort", str(other.port))
        assert "host key mismatch" in small.up(code=FAILED)
        assert other.ran == []


def test_a_provider_that_dies_after_the_cloud_acted_leaves_an_orphan_that_the_cloud_shows(
    small: Stack, tmp_path: Path
) -> None:
    """The state has no trace of it, neither mark nor lock; only the tag identifies it."""
    state = tmp_path / "cloud.json"
    with separate(small, state, "create:Droplet:1:exit:after"):
        assert "error reading from server" in small.up(code=FAILED)
    assert "pending_operations" not in small.state()
    with separate(small, state):
        droplets = json.loads(state.read_text())["objects"]["Droplet"]
        (orphan,) = [i for i, d in droplets.items() if "double" in d["tags"]]
        small.take_in(DROPLET, "host", orphan)
        small.up()
    assert len(json.loads(state.read_text())["objects"]["Droplet"]) == 1


@contextlib.contextmanager
def separate(one: Stack, state: Path, *faults: str) -> Iterator[None]:
    """Serve the doubles from a separate process for a while."""
    words = [word for fault in faults for word in ("--fault", fault)]
    command = [sys.executable, "-m", "tests.cloud.serve", "--state", str(state), *words]
    attached = one.env["PULUMI_DEBUG_PROVIDERS"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            first, second = process.stdout.readline().split()
            one.env["PULUMI_DEBUG_PROVIDERS"] = f"digitalocean:{first},command:{second}"
            yield
        finally:
            process.kill()
            one.env["PULUMI_DEBUG_PROVIDERS"] = attached
