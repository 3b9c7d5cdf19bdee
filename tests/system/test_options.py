"""Options that affect data and cost, in the engine's state and in its actions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cloud.stack import ROOT, Stack, stack
from tests.infra.test_components import KEY

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
PROGRAM = Path(__file__).parents[1] / "cloud" / "unbooted"
SPACES = {"SPACES_ACCESS_KEY_ID": "AK", "SPACES_SECRET_ACCESS_KEY": "of the tests"}
VALUES = {
    "sshPublicKeys": json.dumps([KEY]),
    "sshFrom": '["198.18.0.7/32"]',
    "alertEmails": '["me@example.org"]',
    "bucket": "true",
    "snapshot": "june",
}


@contextmanager
def deployed() -> Iterator[Stack]:
    """The project up to the droplet, with its bucket, a snapshot and alerts."""
    with stack(PROGRAM, extra={"PYTHONPATH": str(ROOT), **SPACES}) as made:
        for key, value in VALUES.items():
            made.config(key, value)
        made.up()
        yield made


@pytest.fixture
def one() -> Iterator[Stack]:
    with deployed() as made:
        yield made


@pytest.fixture(scope="module")
def still() -> Iterator[Stack]:
    """For read-only tests."""
    with deployed() as made:
        yield made


def held(one: Stack, kind: str) -> dict[str, Any]:
    (found,) = [r for r in one.state()["resources"] if r["type"].endswith(f":{kind}")]
    return dict(found)


def test_data_is_protected_and_kept_and_its_volume_is_not_replaced(still: Stack) -> None:
    volume, bucket = held(still, "Volume"), held(still, "SpacesBucket")
    for kept in (volume, bucket):
        assert (kept["protect"], kept["retainOnDelete"]) == (True, True)
    assert {"initialFilesystemType", "description"} <= set(volume["ignoreChanges"])
    assert "forceDestroy" not in bucket["inputs"] or not bucket["inputs"]["forceDestroy"]
    assert held(still, "VolumeSnapshot")["retainOnDelete"] is True
    assert not [
        r for r in still.state()["resources"] if r.get("protect") and r not in (volume, bucket)
    ]


def test_only_a_new_bootstrap_makes_a_new_droplet(one: Stack) -> None:
    droplet, address = one.cloud.only("Droplet")[0], one.cloud.only("ReservedIp")[0]
    assert held(one, "Droplet")["ignoreChanges"] == ["userData", "sshKeys", "image"]
    for key, value in {"torchIndex": "https://example.org/whl", "image": "debian-13-x64"}.items():
        one.config(key, value)
    one.up("--expect-no-changes")
    one.config("size", "s-8vcpu-16gb")
    one.config("volumeGib", "150")
    one.up()
    assert one.cloud.only("Droplet")[0] == droplet
    assert one.cloud.only("Droplet")[1]["size"] == "s-8vcpu-16gb"
    assert one.cloud.only("Droplet")[1]["resizeDisk"] is False
    assert one.cloud.only("Volume")[1]["size"] == 150
    mark = len(one.cloud.log)
    one.config("bootstrap", "2")
    one.up()
    done = one.cloud.since(mark)
    assert [line for line in done if line.split()[1] in ("Droplet", "VolumeAttachment")] == [
        "delete VolumeAttachment",
        "delete Droplet",
        "create Droplet",
        "create VolumeAttachment",
    ]
    assert not [line for line in done if line.split()[1] in ("Volume", "ReservedIp", "Vpc")]
    assert one.cloud.only("ReservedIp")[0] == address
    new = one.cloud.only("Droplet")[1]
    assert new["image"] == "debian-13-x64"
    assert "https://example.org/whl" in new["userData"]


def test_a_new_label_takes_a_new_snapshot_and_leaves_the_old_one(one: Stack) -> None:
    one.config("snapshot", "july")
    one.up()
    names = {p["name"] for p in one.cloud.objects["VolumeSnapshot"].values()}
    assert names == {"unetops-dev-june", "unetops-dev-july"}


def test_losing_the_data_takes_the_stacks_name(one: Stack) -> None:
    one.destroy("--exclude-protected")
    assert one.cloud.objects["Volume"] and one.cloud.objects["SpacesBucket"]
    one.config("loseData", "dev")
    one.up()
    one.destroy()
    left = {kind for kind, objects in one.cloud.objects.items() if objects}
    assert left == {"VolumeSnapshot"}


def test_who_is_mailed_and_when(still: Stack) -> None:
    alerts = still.cloud.objects["MonitorAlert"].values()
    assert {a["type"]: (a["compare"], a["value"], a["window"], a["enabled"]) for a in alerts} == {
        "v1/insights/droplet/cpu": ("GreaterThan", 98, "10m", True),
        "v1/insights/droplet/memory_utilization_percent": ("GreaterThan", 90, "10m", True),
        "v1/insights/droplet/disk_utilization_percent": ("GreaterThan", 85, "10m", True),
    }
    for alert in alerts:
        assert alert["tags"] == ["unetops-dev"]
        assert alert["alerts"] == {"emails": ["me@example.org"]}
    down = still.cloud.only("UptimeAlert")[1]
    assert (down["type"], down["period"]) == ("down_global", "2m")
    assert down["notifications"] == [{"emails": ["me@example.org"]}]
    assert down["checkId"] == still.cloud.only("UptimeCheck")[0]
    address = still.cloud.only("ReservedIp")[0]
    assert still.cloud.only("UptimeCheck")[1]["target"] == f"https://{address}/healthz"
