"""The user_data of a droplet."""

import base64
import gzip
import re
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest
import yaml

from app.ground.settings import Settings
from dataset_rules.artifacts.provenance import commit, deployment
from infra.caddy import caddyfile
from infra.cloud_init import (
    HEADER,
    LARGE_BYTES,
    MAX_BYTES,
    MachineSpec,
    check,
    cloud_config,
    files,
    user_data,
)
from tests.goldens import assert_golden
from tests.guest.golden import golden
from tests.guest.needs import require

ROOT = Path(__file__).resolve().parents[2]
SPEC = MachineSpec(
    hostname="unetops-dev",
    volume_name="unetops-dev",
    deploy_keys=("ssh-ed25519 AAAAC3Nz one@example",),
    swap_gib=2,
)
FULL = replace(
    SPEC,
    domain="unet.example.org",
    acme_directory="https://acme.example/dir",
    dataset_url="https://zenodo.org/records/1/files/images.zip#sha256=" + "0" * 64,
    gpu=True,
    gpu_idle_minutes=30,
    torch_index="https://torch.example/cu126",
    source="git+https://example.org/unetops@" + "a" * 40,
    release_id="a" * 40,
    lock=(ROOT / "requirements.lock").read_text(),
)


@pytest.mark.golden
def test_config_of_the_plain_machine_is_the_reviewed_one():
    config = cloud_config(SPEC)
    for file in config["write_files"]:
        if "encoding" in file:
            file["content"] = "a program of infra/machine"
    assert_golden("cloud_init.json", config)


@pytest.mark.parametrize("spec", [SPEC, FULL])
def test_user_data_stays_below_half_of_what_the_cloud_takes(spec):
    text = user_data(spec)
    assert text.startswith(HEADER)
    assert len(text.encode()) < MAX_BYTES / 2


def test_equal_values_give_equal_user_data_in_every_process():
    code = (
        "import sys; from tests.infra.test_cloud_init import *; sys.stdout.write(user_data(FULL))"
    )
    env = {"PATH": "/usr/bin:/bin", "PYTHONHASHSEED": "7", "TZ": "Asia/Tokyo"}
    words = [sys.executable, "-W", "ignore", "-c", code]
    done = subprocess.run(words, cwd=ROOT, env=env, capture_output=True, text=True)
    assert done.stdout == user_data(FULL), done.stderr


def test_compressed_files_come_out_as_they_were():
    written = {file["path"]: file for file in cloud_config(FULL)["write_files"]}
    packed = {path for path, file in written.items() if "encoding" in file}
    given = {
        path: text if isinstance(text, bytes) else text.encode()
        for path, (_, text) in files(FULL).items()
    }
    assert packed == {path for path, data in given.items() if len(data) > LARGE_BYTES}
    for path in packed:
        assert gzip.decompress(base64.b64decode(written[path]["content"])) == given[path]


def test_misspelt_key_is_refused():
    assert check(user_data(SPEC).replace("\nruncmd:", "\nruncmdd:")) == [
        "unknown key runcmdd: would be ignored"
    ]


def test_path_written_twice_is_refused():
    text = HEADER + yaml.safe_dump({"write_files": [{"path": "/a"}, {"path": "/a"}]})
    assert check(text) == ["/a is written twice"]


def test_missing_first_line_is_refused():
    assert "cloud-init would ignore the text" in check("packages: [caddy]\n")[0]


def test_broken_yaml_is_refused():
    assert check(HEADER + "packages: [caddy\n")[0].startswith("not YAML")


def test_too_long_user_data_is_refused():
    with pytest.raises(ValueError, match="the limit is 65536"):
        user_data(replace(SPEC, deploy_keys=("ssh-ed25519 " + "A" * MAX_BYTES,)))


@pytest.mark.parametrize("secret", ["dop_v1_0123", "-----BEGIN OPENSSH PRIVATE KEY-----"])
def test_secret_is_refused(secret):
    with pytest.raises(ValueError, match="contains a secret"):
        user_data(replace(SPEC, deploy_keys=(secret,)))


def test_every_name_in_the_environment_is_read_by_the_service(monkeypatch: pytest.MonkeyPatch):
    given = dict(
        line.split("=", 1) for line in files(SPEC)["/etc/unetops/environment"][1].splitlines()
    )
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    settings = {f"UNETOPS_{field.name.upper()}" for field in fields(Settings)}
    recorded = deployment()["deployment"]
    told = {name for name in given if name not in settings}
    assert told == {f"UNETOPS_{name.upper()}" for name in recorded}
    assert set(recorded.values()) == {SPEC.project, SPEC.stack, SPEC.hostname}


def test_release_tells_its_commit_by_the_name_that_provenance_reads(
    monkeypatch: pytest.MonkeyPatch,
):
    script = (ROOT / "infra/machine/unetops_host/releases.py").read_text()
    (name,) = re.findall(r"export (UNETOPS_\w+)=", script)
    monkeypatch.setenv(name, "abc1")
    assert commit() == "abc1"


def test_service_is_never_open():
    assert "UNETOPS_REQUIRE_AUTH=1\n" in files(SPEC)["/etc/unetops/environment"][1]


def test_lock_is_sent_only_with_a_release_that_first_boot_installs():
    assert files(FULL)["/etc/unetops/requirements.lock"][1] == FULL.lock
    assert "/etc/unetops/requirements.lock" not in files(replace(FULL, source=None))


def test_idle_timer_comes_only_where_it_is_asked_for():
    assert "/etc/systemd/system/unetops-idle.timer" in files(FULL)
    assert not [path for path in files(SPEC) if "idle" in path]


def test_caddy_makes_certificates_itself_without_a_domain():
    text = caddyfile()
    assert "tls internal" in text
    assert "on_demand" in text
    assert "redir https://{host}{uri} 308" in text
    assert "acme_ca" not in text


def test_caddy_asks_the_given_directory_with_a_domain():
    text = caddyfile("unet.example.org", "https://acme.example/dir")
    assert "acme_ca https://acme.example/dir" in text
    assert "\nunet.example.org {" in text
    assert "internal" not in text


@pytest.mark.parametrize("spec", [SPEC, FULL])
@pytest.mark.system
def test_cloud_init_accepts_the_config(spec, tmp_path: Path):
    require()
    assert _schema_refuses(user_data(spec), tmp_path) == ""
    assert "is not of type" in _schema_refuses(HEADER + "packages: 3\n", tmp_path)


def _schema_refuses(text: str, folder: Path) -> str:
    """Errors of the guests' own cloud-init for a config; empty if it accepts it."""
    (folder / "user-data").write_text(text)
    check = "cloud-init schema --config-file /mnt/user-data"
    inside = f"mount --bind {folder} {golden()}/mnt && chroot {golden()} {check}"
    words = ["unshare", "--mount", "sh", "-c", inside]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr if done.returncode else ""
