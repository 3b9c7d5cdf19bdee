"""The guests themselves: assumptions of the boot tests."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.guest import golden
from tests.guest.guest import ROOT, RUN, Guest, sweep
from tests.guest.machines import Machines
from tests.guest.needs import require
from tests.guest.ports import open_ports
from tests.guest.shell import sh
from tests.guest.volume import Volume

USER_DATA = """#cloud-config
write_files:
  - {path: /etc/booted, content: "yes"}
"""


def test_pip_finds_a_wheel_for_every_line_of_the_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    lock = ROOT / "requirements.lock"
    wheels = golden.wheelhouse.__wrapped__(lock.read_text())
    pip = (sys.executable, "-m", "pip", "install", "-q", "--dry-run", "--ignore-installed")
    report = tmp_path / "report.json"
    offline = ("--no-index", "--find-links", wheels, "--no-deps", "--report", report)
    sh(*pip, *offline, "-r", lock)
    chosen = json.loads(report.read_text())["install"]
    lines = [line for line in lock.read_text().splitlines() if "==" in line]
    assert len(chosen) == len(lines)


def test_an_open_port_is_found_and_closed_ones_are_not():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        assert open_ports("127.0.0.1", range(port, port + 1)) == {port}
    assert open_ports("127.0.0.1", range(port, port + 1)) == set()


@pytest.fixture
def machines(tmp_path: Path) -> Iterator[Machines]:
    require()
    made = Machines(tmp_path)
    try:
        yield made
    finally:
        made.close()


def booted(guest: Guest) -> Guest:
    """The guest, once cloud-init has finished."""
    said = guest.exec("cloud-init", "status", "--wait", check=False).stdout
    assert "status: done" in said, said
    assert guest.exec("cat", "/etc/booted").stdout == "yes"
    return guest


@pytest.mark.system
def test_a_volume_is_plugged_into_a_running_guest_and_moves_to_the_next(machines: Machines):
    disk = {"name": "kept"}
    machines.start("1", {"userData": USER_DATA}, [])
    machines.attach("1", disk)
    first, link = booted(machines.guests["1"]), machines.disk(disk).link
    first.exec("sh", "-ec", f"mkfs.ext4 -q {link}; mount {link} /mnt; echo here >/mnt/file")
    uuid = machines.disk(disk).uuid()
    machines.detach("1", disk)
    machines.stop("1")
    machines.start("2", {"userData": USER_DATA}, [disk])
    second = booted(machines.guests["2"])
    assert second.exec("sh", "-ec", f"mount {link} /mnt; cat /mnt/file").stdout == "here\n"
    assert uuid
    assert machines.disk(disk).uuid() == uuid


@pytest.mark.system
def test_a_reserved_address_leads_to_the_droplet_that_it_is_assigned_to(machines: Machines):
    for number in ("1", "2"):
        machines.start(number, {"userData": USER_DATA}, [])
        guest = booted(machines.guests[number])
        serve = f"import http.server as h; open('name', 'w').write('{number}'); " \
                "h.test(h.SimpleHTTPRequestHandler, port=8080)"  # fmt: skip
        guest.exec("systemd-run", "-q", "--working-directory=/srv", "python3", "-c", serve)
    address = "10.232.0.9"
    for number in ("1", "2", "1"):
        machines.assign(number, address)
        curl = ("curl", "-sS", "--retry", "20", "--retry-connrefused", "--retry-delay", "1")
        assert sh(*curl, f"http://{address}:8080/name").stdout == number
    machines.unassign(address)
    assert address not in sh("ip", "route").stdout


@pytest.mark.system
def test_what_a_killed_test_run_leaves_behind_is_swept(tmp_path: Path):
    require()
    script = (
        "import sys, time; from pathlib import Path; from tests.guest.guest import *\n"
        f"guest = Guest('orphan', {USER_DATA!r}, (Volume('orphan', Path({str(tmp_path)!r})),))\n"
        "guest.up(); guest.leader(); print(guest.name, guest.wires.name, flush=True)\n"
        "time.sleep(600)"
    )
    child = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=ROOT,
                             text=True)  # fmt: skip
    assert child.stdout
    name, wires = child.stdout.readline().split()
    child.kill()
    child.wait()
    child.stdout.close()
    assert (RUN / name).exists()
    assert name in sweep()
    assert not (RUN / name).exists()
    assert wires not in sh("ip", "netns").stdout.split()
    assert not sh("losetup", "-j", tmp_path / "orphan.img").stdout


@pytest.mark.system
def test_a_guest_of_a_run_that_lives_is_not_swept(machines: Machines):
    machines.start("1", {"userData": USER_DATA}, [])
    assert machines.guests["1"].name not in sweep()
    assert booted(machines.guests["1"]).running
    os.kill(machines.guests["1"].leader(), signal.SIGKILL)
    end = time.monotonic() + 10
    while machines.guests["1"].running and time.monotonic() < end:
        time.sleep(0.05)
    assert not machines.guests["1"].running


def test_a_volume_is_as_large_as_asked_and_takes_no_room(tmp_path: Path):
    file = Volume("sparse", tmp_path, gib=3).path
    assert file.stat().st_size == 3 << 30
    assert file.stat().st_blocks == 0
