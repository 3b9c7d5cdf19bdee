import io
import json
import os
import signal
import zipfile

from app.jobs import queue
from app.jobs.queue import open_client
from dataset_rules.artifacts.seal import altered_files
from tests.app.conftest import (
    PAPER,
    finished,
    post_dataset,
    post_source,
    processes_of,
    start_worker,
    wait_for,
    working,
)


def test_source_and_rules_become_a_dataset(http, settings):
    job = post_dataset(http)
    assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "queued"
    with working(settings.home):
        view = finished(http, job)
    assert view["status"] == "succeeded", view["error"]
    assert view["progress"]["total"] == 4
    made = http.get(f"/api/v1/datasets/{view['result']['id']}").json()
    assert made == http.get(f"/api/v1/datasets/{job}").json(), "the job stands for its result"
    samples = http.get(made["links"]["samples"]).json()["samples"]
    assert len(samples) == 4
    for link in samples[0]["links"].values():
        assert http.get(link).content.startswith(b"\x89PNG")
    with zipfile.ZipFile(io.BytesIO(http.get(made["links"]["export"]).content)) as archive:
        assert archive.testzip() is None
        assert "manifest.json" in archive.namelist()
    assert altered_files(settings.home / "artifacts" / made["id"]) == []
    chain = http.get(made["links"]["lineage"]).json()
    assert chain["whole"]
    assert [link["kind"] for link in chain["links"]][:3] == ["dataset", "rules", "source"]
    check_events(http, job)
    check_same_request(http, job)


def check_events(http, job):
    events = http.get(f"/api/v1/jobs/{job}/events").json()
    names = [event["event"] for event in events["events"]]
    assert (names[0], names[-1]) == ("started", "succeeded")
    later = http.get(f"/api/v1/jobs/{job}/events", params={"after": events["next"]}).json()
    assert later["events"] == []
    stream = http.get(f"/api/v1/jobs/{job}/events", headers={"accept": "text/event-stream"})
    assert stream.headers["content-type"].startswith("text/event-stream")
    last = stream.text.strip().split("\n\n")[-1]
    assert last.startswith("event: end\ndata: ")
    assert json.loads(last.removeprefix("event: end\ndata: "))["status"] == "succeeded"


def check_same_request(http, job):
    assert post_dataset(http) == job
    assert len(http.get("/api/v1/jobs").json()) == 1


def test_doctor_reports_on_a_source(http, settings):
    source = post_source(http)
    address = f"/api/v1/sources/{source}/doctor"
    assert http.get(address).status_code == 404
    job = http.post(address).json()["job"]
    with working(settings.home):
        assert finished(http, job)["status"] == "succeeded"
    assert len(http.get(address).json()["pairs"]) == 4
    assert http.get(f"/sources/{source}").text.count('src="data:image/') >= 12
    alone = http.get(f"/sources/{source}/report.html")
    assert alone.text.startswith("<!doctype html>")
    assert "default-src 'self'" in alone.headers["Content-Security-Policy"]


def test_page_of_a_source_that_nobody_examined_says_so(http):
    source = post_source(http)
    assert "No doctor has looked at this source yet" in http.get(f"/sources/{source}").text
    assert http.get(f"/sources/{source}/report.html").status_code == 404
    assert f'href="/sources/{source}"' in http.get("/datasets").text


def test_refused_step_fails_its_job_with_the_reason(http, settings):
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        archive.writestr("notes.txt", "no images here")
    source = http.post("/api/v1/sources", files={"file": ("s.zip", data.getvalue())}).json()["id"]
    rules = http.post("/api/v1/rules", json=PAPER).json()["id"]
    body = {"source": source, "rules": rules}
    job = http.post("/api/v1/datasets", json=body).json()["job"]
    with working(settings.home):
        view = finished(http, job)
        assert view["status"] == "failed"
        assert view["error"]["what"]
        assert view["result"] is None
        again = http.post("/api/v1/datasets", json=body).json()["job"]
        assert again != job, "a failed request may be repeated"
        assert finished(http, again)["status"] == "failed"
    assert http.get(f"/api/v1/datasets/{job}").status_code == 409


