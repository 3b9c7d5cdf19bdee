"""Permissions of the service's units."""

import re
import subprocess
from pathlib import Path

import pytest

from infra import units
from infra.cloud_init import USER_ID
from tests.missing import need

ROOT = Path(__file__).resolve().parents[2]
SERVICES = {
    "unetops-web": units.web_unit(),
    "unetops-worker": units.worker_unit(),
    "unetops-fetcher": units.fetcher_unit(),
    "unetops-worker-gpu": units.worker_unit(gpu=True),
}
MOST_EXPOSURE = 2.0


@pytest.mark.parametrize("text", SERVICES.values(), ids=SERVICES.keys())
def test_service_writes_only_into_its_folder_and_gains_nothing(text):
    lines = text.splitlines()
    for line in (
        "ProtectSystem=strict", "NoNewPrivileges=yes", "CapabilityBoundingSet=",
        "SystemCallFilter=@system-service", "ConditionPathIsMountPoint=/srv/unetops",
        "RequiresMountsFor=/srv/unetops", "User=unetops",
    ):  # fmt: skip
        assert line in lines
    assert [line for line in lines if line.startswith("ReadWritePaths=")] == [
        "ReadWritePaths=/srv/unetops/home"
    ]
    assert re.search(r"^MemoryMax=\d+%$", text, re.MULTILINE)
    assert re.search(r"^TasksMax=\d+$", text, re.MULTILINE)


@pytest.mark.parametrize("text", SERVICES.values(), ids=SERVICES.keys())
def test_metadata_address_is_denied_by_unit(text):
    assert re.search(r"^IPAddressDeny=.*169\.254\.169\.254", text, re.MULTILINE)


def test_only_the_fetcher_reaches_the_internet_and_no_private_network():
    others = dict(SERVICES)
    fetcher = others.pop("unetops-fetcher")
    assert re.search(r"^IPAddressDeny=.*10\.0\.0\.0/8.*192\.168\.0\.0/16", fetcher, re.MULTILINE)
    for text in others.values():
        assert re.search(r"^IPAddressDeny=any", text, re.MULTILINE)


def test_metadata_address_is_denied_by_user_as_well():
    rules = (ROOT / "infra/machine/nftables.conf").read_text()
    assert f"meta skuid {USER_ID} ip daddr 169.254.0.0/16 reject" in rules


def test_only_three_ports_are_open():
    rules = (ROOT / "infra/machine/nftables.conf").read_text()
    assert "policy drop" in rules
    assert re.findall(r"tcp dport (.*) accept", rules) == ["{ 22, 80, 443 }"]


def test_only_the_gpu_machine_lets_the_worker_see_devices():
    assert "PrivateDevices=yes" in SERVICES["unetops-worker"]
    assert "PrivateDevices" not in SERVICES["unetops-worker-gpu"]
    assert "DeviceAllow=char-nvidia rw" in SERVICES["unetops-worker-gpu"]


def test_code_made_at_run_time_is_denied_where_torch_is_not():
    assert "MemoryDenyWriteExecute=yes" in SERVICES["unetops-web"]
    assert "MemoryDenyWriteExecute" not in SERVICES["unetops-worker"]


@pytest.mark.parametrize("name", SERVICES)
def test_exposure_is_low(name, tmp_path: Path):
    need("systemd-analyze", "exposure is not measured here")
    file = tmp_path / f"{name}.service"
    file.write_text(SERVICES[name])
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found, done.stderr
    assert float(found[1]) <= MOST_EXPOSURE


def test_idle_timer_looks_every_minute_with_the_given_limit():
    found = units.idle_units(45)
    assert "OnUnitActiveSec=1min" in found["unetops-idle.timer"]
    assert "idle --minutes 45" in found["unetops-idle.service"]
