import pytest

from app.ground.settings import Settings
from app.jobs.fetching import fetch_source
from dataset_rules.ground.errors import RulesError, UserError
from tests.app.conftest import drawn_zip, finished, post_source, wait_for, working
from tests.filehost import digest, file_answer, file_host
from tests.packing import zip_bytes

SOURCES = "/api/v1/sources"


@pytest.fixture
def host(tmp_path, monkeypatch):
    """A host on loopback that the worker may download from."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "host.pem"))
    monkeypatch.setenv("UNETOPS_FETCH_LOOPBACK", "1")
    with file_host(tmp_path) as host:
        host.answer = file_answer(drawn_zip())
        yield host


def fetch(http, url):
    answer = http.post(SOURCES, json={"url": url})
    assert answer.status_code == 202, answer.text
    return answer


def test_a_downloaded_source_equals_the_uploaded_one(http, settings, host):
    uploaded = post_source(http)
    url = host.url(f"/data/set.zip?download=1#sha256={digest(drawn_zip())}")
    answer = fetch(http, url)
    job = answer.json()["job"]
    assert answer.headers["Location"] == f"/api/v1/jobs/{job}"
    assert fetch(http, url).json()["job"] == job  # the same job while it is queued
    with working(settings.home):
        view = finished(http, job)
        assert view["status"] == "succeeded", view
        assert view["result"] == {"id": uploaded, "kind": "source"}
        assert view["progress"]["share"] == 1
        assert http.get(answer.json()["links"]["result"]).json()["id"] == uploaded
        data = drawn_zip(2)  # the content behind a URL may change: it is downloaded again
        host.answer = file_answer(data, etag='"2"')
        view = finished(http, fetch(http, host.url("/x/set.zip?token=secret")).json()["job"])
        again = finished(http, fetch(http, host.url("/x/set.zip?token=secret")).json()["job"])
        assert again["id"] != view["id"]
        assert again["result"] == view["result"] != {"id": uploaded, "kind": "source"}
    assert not (settings.home / "work" / job).exists()
    source = http.get(f"{SOURCES}/{view['result']['id']}").json()
    assert source["label"] == "set.zip"
    assert source["facts"] == {
        "files": 4, "archive_bytes": len(data), "archive_sha256": digest(data),
        "address": f"https://127.0.0.1:{host.server_port}/x/set.zip",
    }  # fmt: skip


@pytest.mark.system
def test_an_interrupted_download_resumes_with_the_next_worker(http, settings, host):
    data = drawn_zip(60, size=128)
    cut = len(data) // 2

    def stall(handler):
        handler.head(200, Content_Length=len(data), ETag='"1"')
        handler.wfile.write(data[:cut])
        handler.wfile.flush()
        wait_for(lambda: len(host.requests) > 1)

    host.answer = stall
    job = fetch(http, host.url()).json()["job"]
    with working(settings.home) as worker:
        parts = settings.home / "work" / job / "archive"
        wait_for(lambda: any(path.stat().st_size >= cut for path in parts.glob("*.part")))
        worker.kill()
    host.answer = file_answer(data)
    with working(settings.home):
        assert finished(http, job)["status"] == "succeeded"
    assert host.requests[1][1]["Range"] == f"bytes={cut}-"


@pytest.mark.system
def test_downloads_are_left_to_the_fetching_worker(http, settings, host):
    uploaded = post_source(http)
    with working(settings.home, "jobs"):
        waiting = fetch(http, host.url()).json()["job"]
        looked = http.post(f"{SOURCES}/{uploaded}/doctor").json()["job"]
        assert finished(http, looked)["status"] == "succeeded"
        assert http.get(f"/api/v1/jobs/{waiting}").json()["status"] == "queued"
        assert not host.requests
        later = http.post(f"{SOURCES}/{uploaded}/doctor").json()["job"]
        with working(settings.home, "fetching"):
            assert finished(http, waiting)["status"] == "succeeded"
        assert finished(http, later)["status"] == "succeeded"


@pytest.mark.system
def test_the_fetching_worker_resumes_a_download_of_a_general_worker(http, settings, host):
    host.answer = lambda handler: wait_for(lambda: len(host.requests) > 1)
    job = fetch(http, host.url()).json()["job"]
    with working(settings.home) as worker:
        wait_for(lambda: host.requests)
        worker.kill()
    host.answer = file_answer(drawn_zip())
    with working(settings.home, "jobs"):
        wait_for(lambda: http.get(f"/api/v1/jobs/{job}").json()["status"] == "queued")
        with working(settings.home, "fetching"):
            assert finished(http, job)["status"] == "succeeded"


@pytest.mark.parametrize(
    ("data", "said"),
    [(zip_bytes(("../x.png", b"1")), "leaves the folder"), (zip_bytes(), "contains no file"),
     (b"x" * 2000, "no archive, or a damaged one"), (None, "status 404")],
    ids=["hostile", "empty", "no archive", "absent"],
)  # fmt: skip
def test_invalid_archives_are_reported_with_their_url(host, tmp_path, data, said):
    if data is None:
        host.answer = lambda handler: handler.head(404, Content_Length=0)
    else:
        host.answer = file_answer(data)
    settings = Settings(home=tmp_path / "home", fetch_loopback=True)
    url = host.url("/set.zip?key=secret")
    with pytest.raises(UserError, match=said) as refusal:
        fetch_source(url, tmp_path / "work", settings, lambda done, total: None)
    assert str(refusal.value).startswith(url.partition("?")[0])
    assert str(tmp_path) not in str(refusal.value)
    assert not (tmp_path / "work" / "files").exists() or said == "contains no file"


@pytest.mark.parametrize(
    ("options", "said"),
    [({}, "a network that is not public"),
     ({"fetch_loopback": True, "max_upload_bytes": 1000}, "too large; .* at most 1000 bytes")],
    ids=["loopback", "bound"],
)  # fmt: skip
def test_settings_limit_downloads(host, tmp_path, options, said):
    settings = Settings(home=tmp_path / "home", **options)
    with pytest.raises(RulesError, match=said):
        fetch_source(host.url(), tmp_path / "work", settings, lambda done, total: None)


@pytest.mark.parametrize(
    ("body", "said"),
    [({"url": "http://host/a.zip"}, "expected https://HOST/PATH"),
     ({"url": "s3://bucket/x"}, "expected https://HOST/PATH"),
     ({"url": "file:///etc/passwd"}, "expected https://HOST/PATH"),
     ({"url": "https://me:pw@host/a.zip"}, "the password in the URL would be stored"),
     ({"url": "https://host/a#md5=1"}, "no checksum"), ({"url": "x" * 3000}, "2000"),
     ({"link": "https://host/a"}, "link"), ([], "invalid request")],
)  # fmt: skip
def test_invalid_urls_are_refused_at_once(http, body, said):
    answer = http.post(SOURCES, json=body)
    assert answer.status_code == 422, answer.text
    assert said in answer.json()["detail"]
    assert "pw" not in answer.json().get("where", "")
    assert http.get("/api/v1/jobs").json() == []


def test_openapi_describes_both_ways_to_add_a_source(http):
    document = http.get("/api/v1/openapi.json").json()
    content = document["paths"]["/api/v1/sources"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    assert content["application/json"]["schema"]["required"] == ["url"]