def test_crash_of_a_step_is_reported_with_its_traceback(http, settings, engine):
    job = post_dataset(http)
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE job SET kind = 'of a later release'")
    with working(settings.home):
        view = finished(http, job)
    assert view["status"] == "failed"
    assert view["error"]["what"] == "the step crashed"
    assert view["error"]["found"] == "KeyError: 'of a later release'"
    events = http.get(f"/api/v1/jobs/{job}/events").json()["events"]
    traces = [event["data"]["text"] for event in events if event["event"] == "traceback"]
    assert "Traceback (most recent call last)" in traces[0]


def test_cancelled_while_it_waits(http, settings):
    job = post_dataset(http)
    assert http.post(f"/api/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
    assert http.post(f"/api/v1/jobs/{job}/cancel").status_code == 200
    other = post_dataset(http)
    assert other != job
    with working(settings.home):
        assert finished(http, other)["status"] == "succeeded"
    assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "cancelled"
    assert http.post(f"/api/v1/jobs/{other}/cancel").status_code == 409


def test_cancelled_while_it_runs(http, settings):
    job = post_dataset(http, count=200)
    with working(settings.home):
        wait_for(lambda: processes_of(job))
        assert http.post(f"/api/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
        wait_for(lambda: not processes_of(job), seconds=15)
        wait_for(lambda: not (settings.home / "work" / job).exists(), seconds=15)
    assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "cancelled"


def test_killed_worker_takes_its_step_along_and_the_next_one_goes_on(http, settings):
    job = post_dataset(http, count=200)
    worker = start_worker(settings.home)
    wait_for(lambda: http.get(f"/api/v1/jobs/{job}").json()["progress"])
    os.kill(worker.pid, signal.SIGKILL)
    worker.wait()
    wait_for(lambda: len(processes_of(job)) == 0, seconds=5)
    assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "running"
    with working(settings.home):
        view = finished(http, job, seconds=60)
    assert view["status"] == "succeeded", view["error"]
    names = [event["event"] for event in http.get(f"/api/v1/jobs/{job}/events").json()["events"]]
    assert names.count("started") == 2
    assert altered_files(settings.home / "artifacts" / view["result"]["id"]) == []


def test_stopped_worker_leaves_its_job_to_the_next_one(http, settings):
    job = post_dataset(http, count=200)
    with working(settings.home):
        wait_for(lambda: processes_of(job))
    assert processes_of(job) == []
    assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "running"
    with working(settings.home):
        assert finished(http, job, seconds=60)["status"] == "succeeded"


def test_killed_step_fails_its_job_and_the_same_request_goes_on_from_there(http, settings):
    job = post_dataset(http, count=200)
    with working(settings.home):
        for process in wait_for(lambda: processes_of(job)):
            os.kill(process, signal.SIGKILL)
        view = finished(http, job)
        assert view["status"] == "failed"
        assert "SIGKILL" in view["error"]["found"]
        again = post_dataset(http, count=200)
        assert again != job
        assert finished(http, again, seconds=60)["status"] == "succeeded"
    left = [path.name for path in (settings.home / "work").iterdir()]
    assert [name for name in left if "." not in name] == [], "the crashed work was taken over"


def test_kill_between_move_and_row_loses_nothing(http, settings, engine):
    job = post_dataset(http)
    with working(settings.home):
        made = finished(http, job)["result"]["id"]
    with engine.begin() as connection:  # as if the worker had died before it wrote the row
        connection.exec_driver_sql("DELETE FROM artifact WHERE kind = 'dataset'")
        connection.exec_driver_sql("UPDATE job SET result = NULL")
        connection.exec_driver_sql("UPDATE workflow_status SET status = 'PENDING'")
        connection.exec_driver_sql("DELETE FROM operation_outputs")
    (settings.home / "work" / f"{job}.moved").write_text(made)
    with working(settings.home):
        assert finished(http, job)["result"]["id"] == made
    assert http.get(f"/api/v1/datasets/{made}").status_code == 200


def test_request_key_ignores_the_order_of_its_parts():
    one = queue.request_key("run", {"a": "1", "b": "2"}, {"x": 1, "y": 2})
    assert one == queue.request_key("run", {"b": "2", "a": "1"}, {"y": 2, "x": 1})
    assert one != queue.request_key("run", {"a": "1", "b": "2"}, {"x": 1, "y": 3})


def test_states_of_no_jobs_ask_nothing(engine):
    client = open_client(engine)
    assert queue.states_of(client, []) == {}
    client.destroy()
