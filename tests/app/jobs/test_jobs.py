import io
import json
import os
import resource
import shutil
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


def test_the_page_of_a_source_without_report(http):
    source = post_source(http)
    assert "This source has not been examined yet" in http.get(f"/sources/{source}").text
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
        assert "notes.txt" in view["error"]["text"] or "no image" in view["error"]["what"]
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


def test_cancel_a_queued_job(http, settings):
    job = post_dataset(http)
    assert http.post(f"/api/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
    assert http.post(f"/api/v1/jobs/{job}/cancel").status_code == 200
    other = post_dataset(http)
    assert other != job
    with working(settings.home):
        assert finished(http, other)["status"] == "succeeded"
    assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "cancelled"
    assert http.post(f"/api/v1/jobs/{other}/cancel").status_code == 409


def test_cancel_a_running_job(http, settings):
    job = post_dataset(http, count=200)
    with working(settings.home):
        wait_for(lambda: (settings.home / "work" / job).exists())
        assert http.post(f"/api/v1/jobs/{job}/cancel").json()["status"] == "cancelled"
        wait_for(lambda: not processes_of(job), seconds=15)
        wait_for(lambda: not (settings.home / "work" / job).exists(), seconds=15)
    assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "cancelled"


def test_a_killed_worker_kills_its_step_and_the_next_one_resumes(http, settings):
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


def test_the_next_worker_resumes_the_job_of_a_stopped_one(http, settings):
    job = post_dataset(http, count=200)
    with working(settings.home):
        wait_for(lambda: processes_of(job))
    assert processes_of(job) == []
    assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "running"
    with working(settings.home):
        assert finished(http, job, seconds=60)["status"] == "succeeded"


def test_a_killed_step_fails_its_job_and_a_repeated_request_resumes(http, settings):
    job = post_dataset(http, count=200)
    with working(settings.home):
        wait_for(lambda: (settings.home / "work" / job).exists())
        os.killpg(os.getpgid(processes_of(job)[0]), signal.SIGKILL)  # all at once
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


def test_request_key_does_not_depend_on_the_order_of_keys():
    one = queue.request_key("run", {"a": "1", "b": "2"}, {"x": 1, "y": 2})
    assert one == queue.request_key("run", {"b": "2", "a": "1"}, {"y": 2, "x": 1})
    assert one != queue.request_key("run", {"a": "1", "b": "2"}, {"x": 1, "y": 3})


def test_request_key_depends_on_the_version_of_the_step():
    keys = {
        queue.request_key(kind, {"source": "1"}, {}, version=version)
        for kind in queue.VERSIONS
        for version in (1, 2)
    }
    assert len(keys) == 2 * len(queue.VERSIONS)
    assert queue.request_key("doctor", {"source": "1"}, {}) in keys


def test_a_changed_step_runs_again_and_earlier_jobs_stay_unchanged(http, settings, engine):
    source = post_source(http)
    address = f"/api/v1/sources/{source}/doctor"
    job = http.post(address).json()["job"]
    with working(settings.home):
        before = finished(http, job)
        assert http.post(address).json()["job"] == job, "the same step is not done again"
        older = queue.request_key("doctor", {"source": source}, {}, version=0)
        for key in (older, "f" * 64):  # of a step before this one; of the time before versions
            with engine.begin() as connection:
                connection.exec_driver_sql("UPDATE job SET key = ? WHERE id = ?", (key, job))
            again = http.post(address).json()["job"]
            assert again != job
            assert finished(http, again)["status"] == "succeeded"
            assert http.get(f"/api/v1/jobs/{job}").json() == before
            assert http.get(before["links"]["result"]).json()["pairs"]
            job, before = again, http.get(f"/api/v1/jobs/{again}").json()


def test_altered_or_missing_results_are_recreated_on_request(http, settings):
    job = post_dataset(http)
    with working(settings.home):
        made = finished(http, job)["result"]["id"]
        folder = settings.home / "artifacts" / made
        image = next(folder.rglob("*.png"))
        for spoil in (lambda: image.write_bytes(b"altered"), lambda: shutil.rmtree(folder)):
            assert post_dataset(http) == job, "as long as it is whole"
            spoil()
            again = post_dataset(http)
            assert again != job
            assert finished(http, again)["result"]["id"] == made
            assert altered_files(folder) == []
            job = again
    assert [path.name for path in folder.parent.iterdir()] == [made]


def test_a_missing_report_is_recreated(http, settings):
    address = f"/api/v1/sources/{post_source(http)}/doctor"
    job = http.post(address).json()["job"]
    with working(settings.home):
        finished(http, job)
        shutil.rmtree(settings.home / "work" / job)
        assert http.get(address).status_code == 404
        assert finished(http, http.post(address).json()["job"])["status"] == "succeeded"
    assert len(http.get(address).json()["pairs"]) == 4


def test_altered_source_and_rules_are_repaired_by_uploading_them_again(http, settings):
    source, rules = post_source(http), http.post("/api/v1/rules", json=PAPER).json()["id"]
    stored = settings.home / "sources" / source
    image = next(stored.rglob("*.png"))
    kept = image.read_bytes()
    image.write_bytes(b"altered")
    document = settings.home / "rules" / f"{rules}.json"
    document.write_text("{}")
    assert post_source(http) == source
    assert http.post("/api/v1/rules", json=PAPER).json()["id"] == rules
    assert image.read_bytes() == kept
    assert json.loads(document.read_bytes())["width"] == int(PAPER["width"])
    assert [path.name for path in stored.parent.iterdir()] == [source]


def test_the_report_of_the_requested_job_is_shown(http, settings):
    source, rules = post_source(http), http.post("/api/v1/rules", json=PAPER).json()["id"]
    address = f"/api/v1/sources/{source}/doctor"
    plain = http.post(address).json()
    by_rules = http.post(address, json={"rules": rules}).json()
    other = post_dataset(http)
    with working(settings.home):
        for made in (plain, by_rules, {"job": other}):
            assert finished(http, made["job"])["status"] == "succeeded"
    again = http.post(address).json()
    assert again["job"] == plain["job"]
    shown = [http.get(made["links"]["result"]).json()["rules"] for made in (again, by_rules)]
    assert [rules.get("width") for rules in shown] == [None, int(PAPER["width"])]
    assert http.get(address).json()["rules"] == shown[1], "without a job the newest"
    pages = [f"/sources/{source}{page}?job={made['job']}"
             for page in ("", "/report.html") for made in (plain, by_rules)]  # fmt: skip
    texts = [http.get(page).text for page in pages]
    assert f'report.html?job={plain["job"]}"' in texts[0]
    assert texts[2] != texts[3], "the page, too, is that of the job"
    for none in (other, "x"):
        assert http.get(address, params={"job": none}).status_code == 404


def test_states_are_returned_for_the_requested_jobs(http, engine):
    job, other = post_dataset(http), post_dataset(http, count=5)
    client = open_client(engine)
    assert queue.job_states(client, []) == {}
    assert queue.job_states(client, [other]) == {other: queue.State.QUEUED}
    assert set(queue.job_states(client, [job, other])) == {job, other}
    client.destroy()


def test_a_job_with_missing_input_fails_and_leaves_no_process(http, settings):
    source = post_source(http)
    stored = settings.home / "sources" / source
    stored.rename(settings.home / "elsewhere")
    address = f"/api/v1/sources/{source}/doctor"
    job = http.post(address).json()["job"]
    with working(settings.home):
        view = finished(http, job)
        assert view["status"] == "failed"
        assert "missing on disk" in view["error"]["text"]
        assert view["finished_at"]
        assert processes_of(job) == []
        (settings.home / "elsewhere").rename(stored)
        again = http.post(address).json()["job"]
        assert finished(http, again)["status"] == "succeeded"


def test_a_job_that_cannot_be_stored_fails_and_its_work_is_reused(http, settings):
    job = post_dataset(http)
    (settings.home / "artifacts").write_text("in the way")
    with working(settings.home):
        view = finished(http, job)
        assert view["status"] == "failed"
        assert "FileExistsError" in view["error"]["found"]
        assert str(settings.home / "artifacts") in view["error"]["text"]
        (settings.home / "artifacts").unlink()
        again = post_dataset(http)
        assert finished(http, again)["status"] == "succeeded"
    events = http.get(f"/api/v1/jobs/{again}/events").json()["events"]
    assert "progress" not in [event["event"] for event in events], "nothing was made again"


def test_a_step_is_stopped_if_its_events_cannot_be_stored(http, settings, engine):
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "CREATE TRIGGER refuse BEFORE INSERT ON job_event WHEN NEW.event = 'progress' "
            "BEGIN SELECT RAISE(ABORT, 'no room for this event'); END"
        )
    job = post_dataset(http, count=200)
    with working(settings.home):
        view = finished(http, job)
        assert view["status"] == "failed"
        assert "no room for this event" in view["error"]["found"]
        assert processes_of(job) == [], "ended before the job was settled"
        with engine.begin() as connection:
            connection.exec_driver_sql("DROP TRIGGER refuse")
        again = post_dataset(http, count=200)
        assert finished(http, again, seconds=60)["status"] == "succeeded"


def test_a_failure_is_recorded_once_the_database_has_space(http, settings):
    job = post_dataset(http, count=200)
    with working(settings.home) as worker:
        wait_for(lambda: http.get(f"/api/v1/jobs/{job}").json()["progress"])
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        wait_for(lambda: processes_of(job) == [])
        assert http.get(f"/api/v1/jobs/{job}").json()["status"] == "running"
        room = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, room)
        view = finished(http, job)
        assert view["status"] == "failed"
        assert "OperationalError" in view["error"]["found"]
        again = post_dataset(http, count=200)
        assert finished(http, again, seconds=60)["status"] == "succeeded"


def test_a_job_recovered_too_often_fails_with_a_reason(http, engine):
    job = post_dataset(http)
    with engine.begin() as connection:
        connection.exec_driver_sql(
            "UPDATE workflow_status SET status = 'MAX_RECOVERY_ATTEMPTS_EXCEEDED'"
        )
    view = http.get(f"/api/v1/jobs/{job}").json()
    assert view["status"] == "failed"
    assert "see its log" in view["error"]["remedy"]
