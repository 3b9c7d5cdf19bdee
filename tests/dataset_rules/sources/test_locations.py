import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from dataset_rules.artifacts.manifest import read_artifact
from dataset_rules.formatting.format import format_dataset
from dataset_rules.ground.errors import RulesError
from dataset_rules.rules.rules import read_rules
from dataset_rules.sources.locations import is_remote, local_source, location_of
from tests.buckets import bucket_of, s3_server
from tests.filehost import digest, file_answer, file_host
from tests.messy import tree_of, two_folders
from tests.packing import packed_bytes


def unetops(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *map(str, arguments)], capture_output=True, text=True,
        check=False, timeout=120, env={**os.environ, **environment},
    )  # fmt: skip


def formatted(tmp_path, source, **environment) -> tuple[str, str]:
    """Format a source with the command line; return the dataset id and the recorded location."""
    out, rules = tmp_path / "set", tmp_path / "rules.json"
    done = unetops("doctor", source, "--rules", rules, **environment)
    assert done.returncode in {0, 1}, done.stderr
    done = unetops("format", source, out, "--rules", rules, "--json", **environment)
    assert done.returncode == 0, done.stderr
    (origin,) = [
        json.loads(path.read_bytes()) for path in out.glob("lineage/*/provenance.json")
        if b'"location"' in path.read_bytes()
    ]  # fmt: skip
    return json.loads(done.stdout)["id"], origin["location"]


def id_of(folder, tmp_path) -> str:
    """Id of the dataset formatted from the folder itself with the same rules."""
    rules = read_rules(tmp_path / "rules.json")
    return read_artifact(format_dataset(folder, tmp_path / "here", rules, jobs=1)).id


@pytest.fixture
def folder(tmp_path) -> Path:
    return two_folders(tmp_path / "source", count=4)


def test_dataset_from_an_https_address_equals_that_from_the_folder(folder, tmp_path):
    data = packed_bytes("tar.zst", *tree_of(folder).items())
    with file_host(tmp_path) as host:
        host.answer = file_answer(data)
        url = host.url(
            f"/records/1/files/set.tar.zst?download=1&key=secret#md5={digest(data, 'md5')}"
        )
        found = formatted(tmp_path, url, SSL_CERT_FILE=str(tmp_path / "host.pem"))
        assert len(host.requests) == 1  # fetched by doctor, reused by format
    assert found[1] == f"https://127.0.0.1:{host.server_port}/records/1/files/set.tar.zst"
    assert found[0] == id_of(folder, tmp_path)


@pytest.mark.system
def test_dataset_from_a_bucket_equals_that_from_the_folder(folder, tmp_path):
    with s3_server(tmp_path / "buckets") as environment:
        (tmp_path / "buckets" / "lab").mkdir()
        for path, data in tree_of(folder).items():
            bucket_of(environment, "lab").put(f"2026/{path}", data)
        found = formatted(tmp_path, "s3://lab/2026", **environment)
    assert found == (id_of(folder, tmp_path), "s3://lab/2026")


def test_address_error_is_one_line(tmp_path):
    done = unetops("doctor", "https://127.0.0.1:9/set.zip#md5=12")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: https://127.0.0.1:9/set.zip: the end of the address")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("source", ["http://host/a.zip", "ftp://host/a.zip", "gs://bucket/a"])
def test_unsupported_address_scheme_is_refused(tmp_path, source):
    assert is_remote(source)
    with pytest.raises(RulesError, match="expected a folder, an archive, https://HOST/PATH or s3"):
        local_source(source, tmp_path, environment={})


def test_local_source_is_used_in_place(tmp_path):
    assert local_source(str(tmp_path), tmp_path / "downloads", environment={}) == tmp_path
    assert not (tmp_path / "downloads").exists()
    assert location_of(str(tmp_path)) == str(tmp_path.resolve())
    assert location_of("https://me:pw@h/a.zip?k=1#md5=2") == "https://h/a.zip"


def test_local_sources_need_no_network_library():
    code = (
        "import sys, dataset_rules.sources.locations, dataset_rules.doctor.examine\n"
        "print('httpx' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
