"""Requests that nobody sends by mistake: each gets a 4xx, none a 5xx."""

import pytest

from app.jobs import queue
from app.store.db import transaction
from tests.app.conftest import post_dataset

FORM = {"content-type": "multipart/form-data; boundary=b"}
JSON = {"content-type": "application/json"}


@pytest.mark.parametrize(
    ("path", "body", "headers"),
    [
        ("/rules", b'{"version": 2, "mask_keyword": "\\ud800"}', {}),
        ("/rules", b'{"image_type": "1", "description": "\\ud800"}', {}),
        ("/rules", b"\xff\xfe", {}),
        ("/rules", b"[" * 100_000, {}),
        ("/rules", b'{"version": 2, "height": 1e999}', {}),
        ("/datasets", b'{"source": "\\ud800", "rules": "a"}', JSON),
        ("/datasets", b'{"source": "\\u0000", "rules": "../../etc/passwd"}', JSON),
        ("/datasets", b"[" * 100_000, JSON),
        ("/datasets", b"\xff", JSON),
        ("/runs", b'{"dataset": "a", "time_limit_s": Infinity}', JSON),
        ("/runs", b'{"dataset": "a", "time_limit_s": 10, "seed": 1e400}', JSON),
        ("/sources", b"--b\r\n\r\nx\r\n--b--\r\n", FORM),
        ("/sources", b'--b\r\ncontent-disposition: form-data; name="file"\r\n\r\nx\r\n--b--', FORM),
        ("/sources", b'--b\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\nx',
         FORM),
        ("/sources", b"x", {"content-type": "multipart/form-data"}),
        ("/sources", b"x", {"content-type": "multipart/form-data; boundary=" + "b" * 300}),
        ("/sources", b"--b\r\n" + b"x-a: b\r\n" * 5000, FORM),
        ("/predictions", b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n'
         + b"x" * 100_000 + b"\r\n--b--\r\n", FORM),
    ],
)  # fmt: skip
def test_hostile_bodies(http, path, body, headers):
    answer = http.post(f"/api/v1{path}", content=body, headers=headers)
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "path",
    [
        "/rules/..%2f..%2fsecret", "/rules/%00", "/rules/%ff", "/datasets/%F0%9F/samples",
        "/jobs/x/events?after=-1", "/jobs/x/events?after=99999999999999999999999",
        "/jobs?limit=0", "/datasets/x/samples/..%2f..%2f/image", "/lineage/../../unetops.db",
        "/predictions/x/mask", "/models/production",
    ],
)  # fmt: skip
def test_hostile_addresses(http, path):
    answer = http.get(f"/api/v1{path}")
    assert 400 <= answer.status_code < 500, answer.text
    assert answer.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("name", ["../../evil.png", "..\\evil.png", "a\x00b.png", "x" * 5000, "."])
def test_hostile_file_names(http, settings, name):
    files = {"file": (name, b"no archive")}
    assert http.post("/api/v1/sources", files=files).status_code in {400, 422}
    assert not list(settings.home.parent.rglob("*evil*"))


@pytest.mark.parametrize(
    "given", [b"9" * 60, b"-1", b"1.5", b"1e3", b"0x2", "²".encode("latin-1"), b"none"]
)
def test_last_event_id_is_only_believed_if_it_is_a_number(http, engine, given):
    job = told_job(http, engine)
    everything = streamed(http, job)
    assert len(everything) == 6
    assert streamed(http, job, given) == everything


def test_stream_goes_on_behind_the_last_event_that_was_seen(http, engine):
    job = told_job(http, engine)
    everything = streamed(http, job)
    for seen, number in enumerate(everything, 1):
        assert streamed(http, job, str(number).encode()) == everything[seen:]
        assert streamed(http, job, b"", after=number) == everything[seen:]
    assert streamed(http, job, str(everything[1]).encode(), after=0) == everything[2:]


def told_job(http, engine) -> str:
    """A job that has ended, beside another that says something in between."""
    job, other = post_dataset(http), post_dataset(http, count=5)
    for number in range(5):
        with transaction(engine) as session:
            queue.tell(session, job, "step", {"step": number})
            queue.tell(session, other, "step", {"step": number})
    assert http.post(f"/api/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
    return job


def streamed(http, job: str, last_event_id: bytes = b"", **params: int) -> list[int]:
    """Ids of the events in a stream, which ends with the job itself."""
    headers = {"accept": "text/event-stream", "last-event-id": last_event_id}
    answer = http.get(f"/api/v1/jobs/{job}/events", headers=headers, params=params)
    assert answer.status_code == 200, answer.text
    lines = answer.text.splitlines()
    assert "event: end" in lines
    return [int(line.removeprefix("id: ")) for line in lines if line.startswith("id: ")]
