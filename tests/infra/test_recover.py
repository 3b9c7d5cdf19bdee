"""Recovery from a killed `pulumi up`, with a fake `pulumi` that only records its commands."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.api_double import TOKEN, Api, serving
from tests.infra.test_doctor import KEY, ROOT

DROPLET = "digitalocean:index/droplet:Droplet"
VOLUME = "digitalocean:index/volume:Volume"
RESERVED_IP = "digitalocean:index/reservedIp:ReservedIp"
HOST = "urn:pulumi:dev::unetops::unetops:infra:Host"
NOBODY = subprocess.DEVNULL
FAKE = """#!{python}
import json, os, pathlib, shutil, sys
words, here = sys.argv[1:], pathlib.Path(__file__).parent
if words[:2] == ["stack", "export"]:
    print((here / "state.json").read_text())
    sys.exit()
if "--file" in words:
    at = words.index("--file") + 1
    if words[:2] == ["stack", "import"]:
        shutil.copyfile(words[at], here / "state.json")
    words[at] = json.loads(pathlib.Path(words[at]).read_text())
with (here / "log.jsonl").open("a") as log:
    log.write(json.dumps(words) + "\\n")
if words[0] == os.environ.get("REFUSES"):
    sys.exit("error: " + os.environ["SAYS"])
