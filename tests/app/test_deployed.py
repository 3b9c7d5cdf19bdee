"""What a deployed service needs: separate processes, a proxy, migrations, readiness."""

import io
import json
import os
import resource
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import httpx
import pytest

from app.access.tokens import Role, create_token
from app.ground.errors import AppError, Conflict
from app.store.db import migrate
from dataset_rules.artifacts.provenance import provenance_document
from tests.app.conftest import browsing, drawn_zip, wait_for, working


@contextmanager
def command(home: Path, *words: str, **environment: str):
    """A running `unetops` command, stopped by SIGTERM."""
    with (home.parent / "command.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", *words, "--data", str(home)],
            stdout=log, stderr=log, env={**os.environ, **environment},
        )  # fmt: skip
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(40)


@contextmanager
def web(home: Path, **environment: str):
    """A client of `unetops web` on a free port."""
    log = home.parent / "command.log"
    before = log.read_text().count("web on http") if log.exists() else 0
    with command(home, "web", "--port", "0", **environment):
        wait_for(lambda: log.exists() and log.read_text().count("web on http") > before)
        address = log.read_text().split("web on ")[-1].split()[0]
        with httpx.Client(base_url=address, trust_env=False, timeout=30) as client:
            wait_for(lambda: client.get("/healthz").is_success)
            yield client


def ended(home: Path, *words: str, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "app.cli", *words, "--data", str(home)],
        capture_output=True, text=True, timeout=60, check=False,
        env={**os.environ, **environment},
    )  # fmt: skip


def test_behind_https_cookies_are_secure_and_forms_are_bound_to_the_public_host(settings, engine):
    token = create_token(engine, Role.ADMIN)
    proxied = {"host": "cells.example", "x-forwarded-proto": "https", "x-forwarded-for": "10.1.2.3"}
    page = {"accept": "text/html"}
    with web(settings.home) as http:
        answer = http.get("/", headers={**proxied, **page})
        assert "secure" in answer.headers["set-cookie"].lower()
        proof = answer.text.split('name="csrf_token" value="')[1].split('"')[0]
        cookie = answer.headers["set-cookie"].split(";")[0]
        form = {"secret": token.secret, "csrf_token": proof}
        ours = {**proxied, "cookie": cookie, "origin": "https://cells.example"}
        answer = http.post("/login", data=form, headers=ours)
        assert answer.status_code == 303, answer.text
        assert "secure" in answer.headers["set-cookie"].lower()
        assert not answer.headers["location"].startswith("http:")
        ours["cookie"] += "; " + answer.headers["set-cookie"].split(";")[0]
        foreign = {**ours, "origin": "https://evil.example"}
        assert http.post("/logout", data=form, headers=foreign).status_code == 403
        assert http.post("/logout", data=form, headers=ours).status_code == 303
        plain = http.get("/", headers=page)
        assert "secure" not in plain.headers["set-cookie"].lower()


def test_a_remote_proxy_is_never_trusted(settings, engine):
    with web(settings.home, FORWARDED_ALLOW_IPS="*", UNETOPS_ALLOW_OPEN="1") as http:
        assert http.get("/api/v1/jobs").status_code == 200, "open on this machine"
        through = {"x-forwarded-for": "127.0.0.1, 10.1.2.3"}
        assert http.get("/api/v1/jobs", headers=through).status_code == 401


def test_http_1_0_is_not_served_without_a_token(settings, engine):
    """nginx by default adds no header, sends a local Host and speaks HTTP/1.0."""
    with web(settings.home, UNETOPS_ALLOW_OPEN="1") as http:
        for version, status in ((b"1.0", b"401"), (b"1.1", b"200")):
            head = b"GET /api/v1/jobs HTTP/%s\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"
            with socket.create_connection((http.base_url.host, http.base_url.port), 30) as wire:
                wire.sendall(head % version)
                assert wire.makefile("rb").readline().split()[1] == status


@pytest.mark.parametrize(
    ("command", "environment"), [("web", {}), ("serve", {"FORWARDED_ALLOW_IPS": "*"})]
)
def test_no_open_access_behind_a_possible_proxy(settings, engine, command, environment):
    done = ended(settings.home, command, "--port", "0", **environment)
    assert done.returncode == 2
    assert "without a token the service does not start behind a possible proxy" in done.stderr
    assert "unetops token create --role admin" in done.stderr
    assert "UNETOPS_ALLOW_OPEN=1" in done.stderr


def test_behind_a_proxy_a_service_that_requires_tokens_starts_without_one(settings, engine):
    with web(settings.home, UNETOPS_REQUIRE_AUTH="1") as http:
        assert http.get("/api/v1/jobs").status_code == 401


def test_readiness_needs_no_token_only_on_this_machine_and_reports_the_release(
    app, engine, settings
):
    create_token(engine, Role.VIEWER)
    with browsing(app) as http:
        answer = http.get("/readyz")
        assert (answer.status_code, answer.json()["worker"]) == (503, False)
        assert http.get("/readyz", headers={"x-forwarded-for": "127.0.0.1"}).status_code == 401
        assert http.get("/readyz", headers={"host": "cells.example"}).status_code == 401
        with working(settings.home):
            ready = wait_for(lambda: (view := http.get("/readyz").json())["worker"] and view)
            wait_for(lambda: http.get("/readyz").json()["worker_release"] == ready["release"])
        assert http.get("/readyz").json()["worker_release"] is None
    with browsing(app, "10.1.2.3") as http:
        assert http.get("/readyz").status_code == 401


