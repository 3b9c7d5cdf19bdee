import hashlib
import os
import subprocess
import time

import pytest

from dataset_rules.doctor.examine import examine
from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.bucket import fetch_bucket
from dataset_rules.sources.limits import Limits
from tests.buckets import bucket_of, s3_server
from tests.messy import tree_of, two_folders
from tests.packing import zip_bytes


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    folder = tmp_path_factory.mktemp("s3") / "buckets"
    with s3_server(folder) as environment:
        yield folder, environment


@pytest.fixture
def bucket(server, request):
    """Name of a new bucket, a client, and the environment to access it."""
    folder, environment = server
    name = f"b{abs(hash(request.node.name))}"
    (folder / name).mkdir()
    saved = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    os.environ.update(environment)
    yield name, bucket_of(environment, name), environment
    for key in environment:
        os.environ.pop(key)
    os.environ.update(saved)


def fill(client, members):
    for key, data in members.items():
        client.put(key, data)


@pytest.mark.system
def test_only_the_prefix_is_fetched_as_a_folder(bucket, tmp_path):
    name, client, environment = bucket
    folder = two_folders(tmp_path / "source")
    fill(client, {f"my/set/{path}": data for path, data in tree_of(folder).items()})
    fill(client, {"my/set2/x.png": b"another", "my/x.png": b"another"})
    progress = []
    found = fetch_bucket(
        f"s3://{name}/my/set", tmp_path / "downloads", environment=environment,
        on_progress=lambda done, total: progress.append((done, total)),
    )  # fmt: skip
    assert tree_of(found) == tree_of(folder)
    total = sum(len(data) for data in tree_of(folder).values())
    assert progress[-1] == (total, total)
    assert len(progress) == len(tree_of(folder))
    assert examine(found).document() == examine(folder).document()


@pytest.mark.system
def test_changed_objects_are_fetched_again_and_deleted_ones_removed(bucket, tmp_path):
    name, client, environment = bucket
    fill(client, {f"set/{number}.png": bytes([number]) * 50 for number in range(4)})
    where = (f"s3://{name}/set/", tmp_path / "downloads")
    found = fetch_bucket(*where, environment=environment)
    before = {path.name: path.stat().st_ino for path in found.iterdir()}
    time.sleep(1.1)  # S3 times have a resolution of one second
    client.put("set/1.png", b"other bytes" + bytes(39))
    client.delete("set/2.png")
    progress = []
    fetch_bucket(
        *where, environment=environment, on_progress=lambda done, total: progress.append(done)
    )
    after = {path.name: path.stat().st_ino for path in found.iterdir()}
    assert set(after) == {"0.png", "1.png", "3.png"}
    assert {path for path in after if after[path] != before[path]} == {"1.png"}
    assert progress == [150]


@pytest.mark.system
def test_file_replaces_a_folder_of_the_same_name_and_vice_versa(bucket, tmp_path):
    name, client, environment = bucket
    where = (f"s3://{name}/set", tmp_path / "downloads")
    fill(client, {"set/a/1.png": b"1", "set/b": b"2"})
    fetch_bucket(*where, environment=environment)
    client.delete(["set/a/1.png", "set/b"])
    fill(client, {"set/a": b"3", "set/b/1.png": b"4"})
    assert tree_of(fetch_bucket(*where, environment=environment)) == {"a": b"3", "b/1.png": b"4"}


@pytest.mark.system
def test_single_object_is_fetched_as_an_archive(bucket, tmp_path):
    name, client, environment = bucket
    folder = two_folders(tmp_path / "source")
    fill(client, {"sets/one.zip": zip_bytes(*tree_of(folder).items())})
    found = fetch_bucket(
        f"s3://{name}/sets/one.zip", tmp_path / "downloads", environment=environment
    )
    assert examine(found).document() == examine(folder).document()