"""


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as one:
        yield one


def mark(kind: str, inputs: dict[str, Any]) -> dict[str, Any]:
    urn = f"{HOST}${kind}::unetops-dev"
    return {"type": "creating", "resource": {"urn": urn, "type": kind, "inputs": inputs}}


DROPLET_MARK = mark(DROPLET, {"name": "unetops-dev", "region": "nyc3", "tags": ["unetops-dev"]})


def droplet(number: int, **more: Any) -> dict[str, Any]:
    region = {"slug": "nyc3"}
    return {"id": number, "name": "unetops-dev", "tags": ["unetops-dev"], "region": region, **more}


def write_state(folder: Path, resources: list[Any], marks: list[Any]) -> None:
    deployment = {"resources": resources, "pending_operations": marks}
    (folder / "state.json").write_text(json.dumps({"version": 3, "deployment": deployment}))


def recover(api: Api, folder: Path, *words: str, stdin: int = NOBODY, **env: str) -> Any:
    (folder / "Pulumi.dev.yaml").write_text(
        f"config:\n  unetops:sshPublicKeys: [{KEY}]\n  unetops:sshFrom: [192.0.2.7/32]\n"
    )
    fake = folder / "pulumi"
    fake.write_text(FAKE.format(python=sys.executable))
    fake.chmod(0o755)
    env = os.environ | {"PYTHONPATH": str(ROOT), "DIGITALOCEAN_API_URL": api.address} | env
    env |= {"DIGITALOCEAN_TOKEN": TOKEN, "PATH": f"{folder}:/usr/bin:/bin"}
    command = [sys.executable, "-m", "infra.recover", *words]
    return subprocess.run(
        command, cwd=folder, env=env, capture_output=True, text=True, timeout=60,
        stdin=stdin,
    )  # fmt: skip


def asked(folder: Path) -> list[list[Any]]:
    log = folder / "log.jsonl"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


def test_without_yes_it_shows_and_asks_the_engine_for_nothing(api: Api, tmp_path: Path) -> None:
    write_state(tmp_path, [], [DROPLET_MARK])
    api.objects["droplets"] = [droplet(7)]
    done = recover(api, tmp_path)
    assert done.returncode == 1 and asked(tmp_path) == []
    assert "import Droplet unetops-dev 7" in done.stdout
    assert "unetops infra recover --stack dev --yes" in done.stdout


@pytest.mark.parametrize(("answer", "did"), [("y", ["cancel", "refresh"]), ("n", []), ("", [])])
def test_on_a_terminal_it_asks_and_only_yes_counts(
    api: Api, tmp_path: Path, answer: str, did: list[str]
) -> None:
    write_state(tmp_path, [], [DROPLET_MARK])
    keyboard, terminal = os.openpty()
    os.write(keyboard, f"{answer}\n".encode())
    done = recover(api, tmp_path, stdin=terminal)
    os.close(keyboard)
    os.close(terminal)
    assert "nobody is running `pulumi up`" in done.stderr and "[y/N]" in done.stderr
    assert [words[0] for words in asked(tmp_path)] == did


def test_what_was_made_is_imported_below_its_component(api: Api, tmp_path: Path) -> None:
    write_state(tmp_path, [], [DROPLET_MARK])
    api.objects["droplets"] = [droplet(7), droplet(8, name="other", tags=[])]
    recover(api, tmp_path, "--yes")
    cancel, taken, refresh = asked(tmp_path)
    assert cancel[:3] == ["cancel", "--yes", "dev"]
    assert refresh[:4] == ["refresh", "--yes", "--skip-preview", "--clear-pending-creates"]
    assert taken[0] == "import" and "--protect=false" in taken
    component, child = taken[taken.index("--file") + 1]["resources"]
    assert component["type"] == "unetops:infra:Host" and component["component"] is True
    assert child["parent"] == component["name"]
    assert (child["type"], child["logicalName"], child["id"]) == (DROPLET, "unetops-dev", "7")


def test_what_was_not_made_is_only_cleared(api: Api, tmp_path: Path) -> None:
    write_state(tmp_path, [], [DROPLET_MARK])
    done = recover(api, tmp_path, "--yes")
    assert done.returncode == 0 and "state and account agree" in done.stdout
    assert [words[0] for words in asked(tmp_path)] == ["cancel", "refresh"]


def test_a_volume_is_imported_protected(api: Api, tmp_path: Path) -> None:
    inputs = {"name": "unetops-dev", "region": "nyc3", "tags": ["unetops-dev"]}
    write_state(tmp_path, [], [mark(VOLUME, inputs)])
    api.objects["volumes"] = [droplet(0, id="v", size_gigabytes=50)]
    recover(api, tmp_path, "--yes")
    assert "--protect=true" in asked(tmp_path)[1]


def test_two_of_it_are_named_and_none_is_imported(api: Api, tmp_path: Path) -> None:
    write_state(tmp_path, [], [DROPLET_MARK])
    api.objects["droplets"] = [droplet(7), droplet(8)]
    done = recover(api, tmp_path, "--yes")
    assert done.returncode == 1
    assert [words[0] for words in asked(tmp_path)] == ["cancel", "refresh"]
    for number in (7, 8):
        assert f"--take droplet/{number}" in done.stdout
        assert f"doctl compute droplet delete {number}" in done.stdout


def test_the_new_one_takes_the_place_of_the_one_that_went_for_it(api: Api, tmp_path: Path) -> None:
    old = DROPLET_MARK["resource"] | {"id": "6", "pendingReplacement": True, "custom": True}
    write_state(tmp_path, [old], [DROPLET_MARK])
    api.objects["droplets"] = [droplet(7)]
    done = recover(api, tmp_path, "--yes")
    assert done.returncode == 0, done.stdout + done.stderr
    deployment = json.loads((tmp_path / "state.json").read_text())["deployment"]
    (held,) = deployment["resources"]
    assert held["id"] == "7" and held["custom"] and "pendingReplacement" not in held
    assert deployment["pending_operations"] == []
    assert [words[0] for words in asked(tmp_path)] == ["cancel", "stack", "refresh"]


def test_the_extra_beside_one_in_the_state_can_only_be_deleted(api: Api, tmp_path: Path) -> None:
    held = DROPLET_MARK["resource"] | {"id": "6"}
    write_state(tmp_path, [held], [])
    api.objects["droplets"] = [droplet(6), droplet(7, created_at="2026-11-24T10:00:00Z")]
    done = recover(api, tmp_path, "--json")
    assert done.returncode == 1
    (extra,) = json.loads(done.stdout)["extras"]
    assert extra == {
        "what": "droplet unetops-dev",
        "id": "7",
        "facts": "nyc3, since 2026-11-24T10:00:00Z",
        "take": None,
        "delete": "doctl compute droplet delete 7",
    }


def test_a_nameless_address_is_only_named(api: Api, tmp_path: Path) -> None:
    write_state(tmp_path, [], [mark(RESERVED_IP, {"region": "nyc3"})])
    api.objects["reserved_ips"] = [{"ip": "192.0.2.9", "region": {"slug": "nyc3"}}]
    done = recover(api, tmp_path, "--yes")
    assert done.returncode == 1
    assert [words[0] for words in asked(tmp_path)] == ["cancel", "refresh"]
    assert "perhaps reserved-ip (192.0.2.9" in done.stdout


@pytest.mark.parametrize(
    ("list_", "one", "word"),
    [
        ("firewalls", {"id": "f", "name": "unetops-dev"}, "firewall/f"),
        ("ssh_keys", {"id": 3, "name": "unetops-dev-0fa20ad7"}, "ssh-key/3"),
        ("policies", {"uuid": "p", "description": "unetops-dev: cpu above 98 percent"}, "alert/p"),
        ("checks", {"id": "c", "name": "unetops-dev"}, "uptime-check/c"),
    ],
)
def test_names_that_the_program_gives_are_known(
    api: Api, tmp_path: Path, list_: str, one: dict[str, Any], word: str
) -> None:
    write_state(tmp_path, [], [])
    other = {key: str(value).replace("dev", "dev2") for key, value in one.items()}
    api.objects[list_] = [one, other]
    (extra,) = json.loads(recover(api, tmp_path, "--json").stdout)["extras"]
    assert extra["take"] == f"unetops infra recover --stack dev --take {word}"


def test_take_brings_in_one_object_and_no_stranger(api: Api, tmp_path: Path) -> None:
    write_state(tmp_path, [], [])
    api.objects["droplets"] = [droplet(7), droplet(8, name="other", tags=[])]
    done = recover(api, tmp_path, "--take", "droplet/7")
    assert done.returncode == 0 and [words[0] for words in asked(tmp_path)] == ["import"]
    for word, said in (("droplet/8", "no droplet 8"), ("house/1", "KIND one of droplet, volume")):
        done = recover(api, tmp_path, "--take", word)
        assert done.returncode == 2 and said in done.stderr


def test_what_the_engine_says_is_shown_and_a_torn_state_explained(api: Api, tmp_path: Path) -> None:
    write_state(tmp_path, [], [])
    said = "failed to load checkpoint: EOF"
    done = recover(api, tmp_path, "--yes", REFUSES="cancel", SAYS=said)
    assert done.returncode == 2 and said in done.stderr
    assert "-name '*.attrs' -empty -delete" in done.stderr


def test_the_command_passes_words_and_exit_status_through(api: Api, tmp_path: Path) -> None:
    write_state(tmp_path, [], [])
    command = [sys.executable, "-m", "app.cli", "infra", "recover", "--stack", "other", "--yes"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "pulumi stack init other" in done.stderr


def test_the_command_without_the_packages_names_the_line_that_installs_them(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(
        "import importlib.util as u\n"
        "real = u.find_spec\n"
        "u.find_spec = lambda n, *a: None if n == 'pydo' else real(n, *a)\n"
    )
    env = os.environ | {"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    command = [sys.executable, "-m", "app.cli", "infra", "doctor"]
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 2 and "pip install 'unetops[infra]'" in done.stderr
