"""A droplet's user_data boots for real: what serves, what is denied and what survives."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.units import UNITS
from tests.app.conftest import drawn_zip
from tests.filehost import file_answer, file_host
from tests.guest.droplet import Droplet, build_wheel, new_key
from tests.guest.guest import ROOT, sweep
from tests.guest.needs import require
from tests.guest.ports import open_ports
from tests.guest.prepared import prepared
from tests.guest.probe import probe
from tests.guest.volume import Volume
from tests.guest.wires import METADATA, SECRET

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

HOST = "/opt/unetops/bin/unetops-host"
HOME = "/srv/unetops/home"
INTERNET = "45.55.0.7"  # a public address, routed to this machine inside the test
CURL_REFUSED = 7
CLOSED = ["/", "/etc", "/usr", "/boot", "/root", "/home", "/opt/unetops", "/opt/unetops/releases"]
CLOSED += ["/opt/unetops/bin", "/etc/unetops", "/var/lib", "/var/lib/unetops", "/srv"]
SEALED = ["/etc/passwd", HOST, "/etc/unetops/environment", "/proc/sys/kernel/hostname"]
SEALED += ["/etc/systemd/system/unetops-web.service", "/proc/sysrq-trigger"]


def spec_user_data(public_key: str, volume: str) -> str:
    """The user_data of the documented stack, for a volume of that name."""
    from infra.cloud_init import MachineSpec, user_data

    return user_data(
        MachineSpec(
            hostname="unetops-boot",
            volume_name=volume,
            deploy_keys=(public_key,),
            domain=None,
            acme_directory=None,
            swap_gib=0,
            dataset_url=None,
            gpu=False,
            gpu_idle_minutes=None,
            torch_index=None,
            source=None,
            release_id="first",
            lock=(ROOT / "requirements.lock").read_text(),
            stack="boot",
            project="unetops",
        )
    )


class Made:
    """Droplets of this module, created on demand and stopped at the end."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.key, self.public = new_key(folder / "keys")
        self.droplets: list[Droplet] = []
        self.volumes: dict[str, Volume] = {}

    def volume(self, name: str) -> Volume:
        return self.volumes.setdefault(name, Volume(name, self.folder / "volumes"))

    def droplet(self, name: str, volume: str) -> Droplet:
        made = Droplet(name, spec_user_data(self.public, volume), self.volume(volume), self.key)
        self.droplets.append(made)
        return made

    def close(self) -> None:
        for droplet in self.droplets:
            droplet.guest.destroy()
        for volume in self.volumes.values():
            volume.detach()


class Clock:
    """Prints, past pytest's capture, how long each step took and what could not be tested."""

    def __init__(self, config: pytest.Config) -> None:
        self.capture = config.pluginmanager.getplugin("capturemanager")
        self.last = time.monotonic()

    def start(self) -> None:
        self.last = time.monotonic()

    def lap(self, what: str) -> None:
        self.say(f"{what}: {time.monotonic() - self.last:.1f} s")
        self.start()

    def say(self, text: str) -> None:
        with self.capture.global_and_fixture_disabled():
            sys.stderr.write(f"\n{text}")  # a parallel worker has no other way to print


@pytest.fixture(scope="module")
def clock(request: pytest.FixtureRequest) -> Clock:
    return Clock(request.config)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    require()
    sweep()
    everything = Made(tmp_path_factory.mktemp("boot"))
    try:
        yield everything
    finally:
        everything.close()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def droplet(made: Made, wheel: Path, clock: Clock) -> Droplet:
    """The first droplet of a stack, booted, with this working copy released to it."""
    first = made.droplet("first", "unetops-boot")
    clock.start()
    report = first.boot()
    clock.lap("create to end of first boot")
    assert report["status"] == "done", report
    done = first.release("first", wheel)
    clock.lap("release, base environment included")
    assert done.returncode == 0, done.stdout + done.stderr
    first.serves()
    return first


def machine(droplet: Droplet, *command: str) -> str:
    """Output of a command in the guest, whatever its exit status."""
    return droplet.guest.exec(*command, check=False).stdout.strip()


def test_after_the_first_boot_cloud_init_is_done_and_no_unit_has_failed(droplet: Droplet):
    assert "status: done" in machine(droplet, "cloud-init", "status", "--long")
    failed = machine(droplet, "systemctl", "list-units", "--failed", "--plain", "--no-legend")
    assert failed == ""
    assert machine(droplet, "systemctl", "is-system-running") == "running"


def test_the_service_answers_on_443_under_the_machines_own_authority(droplet: Droplet):
    status, _, text = droplet.get("/healthz")
    assert (status, text) == (200, '{"status":"ok"}')


def test_port_80_only_redirects(droplet: Droplet):
    status, headers, text = droplet.get("/rules?x=1", port=80)
    assert status in (301, 302, 307, 308)
    assert headers["location"] == f"https://{droplet.address}/rules?x=1"
    assert "unetops" not in text