def test_backup_is_one_file_including_the_job_queue(settings, engine, tmp_path):
    token = create_token(engine, Role.VIEWER)
    done = ended(settings.home, "migrate", "--backup", str(tmp_path / "backups"))
    assert done.returncode == 0, done.stderr
    copy = Path(done.stdout.strip())
    assert [path.name for path in copy.parent.iterdir()] == [copy.name]
    assert copy.stat().st_mode & 0o777 == 0o600
    with sqlite3.connect(copy) as database:
        assert database.execute("SELECT id FROM token").fetchall() == [(token.id,)]
        assert database.execute("SELECT count(*) FROM workflow_status").fetchone() == (0,)
    database.close()


def test_without_a_database_no_backup_is_made(settings, tmp_path):
    assert migrate(settings, tmp_path / "backups") is None
    assert settings.database.exists()
    assert not (tmp_path / "backups").exists()


def test_a_backup_without_disk_space_leaves_nothing_and_changes_nothing(settings, engine, tmp_path):
    with sqlite3.connect(settings.database) as database:
        database.execute("CREATE TABLE filler AS SELECT zeroblob(4000000) AS bytes")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    database.close()
    backups = tmp_path / "backups"
    words = ["migrate", "--data", str(settings.home), "--backup", str(backups)]
    done = subprocess.run(
        [sys.executable, "-m", "app.cli", *words], capture_output=True, text=True, timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20)),
    )  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert "could not be backed up, nothing was changed" in done.stderr
    assert list(backups.iterdir()) == []


def test_backup_removes_leftovers_of_a_killed_one(settings, engine, tmp_path):
    for end in (".part", ".part-journal"):
        (tmp_path / f"unetops-20260101T000000.000000Z{end}").touch()
    copy = migrate(settings, tmp_path)
    assert copy.stat().st_size > 0
    assert list(tmp_path.glob("unetops-*")) == [copy]


def test_a_damaged_database_is_not_backed_up(settings, engine, tmp_path):
    engine.dispose()
    with sqlite3.connect(settings.database) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        size, root = (
            database.execute(question).fetchone()[0]
            for question in ("PRAGMA page_size", "SELECT rootpage FROM sqlite_master"
                             " WHERE name = 'token'")
        )  # fmt: skip
    database.close()
    with settings.database.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xff" * size)
    with pytest.raises(AppError, match="damaged"):
        migrate(settings, tmp_path / "backups")
    assert list((tmp_path / "backups").iterdir()) == []


def test_the_empty_file_of_a_killed_first_migration_is_not_backed_up(settings, tmp_path):
    settings.home.mkdir(exist_ok=True)
    settings.database.touch()
    assert migrate(settings, tmp_path / "backups") is None
    assert not (tmp_path / "backups").exists()


def test_a_database_of_a_newer_release_is_refused_and_unchanged(settings, engine, tmp_path):
    with engine.begin() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(Conflict, match="newer release"):
        migrate(settings, tmp_path / "backups")
    assert not (tmp_path / "backups").exists()
    for words in (["migrate"], ["web", "--port", "0"], ["worker"]):
        done = ended(settings.home, *words)
        assert done.returncode == 2
        assert "9999" in done.stderr, words


def test_a_data_directory_has_one_worker(settings, engine):
    with command(settings.home, "worker"):
        wait_for(lambda: (settings.home / "worker.lock").exists())
        done = ended(settings.home, "worker")
    assert done.returncode == 2
    assert "already in use" in done.stderr


def test_provenance_records_the_deployment(monkeypatch):
    now = datetime.now(UTC)
    plain = provenance_document("0" * 64, (), started=now)
    assert "deployment" not in plain
    monkeypatch.setenv("UNETOPS_STACK", "dev")
    monkeypatch.setenv("UNETOPS_DROPLET", "unetops-dev")
    made = provenance_document("0" * 64, (), started=now)
    assert made["deployment"] == {"stack": "dev", "droplet": "unetops-dev"}
    assert json.loads(json.dumps(made))["commit"] == plain["commit"]


def test_a_second_web_process_keeps_the_uploads_of_the_first(settings, engine):
    left = settings.uploads / f"{'0' * 32}-cut-off"
    left.write_bytes(b"of a process that was killed")
    data, may_end = drawn_zip(), threading.Event()
    files = {"file": ("set.zip", Slow(data, may_end))}
    with web(settings.home, UNETOPS_ALLOW_OPEN="1") as http, ThreadPoolExecutor(1) as pool:
        assert not left.exists()
        sending = pool.submit(http.post, "/api/v1/sources", files=files)
        wait_for(lambda: any(path.stat().st_size for path in settings.uploads.iterdir()))
        with web(settings.home, UNETOPS_ALLOW_OPEN="1") as other:
            assert other.get("/healthz").is_success
            assert list(settings.uploads.iterdir()), "it is still coming in"
            may_end.set()
            answer = sending.result()
            assert answer.status_code == 201, answer.text
            assert list(settings.uploads.iterdir()) == []


class Slow(io.BytesIO):
    """A file whose second half is sent once `may_end` is set."""

    def __init__(self, data: bytes, may_end: threading.Event) -> None:
        super().__init__(data)
        self._half, self._may_end = len(data) // 2, may_end

    def read(self, size: int | None = -1) -> bytes:
        position = self.tell()
        if position < self._half:
            return super().read(self._half - position)
        self._may_end.wait(60)
        return super().read(size)
