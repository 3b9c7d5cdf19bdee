"""Requests that the doubles reject and retry, without the engine."""

from __future__ import annotations

from pathlib import Path

import paramiko
import pytest

from tests.cloud import ssh, sshd
from tests.cloud.cloud import Cloud
from tests.cloud.digitalocean import DigitalOcean
from tests.cloud.faults import PENDING, CloudError, Fault, Weather, answer
from tests.cloud.lookups import look_up
from tests.cloud.sdk import digitalocean, remote
from tests.cloud.shapes import problems

DROPLET = {"name": "a", "image": "debian-12-x64", "region": "nyc3", "size": "s-1vcpu-1gb"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGk2RGJ0dGVzdGtleXRlc3RrZXl0ZXN0a2V5dGVzdGtl a"


def held(cloud: Cloud) -> tuple[str, str, str]:
    droplet = cloud.create("Droplet", DROPLET)
    volume = cloud.create("Volume", {"name": "v", "region": "nyc3", "size": 10})
    attached = {"dropletId": int(droplet), "volumeId": volume}
    return droplet, volume, cloud.create("VolumeAttachment", attached)


@pytest.mark.parametrize(
    ("kind", "props", "said"),
    [
        ("Droplet", {**DROPLET, "image": "ubuntu-20-04-x64"}, "invalid image"),
        ("Droplet", {**DROPLET, "size": "s-99"}, "invalid size"),
        ("Droplet", {**DROPLET, "userData": "x" * 65537}, "64 KiB"),
        ("Droplet", {**DROPLET, "region": "mars1"}, "invalid region"),
        ("SpacesBucket", {"name": "b", "region": "nyc1"}, "not available in nyc1"),
        ("Firewall", {"name": "f", "tags": ["nobody"], "inboundRules": [{}]}, "no tag nobody"),
        ("SshKey", {"name": "again", "publicKey": KEY}, "already in use"),
        ("Volume", {"name": "v", "region": "nyc3", "size": 1}, "already exists"),
    ],
)
def test_the_cloud_says_no(kind: str, props: dict[str, object], said: str) -> None:
    cloud = Cloud()
    cloud.create("SshKey", {"name": "mine", "publicKey": KEY})
    cloud.create("Volume", {"name": "v", "region": "nyc3", "size": 10})
    with pytest.raises(CloudError, match=said):
        cloud.create(kind, props)


def test_a_volume_hangs_at_one_droplet_of_its_region_and_is_not_deleted_there() -> None:
    cloud = Cloud(action_seconds=0)
    _, volume, _ = held(cloud)
    other, far = (cloud.create("Droplet", {**DROPLET, "region": r}) for r in ("nyc3", "ams3"))
    with pytest.raises(CloudError, match="already attached"):
        cloud.create("VolumeAttachment", {"dropletId": int(other), "volumeId": volume})
    with pytest.raises(CloudError, match="same region"):
        cloud.create("VolumeAttachment", {"dropletId": int(far), "volumeId": volume})
    with pytest.raises(CloudError, match="cannot be deleted"):
        cloud.delete("Volume", volume)


def test_a_droplet_takes_one_action_at_a_time() -> None:
    cloud = Cloud(action_seconds=60)
    droplet, _, _ = held(cloud)
    address = cloud.create("ReservedIp", {"region": "nyc3"})
    with pytest.raises(CloudError, match=PENDING):
        cloud.create("ReservedIpAssignment", {"dropletId": int(droplet), "ipAddress": address})


def test_the_file_holds_the_cloud_over_a_restart(tmp_path: Path) -> None:
    first = Cloud(tmp_path / "cloud.json")
    droplet, volume, _ = held(first)
    again = Cloud(tmp_path / "cloud.json")
    assert again.holder(volume) == droplet
    assert again.create("Droplet", DROPLET) not in (droplet, "")


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({"name": "f", "inboundRules": [{"protocol": "tcp", "port": "22"}]}, "unknown property"),
        ({"name": "f", "inboundRules": [{"protocol": 6}]}, "expected str, found 6"),
        ({"name": "f", "dropletIds": ["1"]}, "expected int, found '1'"),
        ({"nome": "f"}, "unknown property nome"),
    ],
)
def test_properties_are_as_strict_as_the_classes_of_the_sdk(
    inputs: dict[str, object], said: str
) -> None:
    assert said in " ".join(problems(digitalocean, "Firewall", inputs).values())


def test_what_must_be_given_is_missed() -> None:
    assert "connection" in problems(remote, "Command", {"create": "true"})


def test_lookups_read_the_same_state_and_know_their_arguments() -> None:
    cloud = Cloud(action_seconds=0)
    droplet, volume, _ = held(cloud)
    assert look_up(cloud, "Volume", {"name": "v", "region": "nyc3"})["dropletIds"] == [int(droplet)]
    found = look_up(cloud, "Sizes", {"filters": [{"key": "slug", "values": ["c-4"]}]})
    assert [s["priceMonthly"] for s in found["sizes"]] == [84.0]
    with pytest.raises(CloudError, match="0 of SshKey"):
        look_up(cloud, "SshKey", {"name": "nobody's"})
    with pytest.raises(CloudError, match="unknown argument nome"):
        look_up(cloud, "Volume", {"nome": volume})


def test_the_provider_retries_a_server_error_four_times_and_random_weather_repeats() -> None:
    cloud = Cloud()
    provider = DigitalOcean(cloud, {})
    cloud.faults = [Fault(answer(503), times=4)]
    assert provider._patiently("Droplet", cloud.create, "Droplet", DROPLET)
    cloud.faults = [Fault(answer(503), times=5)]
    with pytest.raises(CloudError, match="503"):
        provider._patiently("Droplet", cloud.create, "Droplet", DROPLET)
    first, second = ([Weather(0.3, seed).hit("create", "x") for _ in range(50)] for seed in (7, 7))
    assert first == second


def test_remote_commands_run_with_input_and_tell_a_failure() -> None:
    with sshd.server() as there:
        connection = reach(there)
        said = ssh.run(connection, "cat; echo warn >&2", stdin="given", variables={})
        assert said == ("given", "warn")
        with pytest.raises(CloudError, match=r"(?s)status 7: running .*why"):
            ssh.run(connection, "echo why; exit 7", stdin="", variables={})
        with pytest.raises(CloudError, match="could not set environment variable"):
            ssh.run(connection, "true", stdin="", variables={"NAME": "value"})


def test_another_host_key_is_refused_before_anything_runs() -> None:
    wrong = paramiko.ECDSAKey.generate()
    with sshd.server() as there:
        line = f"{wrong.get_name()} {wrong.get_base64()}"
        with pytest.raises(CloudError, match="host key mismatch"):
            ssh.run(reach(there, hostKey=line), "touch here", stdin="", variables={})
        assert there.ran == []


def reach(there: sshd.Server, **more: object) -> dict[str, object]:
    known = {"hostKey": there.host_key, "privateKey": there.private_key, "dialErrorLimit": 0}
    return {"host": "127.0.0.1", "port": there.port, "user": "root", **known, **more}