@pytest.fixture(scope="module")
def token(droplet: Droplet) -> str:
    """The first administrator token, created on the host and read over SSH."""
    said = droplet.ssh(f"{HOST} token").stdout
    found = re.search(r"\S{24,}", said)
    assert found, said
    return found.group()


@pytest.mark.parametrize("path", ["/api/v1/datasets", "/api/v1/jobs", "/readyz", "/"])
def test_the_service_is_never_open(droplet: Droplet, path: str):
    assert droplet.get(path)[0] == 401


def test_the_first_token_opens_the_service_and_is_shown_once(droplet: Droplet, token: str):
    assert droplet.get("/api/v1/datasets", token=token)[0] == 200
    again = droplet.ssh(f"{HOST} token", check=False)
    assert again.returncode == 1
    logs = machine(droplet, "sh", "-c", "journalctl --no-pager; cat /var/log/cloud-init*.log")
    assert "unetops-web" in logs
    assert token not in again.stdout + again.stderr + droplet.guest.user_data + logs


def test_a_url_is_fetched_from_the_internet_and_from_no_network_of_the_cloud(
    droplet: Droplet, token: str, tmp_path: Path
):
    wires = droplet.guest.reserve()
    with wires.internet(INTERNET), file_host(tmp_path, INTERNET) as host:
        trust(droplet, tmp_path / "host.pem")
        host.answer = file_answer(drawn_zip())
        there = host.url()
        assert fetched(droplet, token, there)["status"] == "succeeded"
        refused = fetched(droplet, token, there.replace(INTERNET, wires.here))
        assert "a network that is not public" in refused["error"]["text"]
        there = [INTERNET, host.server_port]
        worker = probe(droplet.guest, "unetops-worker.service", connect=[there])["connect"]
        fetcher = probe(droplet.guest, "unetops-fetcher.service", connect=[there])["connect"]
    assert [*fetcher.values()] == ["worked"]
    assert [answer == "worked" for answer in worker.values()] == [False]


def trust(droplet: Droplet, certificate: Path) -> None:
    """Make the fetcher trust this certificate until the next boot."""
    pem = "/etc/ssl/certs/tests.pem"
    droplet.send(certificate, pem)
    drop = "/run/systemd/system/unetops-fetcher.service.d"
    lines = f"[Service]\nEnvironment=SSL_CERT_FILE={pem}\n"
    droplet.ssh(f"mkdir -p {drop} && printf '{lines}' >{drop}/tests.conf && chmod 644 {pem}")
    droplet.ssh("systemctl daemon-reload && systemctl restart unetops-fetcher")


def fetched(droplet: Droplet, token: str, url: str) -> dict[str, Any]:
    """The job that fetched a source, once finished."""
    view: dict[str, Any] = {}
    headers = {"Authorization": f"Bearer {token}"}
    where = {"base_url": f"https://{droplet.address}", "verify": droplet.authority()}
    with httpx.Client(**where, headers=headers, trust_env=False) as http:
        answer = http.post("/api/v1/sources", json={"url": url})
        assert answer.status_code == 202, answer.text

        def has_ended() -> bool:
            view.update(http.get(answer.headers["Location"]).json())
            return view["status"] not in {"queued", "running"}

        droplet.until(has_ended, "the end of the fetch")
    return view


def test_only_three_ports_answer_from_outside(droplet: Droplet):
    listen = "import socket,time; s=socket.create_server(('0.0.0.0',9999)); time.sleep(90)"
    start = ("systemd-run", "--quiet", "--unit=open-door", "/usr/bin/python3", "-c", listen)
    droplet.guest.exec(*start)
    droplet.until(lambda: ":9999 " in machine(droplet, "ss", "-ltn"), "the open door")
    try:
        assert open_ports(droplet.address) == {22, 80, 443}
    finally:
        droplet.guest.exec("systemctl", "stop", "open-door")


def test_ssh_takes_keys_and_no_passwords(droplet: Droplet):
    effective = machine(droplet, "sshd", "-T")
    assert "passwordauthentication no" in effective
    assert "kbdinteractiveauthentication no" in effective
    assert "permitrootlogin yes" not in effective


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_writes_only_to_its_own_folders(droplet: Droplet, unit: str):
    files = [*SEALED, str(droplet.volume.device)]
    found = probe(droplet.guest, unit, folders=[*CLOSED, HOME], files=files)
    assert found["uid"] != 0
    assert found["write"].pop(HOME) == "worked"
    assert "worked" not in {*found["write"].values(), *found["files"].values()}, found


@pytest.mark.parametrize("unit", UNITS)
def test_a_unit_gains_no_privilege(droplet: Droplet, unit: str):
    found = probe(droplet.guest, unit)
    assert "worked" not in found["gain"].values(), found["gain"]
    assert (found["no_new_privileges"], found["seccomp"]) == ("1", "2")
    assert (found["bounding"], found["effective"]) == (0, 0)


