"""The real Pulumi engine, from the command line, against the doubles of both providers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.faults import Fault, Weather, answer, pending
from tests.cloud.stack import CHANGES, Stack, stack

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]
PROGRAM = Path(__file__).parents[1] / "cloud" / "program"
ALWAYS = 1000


@pytest.fixture
def small() -> Iterator[Stack]:
    with stack(PROGRAM) as one:
        yield one


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
def test_an_engine_killed_in_create_leaves_a_lock_and_an_operation(
    small: Stack, *, after: bool
) -> None:
    small.cloud.faults = [Fault(small.kill_engine(), "create", "Droplet", after=after)]
    small.up(code=-9)
    small.cloud.faults = []
    pending_ones = small.state()["pending_operations"]
    assert "digitalocean:index/droplet:Droplet" in [p["resource"]["type"] for p in pending_ones]
    assert "currently locked" in small.up(code=1 if False else None)
    small.run("cancel", "--yes", small.name)
    if after:
        found = small.cloud.only("Droplet")[0]
        urn = pending_ones[0]["resource"]["urn"]
        small.refresh("--import-pending-creates", urn, "--import-pending-creates", found)
    else:
        small.refresh("--clear-pending-creates")
    small.up()
    assert small.cloud.only("Droplet")
    assert "6 unchanged" in small.up()


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
