import io
import zipfile
from concurrent.futures import ThreadPoolExecutor

import pytest

from app.ground.settings import Settings
from app.web.main import create_app
from tests.app.conftest import PAPER, browsing, drawn_zip, post_source

RULES, SOURCES, PREDICTIONS = "/api/v1/rules", "/api/v1/sources", "/api/v1/predictions"


def problem(answer, status: int) -> dict:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    body = answer.json()
    assert body["status"] == status
    assert body["what"]
    assert body["detail"]
    return body


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({**PAPER, "width": "0"}, "width"),
        ({**PAPER, "colour": "1"}, "colour"),
        ({"version": 2, "fit": "keep", "sise": 3}, "sise"),
        ({"version": 2, "fit": "stretch", "height": 8, "width": 0}, "width"),
        ({"height": 1}, "version"),
        ([1, 2], "object"),
    ],
)
def test_invalid_rules_are_reported_by_key(http, body, named):
    assert named in problem(http.post(RULES, json=body), 422)["detail"]


def test_rules_must_be_json(http):
    assert "JSON" in problem(http.post(RULES, content=b"{width: 3"), 422)["what"]


def test_rules_of_two_megabytes_are_refused(http):
    problem(http.post(RULES, content=b" " * (2 << 20)), 413)


def test_unknown_id(http):
    assert problem(http.get(f"{RULES}/{'0' * 64}"), 404)["where"] == "0" * 64


def test_unknown_route_and_method(http):
    problem(http.get("/api/v1/nothing"), 404)
    problem(http.delete(RULES), 405)


def test_unknown_key_in_a_body(http):
    body = {"source": "a", "rules": "b", "color": 3}
    assert "color" in problem(http.post("/api/v1/datasets", json=body), 422)["what"]


@pytest.mark.parametrize("limit", [0, -1, "soon", 1e12])
def test_invalid_time_limits_are_refused(http, limit):
    body = {"dataset": "a", "time_limit_s": limit}
    assert "time_limit_s" in problem(http.post("/api/v1/runs", json=body), 422)["what"]


def test_id_of_another_kind_is_refused(http):
    rules = http.post(RULES, json=PAPER).json()["id"]
    body = {"source": rules, "rules": rules}
    found = problem(http.post("/api/v1/datasets", json=body), 422)
    assert (found["expected"], found["found"]) == ("source", "rules")


def test_a_text_file_with_zip_suffix_is_refused(http):
    found = problem(http.post(SOURCES, files={"file": ("set.zip", b"hello, this is text")}), 422)
    assert "set.zip" in found["detail"]
    assert "/uploads/" not in found["detail"]


def test_empty_zip_is_refused(http):
    data = io.BytesIO()
    zipfile.ZipFile(data, "w").close()
    problem(http.post(SOURCES, files={"file": ("set.zip", data.getvalue())}), 422)


def test_zip_that_leaves_its_folder_is_refused(http, settings):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("../../evil.png", b"x")
    problem(http.post(SOURCES, files={"file": ("set.zip", data.getvalue())}), 422)
    assert not list(settings.home.rglob("evil.png"))


def test_refused_uploads_are_removed(http, settings):
    problem(http.post(SOURCES, files={"file": ("set.zip", drawn_zip()[:-40])}), 422)
    assert list(settings.uploads.iterdir()) == []


def test_empty_file_missing_file_or_no_form_is_refused(http):
    problem(http.post(SOURCES, files={"file": ("set.zip", b"")}), 422)
    problem(http.post(SOURCES, files={"archive": ("set.zip", b"x")}), 422)
    problem(http.post(SOURCES, content=b"x"), 400)


def test_broken_form_is_refused(http):
    headers = {"content-type": "multipart/form-data; boundary=b"}
    problem(http.post(SOURCES, content=b"no boundary here", headers=headers), 400)


def test_equal_files_are_one_source(http):
    assert post_source(http) == post_source(http)


def test_equal_files_at_once_are_one_source(http, settings):
    with ThreadPoolExecutor(6) as pool:
        sources = set(pool.map(lambda _: post_source(http), range(6)))
    assert len(sources) == 1
    assert len(http.get(SOURCES).json()) == 1
    assert list(settings.uploads.iterdir()) == []


def test_too_large_uploads_are_refused(tmp_path):
    settings = Settings(home=tmp_path / "small", max_upload_bytes=1000, max_image_bytes=10)
    with browsing(create_app(settings)) as http:
        problem(http.post(SOURCES, files={"file": ("set.zip", b"x" * 2000)}), 413)
        problem(http.post(SOURCES, files={"file": ("set.zip", b"x" * (2 << 20))}), 413)
        assert list(settings.uploads.iterdir()) == []


def test_prediction_without_a_model_says_how_to_get_one(http):
    found = problem(http.post(PREDICTIONS, files={"image": ("a.png", b"x")}), 409)
    assert "runs" in found["remedy"]


def test_unknown_job(http):
    stream = {"accept": "text/event-stream"}
    for answer in (
        http.get("/api/v1/jobs/none"), http.get("/api/v1/jobs/none/events", headers=stream),
        http.post("/api/v1/jobs/none/cancel"),
    ):  # fmt: skip
        assert problem(answer, 404)["where"] == "none"
