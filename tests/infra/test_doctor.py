"""The doctor against an API on loopback, run as a command."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.infra.api_double import TOKEN, Api, serving

ROOT = Path(__file__).resolve().parents[2]
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f me"
FINGER = "0f:a2:0a:d7:38:3e:65:45:08:6b:63:84:1c:ff:dc:ba"  # ssh-keygen -l -E md5


@pytest.fixture
def api() -> Iterator[Api]:
    with serving() as one:
        yield one


def doctor(api: Api, folder: Path, *words: str, token: str = TOKEN) -> Any:
    stack = folder / "Pulumi.dev.yaml"
    if not stack.exists():
        stack.write_text(
            f"config:\n  unetops:sshPublicKeys: [{KEY}]\n  unetops:sshFrom: [192.0.2.7/32]\n"
        )
    env = os.environ | {"PYTHONPATH": str(ROOT), "DIGITALOCEAN_API_URL": api.address}
    env |= {"DIGITALOCEAN_TOKEN": token, "PATH": f"{folder}:/usr/bin:/bin"}
    command = [sys.executable, "-m", "infra.doctor", *words]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)


def findings(done: Any) -> dict[str, dict[str, str]]:
    return {f["what"]: f for f in json.loads(done.stdout)}


def test_an_account_that_fits_gives_exit_0(api: Api, tmp_path: Path) -> None:
    done = doctor(api, tmp_path, "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert {f["severity"] for f in findings(done).values()} == {"info"}
    assert findings(done)["price of the size"]["found"] == "$48.00 a month"


def test_the_table_is_for_people(api: Api, tmp_path: Path) -> None:
    done = doctor(api, tmp_path)
    assert done.returncode == 0 and "severity" in done.stdout and "remedy" in done.stdout


def test_a_wrong_token_is_one_line_and_never_printed(api: Api, tmp_path: Path) -> None:
    done = doctor(api, tmp_path, token="dop_v1_wrong")
    assert done.returncode == 2 and "DIGITALOCEAN_TOKEN" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and "dop_v1_wrong" not in done.stderr + done.stdout


def test_without_a_token_it_says_where_to_get_one(api: Api, tmp_path: Path) -> None:
    done = doctor(api, tmp_path, token="")
    assert done.returncode == 2 and done.stderr.startswith("error: no token")


def test_too_many_requests_do_not_make_it_wait(api: Api, tmp_path: Path) -> None:
    api.status = 429
    start = time.monotonic()
    done = doctor(api, tmp_path)
    assert done.returncode == 2 and "429" in done.stderr and "wait" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and time.monotonic() - start < 30


def test_an_api_that_does_not_answer_runs_into_the_time_limit(api: Api, tmp_path: Path) -> None:
    api.delay_s = 5
    done = doctor(api, tmp_path, "--timeout", "0.3")
    assert done.returncode == 2 and "did not answer in time" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_a_key_that_exists_is_reused_and_no_warning(api: Api, tmp_path: Path) -> None:
    api.objects["ssh_keys"] = [{"id": 1, "name": "laptop", "fingerprint": FINGER}]
    done = doctor(api, tmp_path, "--json")
    assert done.returncode == 0 and "laptop" in findings(done)["SSH key exists"]["found"]


def test_a_size_that_the_region_lacks_is_an_error_with_those_it_has(
    api: Api, tmp_path: Path
) -> None:
    api.objects["sizes"][0]["regions"] = ["fra1"]
    api.objects["sizes"].append(api.objects["sizes"][0] | {"slug": "c-4", "regions": ["nyc3"]})
    done = doctor(api, tmp_path, "--json")
    assert (
        done.returncode == 1 and "one of c-4" in findings(done)["size is not available"]["remedy"]
    )


def test_an_image_and_a_region_that_cannot_be_had_are_errors(api: Api, tmp_path: Path) -> None:
    api.objects["images"] = []
    api.objects["regions"][0]["features"] = ["metadata"]
    found = findings(doctor(api, tmp_path, "--json"))
    assert found["image is not available"]["severity"] == "error"
    assert found["region cannot host the stack"]["found"] == "nyc3: lacks storage"


def test_a_limit_that_is_reached_is_counted_over_all_pages(api: Api, tmp_path: Path) -> None:
    api.account["droplet_limit"] = 250
    api.objects["droplets"] = [{"id": n} for n in range(250)]
    done = doctor(api, tmp_path, "--json")
    assert done.returncode == 1
    assert findings(done)["limit of droplets reached"]["found"] == "250 in use"


@pytest.mark.parametrize(("held", "code"), [([], 1), (["v-1"], 0)])
def test_a_volume_outside_the_state_comes_with_the_line_that_adopts_it(
    api: Api, tmp_path: Path, held: list[str], code: int
) -> None:
    api.objects["volumes"] = [{"id": "v-1", "name": "unetops-dev", "size_gigabytes": 100}]
    kind = "digitalocean:index/volume:Volume"
    resources = [{"type": kind, "id": one} for one in held]
    pulumi = tmp_path / "pulumi"
    pulumi.write_text(f"#!/bin/sh\necho '{json.dumps({'deployment': {'resources': resources}})}'\n")
    pulumi.chmod(0o755)
    done = doctor(api, tmp_path, "--json")
    assert done.returncode == code
    said = findings(done).get("volume of the stack's name exists")
    assert (said is None) == bool(held)
    assert said is None or said["remedy"].endswith("recover --stack dev --take volume/v-1")


def test_a_volume_is_no_warning_where_the_state_cannot_be_read(api: Api, tmp_path: Path) -> None:
    api.objects["volumes"] = [{"id": "v-1", "name": "unetops-dev", "size_gigabytes": 100}]
    done = doctor(api, tmp_path, "--json")
    said = findings(done)["volume of the stack's name exists"]
    assert done.returncode == 0 and "pulumi login" in said["remedy"] and "--take" not in str(said)


def test_a_price_that_changed_is_a_warning_with_the_override(api: Api, tmp_path: Path) -> None:
    api.objects["sizes"][0]["price_monthly"] = 56.0
    done = doctor(api, tmp_path, "--json")
    assert done.returncode == 1 and "56.00" in findings(done)["price of the size"]["remedy"]


def test_bad_configuration_and_a_missing_stack_are_bad_input(api: Api, tmp_path: Path) -> None:
    (tmp_path / "Pulumi.dev.yaml").write_text("config:\n  unetops:regoin: nyc3\n")
    done = doctor(api, tmp_path)
    assert done.returncode == 2 and "did you mean region?" in done.stderr
    done = doctor(api, tmp_path, "--stack", "other")
    assert done.returncode == 2 and "pulumi stack init other" in done.stderr