@pytest.mark.parametrize("unit", UNITS)
def test_the_metadata_address_answers_root_and_no_unit(droplet: Droplet, unit: str):
    url = f"http://{METADATA}/user-data"
    assert machine(droplet, "curl", "-sS", "-m", "5", url) == SECRET
    found = probe(droplet.guest, unit, connect=[[METADATA, 80], ["127.0.0.1", 8000]])
    assert found["connect"][f"{METADATA}:80"] != "worked"
    own = "ConnectionRefusedError" if unit == "unetops-worker.service" else "worked"
    assert found["connect"]["127.0.0.1:8000"].startswith(own), "the probe must tell no from never"
    user = machine(droplet, "systemctl", "show", "-P", "User", unit)
    as_user = ("setpriv", f"--reuid={user}", "--clear-groups", "curl", "-sS", "-m", "3")
    assert machine(droplet, *as_user, "http://127.0.0.1:8000/healthz") == '{"status":"ok"}'
    assert droplet.guest.exec(*as_user, url, check=False).returncode == CURL_REFUSED


@pytest.mark.parametrize("unit", UNITS)
def test_systemd_rates_the_exposure_of_a_unit_at_two_or_less(
    droplet: Droplet, unit: str, clock: Clock
):
    said = machine(droplet, "systemd-analyze", "security", "--no-pager", unit)
    rating = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert rating, said
    clock.say(f"{unit}: exposure {rating.group(1)}")
    assert float(rating.group(1)) <= 2.0, said


@pytest.mark.parametrize("unit", UNITS)
def test_a_memory_limit_is_set_though_a_guest_cannot_enforce_it(
    droplet: Droplet, unit: str, clock: Clock
):
    assert machine(droplet, "systemctl", "show", "-P", "MemoryMax", unit).isdigit()
    clock.say(f"{unit}: MemoryMax is set; not enforced in a guest, which has no memory controller")


def test_status_names_the_release_and_the_volume(droplet: Droplet):
    said = json.loads(droplet.ssh(f"{HOST} status").stdout)
    assert (said["release"], said["volume_uuid"]) == ("first", droplet.volume.uuid())


def remember(droplet: Droplet) -> str:
    """Write a file to the volume; returns the filesystem's UUID."""
    droplet.guest.exec("sh", "-c", f"echo kept >{HOME}/remember; sync")
    return droplet.volume.uuid()


def same(droplet: Droplet, uuid: str) -> bool:
    """Whether the volume is still the one recorded."""
    kept = machine(droplet, "cat", f"{HOME}/remember") == "kept"
    return kept and droplet.volume.uuid() == uuid


def test_a_reboot_comes_back_with_the_service_and_its_data(droplet: Droplet, clock: Clock):
    uuid, before = remember(droplet), droplet.guest.leader()
    clock.start()
    droplet.ssh("systemctl reboot", check=False)
    droplet.until(lambda: droplet.guest.leader() != before, "the reboot")
    droplet.serves()
    clock.lap("reboot to service")
    assert same(droplet, uuid)
    assert machine(droplet, "systemctl", "is-system-running", "--wait") == "running"


def test_a_pulled_plug_comes_back_with_the_service_and_its_data(droplet: Droplet, clock: Clock):
    uuid = remember(droplet)
    clock.start()
    droplet.guest.power_off(hard=True)
    droplet.guest.power_on()
    droplet.serves()
    clock.lap("hard kill to service")
    assert same(droplet, uuid)


def test_a_new_droplet_finds_the_volume_as_it_was(
    made: Made, droplet: Droplet, token: str, wheel: Path, clock: Clock
):
    uuid = remember(droplet)
    droplet.guest.destroy()
    second = made.droplet("second", "unetops-boot")
    clock.start()
    report = second.boot()
    assert report["status"] == "done", report
    done = second.release("second", wheel)
    assert done.returncode == 0, done.stdout + done.stderr
    second.serves()
    clock.lap("replacement to service")
    assert same(second, uuid)
    assert second.get("/api/v1/datasets", token=token)[0] == 200
    second.guest.destroy()


def test_a_volume_that_holds_something_else_is_left_alone_and_the_boot_says_so(made: Made):
    volume = made.volume("unetops-foreign")
    subprocess.run(["mkswap", str(volume.path)], check=True, capture_output=True)
    uuid = volume.uuid()
    assert uuid
    third = made.droplet("third", "unetops-foreign")
    third.guest.above = (prepared(),)
    report = third.boot()
    third.guest.destroy()
    assert report["status"] == "failed"
    assert "scsi-0DO_Volume_unetops-foreign" in str(report["log"])
    assert volume.uuid() == uuid
