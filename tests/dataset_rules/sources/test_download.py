import signal
import subprocess
import sys
import time

import pytest

from dataset_rules.ground.errors import RulesError
from dataset_rules.sources.address import address_of
from dataset_rules.sources.download import Bounds, fetch
from tests.filehost import digest, file_answer, file_host

DATA = bytes(range(256)) * 4000
QUICK = Bounds(stall_s=0.6, tries=3, pause_s=0.01)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    return tmp_path_factory.mktemp("host")


@pytest.fixture
def host(certificate, monkeypatch):
    with file_host(certificate) as host:
        monkeypatch.setenv("SSL_CERT_FILE", str(certificate / "host.pem"))
        yield host


def fetched(host, tmp_path, path="/set.zip", **options):
    options.setdefault("bounds", QUICK)
    return fetch(address_of(host.url(path)), tmp_path / "downloads", **options)


def assert_refused(host, tmp_path, match, path="/set.zip", **options):
    with pytest.raises(RulesError, match=match):
        fetched(host, tmp_path, path, **options)


def test_file_is_fetched_and_progress_reported(host, tmp_path):
    host.answer = file_answer(DATA)
    progress = []
    path = fetched(host, tmp_path, on_progress=lambda done, total: progress.append((done, total)))
    assert path.read_bytes() == DATA
    assert path.name.endswith("-set.zip")
    assert progress[-1] == (len(DATA), len(DATA))
    assert [done for done, _ in progress] == sorted({done for done, _ in progress})


def test_interrupted_transfer_is_resumed(host, tmp_path):
    host.answer = file_answer(DATA, breaks_at=300_000)
    assert fetched(host, tmp_path).read_bytes() == DATA
    ranges = [headers.get("Range") for _, headers in host.requests]
    assert ranges == [None, "bytes=300000-", "bytes=600000-", "bytes=900000-"]
    assert {headers.get("If-Range") for _, headers in host.requests[1:]} == {'"1"'}


def test_file_that_changes_between_two_tries_is_fetched_from_the_start(host, tmp_path):
    new = DATA[::-1]
    answers = [file_answer(DATA, breaks_at=300_000), file_answer(new, etag='"2"')]
    host.answer = lambda handler: answers.pop(0)(handler)
    assert fetched(host, tmp_path).read_bytes() == new


def test_without_range_support_the_file_is_fetched_from_the_start(host, tmp_path):
    answers = [
        file_answer(DATA, has_ranges=False, breaks_at=9000),
        file_answer(DATA, has_ranges=False),
    ]
    host.answer = lambda handler: answers.pop(0)(handler)
    assert fetched(host, tmp_path).read_bytes() == DATA


def test_wrong_range_is_discarded(host, tmp_path):
    def answer(handler):
        if "Range" in handler.headers:
            place = f"bytes 5-{len(DATA) - 1}/{len(DATA)}"
            handler.head(206, Content_Length=len(DATA) - 5, ETag='"1"', Content_Range=place)
            handler.wfile.write(DATA[5:])
            return
        file_answer(DATA, breaks_at=1000 if len(host.requests) == 1 else None)(handler)

    host.answer = answer
    assert fetched(host, tmp_path).read_bytes() == DATA


def test_without_a_validator_the_transfer_is_not_resumed(host, tmp_path):
    def answer(handler):
        handler.head(200, Content_Length=len(DATA))
        handler.wfile.write(DATA[: 1000 if len(host.requests) == 1 else None])

    host.answer = answer
    assert fetched(host, tmp_path).read_bytes() == DATA
    assert all("Range" not in headers for _, headers in host.requests)


def test_unchanged_file_is_not_fetched_again(host, tmp_path):
    host.answer = file_answer(DATA)
    first = fetched(host, tmp_path)
    stamp = first.stat().st_mtime_ns
    assert fetched(host, tmp_path).stat().st_mtime_ns == stamp
    assert [headers.get("If-None-Match") for _, headers in host.requests] == [None, '"1"']


