import re

import pytest

from app.web.pages import HERE
from tests.app.conftest import PAPER, finished, post_dataset, working


@pytest.mark.parametrize(
    "path", ["/", "/rules", "/datasets", "/jobs", "/models", "/predict", "/reports"]
)
def test_pages_without_any_data(http, path):
    answer = http.get(path)
    assert answer.status_code == 200
    assert "<h1>" in answer.text
    assert "//cdn" not in answer.text


def test_form_of_the_rules_page_stores_rules(http):
    form = {name: value for name, value in PAPER.items() if name != "_token"}
    answer = http.post("/rules", data=form)
    assert answer.status_code == 303
    page = http.get(answer.headers["location"])
    assert "&#34;width&#34;: 32" in page.text
    assert http.post("/api/v1/rules", json=PAPER).json()["id"] in answer.headers["location"]


def test_the_form_reports_errors_and_keeps_the_input(http):
    form = {name: value for name, value in PAPER.items() if name != "_token"}
    answer = http.post("/rules", data={**form, "width": "0", "description": "_gt"})
    assert answer.status_code == 422
    assert "width" in answer.text
    assert 'value="_gt"' in answer.text


def test_pages_of_a_dataset_and_its_job(http, settings):
    job = post_dataset(http)
    assert job in http.get("/jobs").text
    with working(settings.home):
        made = finished(http, job)["result"]["id"]
    page = http.get(f"/datasets/{made}").text
    assert "case000" in page
    assert sum(int(n) for n in re.findall(r"<dd>(\d+)</dd>", page)) == 4
    assert http.get(f"/jobs/{job}").status_code == 200
    assert "succeeded" in http.get("/").text


def test_static_files_are_served(http):
    assert http.get("/static/style.css").status_code == 200
    assert (HERE / "static" / ".." / "main.py").exists()
    for astray in ("/static/..%2fmain.py", "/static/%2e%2e/main.py", "/static//etc/passwd"):
        assert http.get(astray).status_code == 404
