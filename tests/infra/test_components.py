import importlib
import re
import shlex
from pathlib import Path

import pytest

from infra.config import KEYS
from tests.infra.cloud_mocks import made_by

EXAMPLES = re.findall(
    r"## ([^\n]+)\n.*?```python\n(.*?)```", Path("docs/infra.md").read_text(), re.S
)
COMPONENT = {"SSH keys": "SshKeys", "Data volume": "DataVolume", "Bucket, DNS, project": "Bucket"}
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGtra2tra2tra2tra2tra2tra2tra2tra2tra2tr me"
SSH = f"from infra.ssh import *\nSshKeys('n', SshKeysArgs(public_keys=['{KEY}']))"


@pytest.mark.parametrize(("title", "text"), EXAMPLES, ids=[title for title, _ in EXAMPLES])
def test_documented_example_registers_its_component(title, text):
    assert f"{COMPONENT.get(title, title)} images" in made_by(text)


def test_what_the_table_for_terraform_names_is_there():
    table = Path("docs/infra.md").read_text().split("## Coming from")[1]
    parts = set(re.findall(r"`(infra(?:\.\w+)+)`", table))
    assert len(parts) == 6
    for part in parts:
        module, _, name = part.rpartition(".")
        assert hasattr(importlib.import_module(module), name)
    named = {"deployKeyFile", "sshPublicKeys", "sshFrom", "bootstrap", "size", "datasetUrl"}
    assert named <= set(re.findall(r"`(\w+)`", table)) & set(KEYS)


def test_every_example_is_short():
    assert len(EXAMPLES) == 7
    assert all(3 <= len(text.splitlines()) <= 15 for _, text in EXAMPLES)


def test_only_three_ports_are_open_and_ssh_only_from_the_given_addresses():
    rules = made_by(dict(EXAMPLES)["Network"])["Firewall images"]["inboundRules"]
    assert {r["portRange"]: r["sourceAddresses"] for r in rules} == {
        "22": ["198.18.0.7/32"],
        "80": ["0.0.0.0/0", "::/0"],
        "443": ["0.0.0.0/0", "::/0"],
    }


def test_new_key_is_made_and_one_that_the_account_holds_is_reused():
    from infra.ssh import fingerprint

    there = {"fingerprint": fingerprint(KEY), "id": 1, "name": "laptop", "publicKey": KEY}
    assert [name.split()[0] for name in made_by(SSH)].count("SshKey") == 1
    assert [name.split()[0] for name in made_by(SSH, [there])].count("SshKey") == 0


RELEASE = """
from pathlib import Path
from infra.release import Release, ReleaseArgs
from infra.source import Source
source = Source(release_id="one", address="https://example.org/unetops-1-py3-none-any.whl")
where = {"address": "198.18.0.9", "droplet_id": "1", "lock": Path(LOCK)}
Release("n", ReleaseArgs(source=source, **where, MORE))
"""


@pytest.mark.parametrize("changed", ["index", "no index", "lock"])
def test_same_commit_is_installed_again_with_another_index_or_lock(tmp_path: Path, changed: str):
    lock = tmp_path / "requirements.lock"
    program = RELEASE.replace("LOCK", repr(str(lock)))
    found = []
    for text, index in (("numpy==1\n", "'https://a'"), ("numpy==2\n", "'https://b'")):
        lock.write_text(text if changed == "lock" else "numpy==1\n")
        index = {"index": index, "no index": index if not found else "None"}.get(changed, "None")
        found.append(made_by(program.replace("MORE", f"torch_index={index}")))
    first, second = (made["Command n-install"]["create"] for made in found)
    assert first != second
    words = shlex.split(second.splitlines()[-1].partition("#")[0])
    wanted = {"index": "https://b", "no index": "", "lock": ""}[changed]
    assert words[words.index("--torch-index") + 1] == wanted
    sent = [made["CopyToRemote n-lock"]["triggers"] for made in found]
    assert (sent[0] != sent[1]) == (changed == "lock")
