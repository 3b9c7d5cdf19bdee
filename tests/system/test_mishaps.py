"""Failures on real machines: `pulumi up` reports each, and the next one converges."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cloud.faults import Fault, Weather, pending
from tests.guest.needs import require
from tests.guest.prepared import prepared
from tests.system.deployment import HOST, Deployment, deployment, until
from tests.system.test_boot import Clock
from tests.system.test_service import PAPER

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

BROKEN = '\nraise RuntimeError("this release is broken")\n'


def test_up_again_converges_after_each_mishap_and_the_data_stays(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    require()
    clock = Clock(request.config)
    with deployment(tmp_path) as one:
        clock.start()
        power_goes_in_the_first_boot(one)
        clock.lap("the power goes in the first boot: up, up again")
        token = one.typed(one.stack.outputs()["adminTokenCommand"])
        with one.site(token) as site:
            rules = site.post("/rules", json=PAPER)
        uuid, healthy = one.status()["volume_uuid"], one.stack.outputs()["release"]
        broken_release_is_rolled_back(one, token, healthy)
        clock.lap("a broken release: up fails, the old one serves")
        never_healthy(one)
        clock.lap("the broken release on a new droplet: never healthy")
        one.commit("app/web/main.py", BROKEN, take_away=True)
        one.stack.up()
        clock.lap("the repaired release: up")
        assert one.status()["volume_uuid"] == uuid
        with one.site(token) as site:
            assert site.get(f"/rules/{rules['id']}") == rules["rules"]
        one.stack.up("--expect-no-changes")


def power_goes_in_the_first_boot(one: Deployment) -> None:
    """The machine comes back by itself with packages half installed; the API has errors."""

    def pull_the_plug() -> None:
        one.guest.power_off(hard=True)
        one.guest.power_on()

    # The first SSH command waits for the end of the boot, so this is in the middle of it.
    cut = Fault(pull_the_plug, "create", "remote.Command")
    weather = Weather(rate=0.3, seed=1)
    one.stack.cloud.faults = [cut, weather, Fault(pending(), "create", "VolumeAttachment")]
    until(lambda: "Duration" in one.stack.up(code=None) and cut.seen > 0, 120)
    assert weather.hits
    one.stack.cloud.faults = []
    one.stack.up()


def broken_release_is_rolled_back(one: Deployment, token: str, healthy: str) -> None:
    """The web process exits at start; `up` shows its last output."""
    one.commit("app/web/main.py", BROKEN)
    said = one.stack.up(code=1)
    assert "this release is broken" in said
    assert f"failed, {healthy} serves again" in said
    assert one.status()["release"] == healthy
    with one.site(token) as site:
        assert site.get("/jobs") == []


def never_healthy(one: Deployment) -> None:
    """A new droplet has no earlier release to fall back to."""
    one.machines.above = (prepared(),)
    one.stack.config("bootstrap", "2")
    assert "this release is broken" in one.stack.up(code=1)
    # Not over SSH: the outputs, including the host key, are those of the last successful `up`.
    assert json.loads(one.guest.exec(HOST, "status").stdout)["release"] is None