def test_updated_file_is_fetched_again(host, tmp_path):
    host.answer = file_answer(DATA)
    fetched(host, tmp_path)
    host.answer = file_answer(DATA[::-1], etag='"2"')
    assert fetched(host, tmp_path).read_bytes() == DATA[::-1]


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_file_with_matching_checksum_is_not_requested_again(host, tmp_path, algorithm):
    host.answer = file_answer(DATA)
    path = f"/set.zip#{algorithm}={digest(DATA, algorithm).upper()}"
    assert fetched(host, tmp_path, path).read_bytes() == DATA
    assert fetched(host, tmp_path, path).read_bytes() == DATA
    assert len(host.requests) == 1  # the checksum suffices, no second request


@pytest.mark.parametrize("algorithm", ["sha256", "md5"])
def test_file_with_wrong_checksum_is_refused_and_removed(host, tmp_path, algorithm):
    host.answer = file_answer(DATA)
    path = f"/set.zip#{algorithm}={digest(b'', algorithm)}"
    assert_refused(host, tmp_path, f"does not match its {algorithm}; expected .*; found", path)
    assert not list((tmp_path / "downloads").glob("*set.zip*part"))


def test_file_over_the_size_limit_is_refused_before_fetching(host, tmp_path):
    host.answer = file_answer(DATA)
    bounds = Bounds(size_bytes=len(DATA) - 1)
    assert_refused(host, tmp_path, "too large; expected at most 1023999 bytes", bounds=bounds)


def test_endless_body_is_aborted_at_the_size_limit(host, tmp_path):
    def answer(handler):
        handler.head(200)
        while True:
            handler.wfile.write(bytes(1 << 16))

    host.answer = answer
    assert_refused(host, tmp_path, "too large", bounds=Bounds(size_bytes=1 << 20))
    assert not list((tmp_path / "downloads").glob("*.part"))


def drip_head(handler):
    handler.wfile.write(b"HTTP/1.1 200 OK\r\nX-Long: ")
    while True:
        time.sleep(0.05)
        handler.wfile.write(b"x")


def drip_body(handler):
    handler.head(200, Content_Length=1 << 20)
    while True:
        time.sleep(0.05)
        handler.wfile.write(b"x")


def no_response(handler):
    time.sleep(5)


@pytest.mark.parametrize("answer", [drip_head, drip_body, no_response])
def test_stalled_server_is_abandoned(host, tmp_path, answer):
    host.answer = answer
    started = time.monotonic()
    assert_refused(host, tmp_path, "sent nothing for too long|only .* bytes received")
    assert time.monotonic() - started < 4  # three tries of 0.6 s