@pytest.mark.system
def test_clashing_names_are_refused_before_fetching(bucket, tmp_path):
    name, client, environment = bucket
    fill(client, {"set/a.png": b"1", "set/A.png": b"2"})
    with pytest.raises(RulesError, match="two files of the same name"):
        fetch_bucket(f"s3://{name}/set", tmp_path / "downloads", environment=environment)
    assert not (tmp_path / "downloads").exists()


@pytest.mark.system
def test_limits_are_enforced(bucket, tmp_path):
    name, client, environment = bucket
    fill(client, {f"{number}.png": bytes(100) for number in range(5)})
    for limits, match in ((Limits(files=4), "too many"), (Limits(size_bytes=499), "more bytes")):
        with pytest.raises(RulesError, match=match):
            fetch_bucket(f"s3://{name}", tmp_path / "d", environment=environment, limits=limits)
    assert not (tmp_path / "d").exists()


@pytest.mark.system
@pytest.mark.parametrize(
    ("change", "where", "match"),
    [({"AWS_SECRET_ACCESS_KEY": "wrong"}, "{}", "access .* is denied; set AWS_ACCESS_KEY_ID"),
     ({"AWS_ACCESS_KEY_ID": ""}, "{}", "access .* is denied; set AWS_ACCESS_KEY_ID"),
     ({}, "{}/nothing", "no such bucket or object"), ({}, "{}-no/x", "no such bucket or object"),
     ({}, "{}", "no object below this prefix")],
    ids=["wrong secret", "without keys", "no object", "no bucket", "empty bucket"],
)  # fmt: skip
def test_access_errors_are_one_line(bucket, tmp_path, monkeypatch, change, where, match):
    name, _, environment = bucket
    for key, value in change.items():
        monkeypatch.setenv(key, value)
    with pytest.raises(RulesError, match=match) as caught:
        fetch_bucket("s3://" + where.format(name), tmp_path, environment={**environment, **change})
    assert "\n" not in str(caught.value)


def _curl_put(environment, key):
    user = f"{environment['AWS_ACCESS_KEY_ID']}:{environment['AWS_SECRET_ACCESS_KEY']}"
    address = f"{environment['AWS_ENDPOINT_URL']}/{key}"
    sign = ["--aws-sigv4", "aws:amz:us-east-1:s3", "--user", user]
    head = ["-H", f"x-amz-content-sha256: {hashlib.sha256().hexdigest()}"]
    subprocess.run(["curl", "-sSf", *sign, *head, "-X", "PUT", address], check=True)


@pytest.mark.system
def test_folder_placeholders_of_a_console_are_skipped(bucket, tmp_path, server):
    name, client, environment = bucket
    fill(client, {"set/a/1.png": b"1"})
    for key in ("set/a/", "set/"):  # our client never writes such a key
        _curl_put(environment, f"{name}/{key}")
    found = fetch_bucket(f"s3://{name}/set", tmp_path / "downloads", environment=environment)
    assert tree_of(found) == {"a/1.png": b"1"}


@pytest.mark.system
def test_unreachable_server_is_reported_in_time(tmp_path, monkeypatch):
    environment = {"AWS_ENDPOINT_URL": "http://127.0.0.1:9", "AWS_ACCESS_KEY_ID": "k",
                   "AWS_SECRET_ACCESS_KEY": "s"}  # fmt: skip
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    started = time.monotonic()
    with pytest.raises(RulesError, match=r"the bucket cannot be read; found .*127\.0\.0\.1:9"):
        fetch_bucket("s3://bucket/set", tmp_path, environment=environment)
    assert time.monotonic() - started < 45


@pytest.mark.parametrize("url", ["s3://", "s3:///x", "s3://a", "s3://-bad/x", "s3://b?x/y"])
def test_invalid_bucket_address_is_refused(tmp_path, url):
    with pytest.raises(RulesError, match="not the address of a bucket"):
        fetch_bucket(url, tmp_path, environment={})
