"""Hostile requests: each is rejected with the intended error."""

import pytest

from app.jobs import queue
from app.store.db import transaction
from app.store.intake import import_artifacts
from tests.app.conftest import drawn_zip, post_dataset

FORM = {"content-type": "multipart/form-data; boundary=b"}
JSON = {"content-type": "application/json"}
FILE = b'--b\r\ncontent-disposition: form-data; name="file"'


def refusal(answer, status: int, what: str) -> None:
    """Assert that the response is exactly this error."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["what"].startswith(what)


@pytest.mark.parametrize(
    ("path", "body", "headers", "status", "what"),
    [
        ("/rules", b'{"version": 2, "mask_keyword": "\\ud800"}', {}, 422,
         "the rules contain a lone surrogate"),
        ("/rules", b'{"image_type": "1", "description": "\\ud800"}', {}, 422,
         "the rules contain a lone surrogate"),
        ("/rules", b"\xff\xfe", {}, 422, "the rules are not valid JSON"),
        ("/rules", b"[" * 100_000, {}, 422, "the rules are not valid JSON"),
        ("/rules", b'{"version": 2, "height": 1e999}', {}, 422, "the rules are invalid: height"),
        ("/datasets", b'{"source": "\\ud800", "rules": "a"}', JSON, 422,
         "invalid request: body.source"),
        ("/datasets", b'{"source": "\\u0000", "rules": "../../etc/passwd"}', JSON, 422,
         "invalid request: body.source"),
        ("/datasets", b"[" * 100_000, JSON, 400, "There was an error parsing the body"),
        ("/datasets", b"\xff", JSON, 400, "There was an error parsing the body"),
        ("/runs", b'{"dataset": "a", "time_limit_s": Infinity}', JSON, 422,
         "invalid request: body.time_limit_s"),
        ("/runs", b'{"dataset": "a", "time_limit_s": 10, "seed": 1e400}', JSON, 422,
         "invalid request: body.seed"),
        ("/sources", b"--b\r\n\r\nx\r\n--b--\r\n", FORM, 422, "the form has no file"),
        ("/sources", FILE + b"\r\n\r\nx\r\n--b--", FORM, 422, "the form has no file"),
        ("/sources", FILE + b'; filename="a"\r\n\r\nx', FORM, 422, "this is no archive"),
        ("/sources", (FILE + b'; filename="a"\r\n\r\nx\r\n') * 2 + b"--b--", FORM, 422,
         "the form has two files"),
        ("/sources", b"x", {"content-type": "multipart/form-data"}, 400, "the body is not a form"),
        ("/sources", b"x", {"content-type": "multipart/form-data; boundary=" + "b" * 300}, 400,
         "the form cannot be read"),
        ("/sources", b"--b\r\n" + b"x-a: b\r\n" * 5000, FORM, 400, "the form cannot be read"),
        ("/predictions", b'--b\r\ncontent-disposition: form-data; name="model"\r\n\r\n'
         + b"x" * 100_000 + b"\r\n--b--\r\n", FORM, 413, "the form's text fields are too large"),
    ],
)  # fmt: skip
def test_hostile_bodies(http, path, body, headers, status, what):
    refusal(http.post(f"/api/v1{path}", content=body, headers=headers), status, what)


@pytest.mark.parametrize(
    ("route", "path", "status", "what"),
    [
        ("/rules/{rules_id}", "/rules/%00", 404, "no such rules"),
        ("/rules/{rules_id}", "/rules/%ff", 404, "no such rules"),
        ("/datasets/{dataset_id}/samples", "/datasets/%F0%9F/samples", 404, "no such dataset"),
        ("/jobs/{job_id}/events", "/jobs/x/events?after=-1", 422,
         "invalid request: query.after"),
        ("/jobs/{job_id}/events", "/jobs/x/events?after=99999999999999999999999", 422,
         "invalid request: query.after"),
        ("/jobs", "/jobs?limit=0", 422, "invalid request: query.limit"),
        ("/predictions/{prediction_id}/mask", "/predictions/x/mask", 404, "no such prediction"),
        ("/models/{model_id}", "/models/production", 409, "there is no model yet"),
    ],
)  # fmt: skip
def test_hostile_addresses(http, app, route, path, status, what):
    assert f"/api/v1{route}" in app.openapi()["paths"]
    refusal(http.get(f"/api/v1{path}"), status, what)


@pytest.mark.parametrize(
    ("plain", "astray"),
    [
        ("/rules/x", "/rules/..%2f..%2fsecret"),
        ("/datasets/x/samples/x/image", "/datasets/x/samples/..%2f..%2f/image"),
        ("/lineage/x", "/lineage/../../unetops.db"),
    ],
)
def test_paths_that_leave_their_route_are_rejected(http, settings, plain, astray):
    (settings.home / "secret").write_text("secret")
    refusal(http.get(f"/api/v1{plain}"), 404, "no such ")
    refusal(http.get(f"/api/v1{astray}"), 404, "Not Found")


@pytest.mark.parametrize(
    ("name", "kept"),
    [("../../evil.png", "evil.png"), ("..\\evil.png", "evil.png"), ("a\x00b.png", "a_00b.png"),
     (".", "upload")],
)  # fmt: skip
def test_hostile_file_names(http, settings, name, kept):
    answer = http.post("/api/v1/sources", files={"file": (name, b"no archive")})
    refusal(answer, 422, "this is no archive, or a damaged one")
    assert answer.json()["where"] == kept
    assert list(settings.uploads.iterdir()) == []
    answer = http.post("/api/v1/sources", files={"file": (name, drawn_zip())})
    assert http.get(answer.json()["links"]["self"]).json()["label"] == kept
    assert not list(settings.home.parent.rglob("*evil*"))


@pytest.mark.parametrize(
    "given", [b"9" * 60, b"-1", b"1.5", b"1e3", b"0x2", "²".encode("latin-1"), b"none"]
)
def test_last_event_id_must_be_a_number(http, engine, given):
    job = told_job(http, engine)
    everything = streamed(http, job)
    assert len(everything) == 6
    assert streamed(http, job, given) == everything


def test_the_stream_resumes_after_the_last_event_id(http, engine):
    job = told_job(http, engine)
    everything = streamed(http, job)
    for seen, number in enumerate(everything, 1):
        assert streamed(http, job, str(number).encode()) == everything[seen:]
        assert streamed(http, job, b"", after=number) == everything[seen:]
    assert streamed(http, job, str(everything[1]).encode(), after=0) == everything[2:]


def told_job(http, engine) -> str:
    """A finished job with events, interleaved with those of another job."""
    job, other = post_dataset(http), post_dataset(http, count=5)
    for number in range(5):
        with transaction(engine) as session:
            queue.record_event(session, job, "step", {"step": number})
            queue.record_event(session, other, "step", {"step": number})
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


def test_a_file_named_like_a_page_is_rejected(http):
    answer = http.post("/api/v1/sources", files={"file": ("x" * 5000, b"no archive")})
    refusal(answer, 400, "the form cannot be read")


SIGNS = ["\u6838", "\U0002070e", "x"]  # three bytes, four and one in UTF-8


def test_file_names_are_limited_in_bytes_and_nothing_is_left_behind(http, settings, run):
    import_artifacts(settings.home, [run])
    before = sorted(path for path in settings.home.rglob("*") if path.is_dir())
    for path, field in (("sources", "file"), ("predictions", "image")):
        for sign in SIGNS:
            name = sign * (204 // len(sign.encode())) + ".png"
            answer = http.post(f"/api/v1/{path}", files={field: (name, drawn_zip())})
            assert answer.status_code == 422, answer.text
            assert answer.json()["what"] == "the file name is too long"
            assert answer.json()["expected"] == "at most 200 bytes in UTF-8"
            assert answer.json()["found"] == "208 bytes"
    assert sorted(path for path in settings.home.rglob("*") if path.is_dir()) == before
    assert list(settings.uploads.iterdir()) == []


@pytest.mark.parametrize("sign", SIGNS, ids=["CJK", "rare CJK", "Latin"])
def test_a_name_of_200_bytes_is_kept_whole(http, sign):
    name = sign * (196 // len(sign.encode()))
    name += "x" * (196 - len(name.encode())) + ".zip"
    answer = http.post("/api/v1/sources", files={"file": (name, drawn_zip())})
    assert answer.status_code == 201, answer.text
    assert http.get(answer.json()["links"]["self"]).json()["label"] == name