def test_busy_server_is_retried(host, tmp_path):
    answers = [
        lambda handler: handler.head(503, Content_Length=0),
        lambda handler: handler.head(429, Content_Length=0),
        file_answer(DATA),
    ]
    host.answer = lambda handler: answers.pop(0)(handler)
    assert fetched(host, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_missing_or_forbidden_file_is_refused_without_retry(host, tmp_path, status):
    host.answer = lambda handler: handler.head(status, Content_Length=0)
    assert_refused(host, tmp_path, f"does not provide the file; found status {status}")
    assert len(host.requests) == 1


def test_web_page_instead_of_a_file_is_refused(host, tmp_path):
    page = b"<html>A record</html>"

    def answer(handler):
        handler.head(200, Content_Type="text/html; charset=utf-8", Content_Length=len(page))
        handler.wfile.write(page)

    host.answer = answer
    assert_refused(
        host, tmp_path, "is a web page, not a file.*zenodo.org/records/NUMBER/files/NAME"
    )


def test_redirects_are_followed(host, tmp_path):
    def answer(handler):
        if handler.path == "/set.zip":
            handler.head(302, Location=host.url("/there", host="localhost"), Content_Length=0)
        else:
            file_answer(DATA)(handler)

    host.answer = answer
    assert fetched(host, tmp_path).read_bytes() == DATA


@pytest.mark.parametrize(
    ("target", "match"),
    [("http://127.0.0.1/x", "redirects to http://127.0.0.1/x"), ("/set.zip", "redirects"),
     ("ftp://x/y", "redirects to ftp"), ("file:///etc/passwd", "redirects to file|unsupported")],
)  # fmt: skip
def test_invalid_redirect_is_refused_without_retry(host, tmp_path, target, match):
    host.answer = lambda handler: handler.head(302, Location=target, Content_Length=0)
    started = time.monotonic()
    assert_refused(host, tmp_path, f"(?i){match}", bounds=Bounds(stall_s=5))
    assert time.monotonic() - started < 3


def test_untrusted_certificate_is_refused(host, tmp_path, monkeypatch):
    monkeypatch.delenv("SSL_CERT_FILE")
    assert_refused(host, tmp_path, "certificate", bounds=Bounds())
    assert not host.requests


def test_unreachable_host_is_reported(tmp_path):
    address = address_of("https://127.0.0.1:9/x.zip")
    with pytest.raises(RulesError, match=r"cannot be fetched; found .*refused"):
        fetch(address, tmp_path, bounds=QUICK)


@pytest.mark.parametrize(
    "text",
    ["http://host/a.zip", "https:///a.zip", "https://host:0/a", "https://host:x/a", "https://h/a b",
     "https://[::1/a", "ftp://host/a", "https://h/a\n", "https://h/a#sha256=12", "https://h/a#part",
     "https://h/a#md5=" + "g" * 32, "https://h/a#sha1=" + "0" * 40],
)  # fmt: skip
def test_invalid_address_is_refused(text):
    with pytest.raises(RulesError, match=r"this address cannot be fetched|no checksum"):
        address_of(text)


def test_password_and_query_are_redacted():
    address = address_of("https://me:secret@host/a/b.zip?signature=abc")
    assert address.redacted == "https://host/a/b.zip"
    assert address.has_password


@pytest.mark.parametrize(
    ("text", "name"),
    [("https://h/files/My%20Set%2F..%2Fx.zip?download=1", "My_Set_.._x.zip"),
     ("https://h", "h"), ("https://h/..", "file"),
     ("https://h/" + "a" * 300 + ".zip", "a" * 96 + ".zip"),
     ("https://h/" + "%E6%A0%B8" * 300 + ".zip", "\u6838" * 32 + ".zip")],
)  # fmt: skip
def test_file_is_named_by_its_address_and_stays_in_the_folder(text, name):
    assert address_of(text).name == name


def fetch_in_subprocess(url, folder):
    """Fetch in another process."""
    code = (
        "import sys; from pathlib import Path\n"
        "from dataset_rules.sources.address import address_of\n"
        "from dataset_rules.sources.download import fetch\n"
        "fetch(address_of(sys.argv[1]), Path(sys.argv[2]))"
    )
    return subprocess.Popen([sys.executable, "-c", code, url, str(folder)])


def test_two_processes_do_not_fetch_the_same_file(host, tmp_path):
    host.answer = no_response
    other = fetch_in_subprocess(host.url(), tmp_path / "downloads")
    try:
        while not host.requests:
            time.sleep(0.02)
        assert_refused(host, tmp_path, "another process is fetching this file")
    finally:
        other.kill()
        other.wait()


def test_killed_fetch_is_resumed(host, tmp_path):
    def slow(handler):
        handler.head(200, Content_Length=len(DATA), ETag='"1"')
        for start in range(0, len(DATA), 1 << 16):
            handler.wfile.write(DATA[start : start + (1 << 16)])
            time.sleep(0.05)

    host.answer = slow
    downloads = tmp_path / "downloads"
    other = fetch_in_subprocess(host.url(), downloads)
    while not any(path.stat().st_size > 100_000 for path in downloads.glob("*.part")):
        time.sleep(0.02)
    other.send_signal(signal.SIGKILL)
    other.wait()
    host.answer = file_answer(DATA)
    assert fetched(host, tmp_path).read_bytes() == DATA
    start = int(host.requests[-1][1]["Range"].removeprefix("bytes=").rstrip("-"))
    assert start > 100_000
