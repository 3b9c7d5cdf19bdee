"""The packed host program, with a folder as the machine's root.

systemctl, journalctl and pip are stubs on the PATH; files, links, SQLite and HTTP are real, and
where the database matters (`served`) so are the service's migration and backup.
"""

import fcntl
import hashlib
import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from infra.host_program import host_program
from infra.units import UNITS

ROOT = Path(__file__).resolve().parents[2]
BODY = bytes(range(256)) * 400
# Stands for the environment's python: `-m pip install --target` lays a release, `-m app.cli` is it.
# Where the service's own code is at hand (REAL), `migrate` is that code, backup and all; the table
# that is made afterwards stands for the migration that a later release brings.
PYTHON = """\
import os, pathlib, resource, sqlite3, subprocess, sys, time, zipfile
words = sys.argv[1:]
log = pathlib.Path(os.environ["FAKE"]) / "calls"
with log.open("a") as file:
    print(" ".join(words), file=file)
if "--target" in words:
    to = pathlib.Path(words[words.index("--target") + 1])
    to.mkdir(parents=True)
    with zipfile.ZipFile(words[-1]) as wheel:
        wheel.extractall(to)
if words[:3] == ["-m", "app.cli", "migrate"] and "REAL" in os.environ:
    own = {**os.environ, "PYTHONPATH": os.environ["REAL"]}
    room = int(os.environ.get("ROOM", "-1"))
    code = subprocess.call(
        [sys.executable, *words], env=own,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (room, room)),
    )
    name = os.environ["UNETOPS_COMMIT"]
    if code == 0 and not name.startswith("same"):
        with sqlite3.connect(pathlib.Path(os.environ["UNETOPS_HOME"]) / "unetops.db") as db:
            db.execute(f"CREATE TABLE IF NOT EXISTS made_by_{name} (a)")
    if code:
        sys.exit(code)
if words[:3] == ["-m", "app.cli", "migrate"]:
    time.sleep(float(os.environ.get("SLOW", "0")))
if words[:3] == ["-m", "app.cli", "token"]:
    tokens = pathlib.Path(os.environ["UNETOPS_HOME"]) / "tokens"
    if words[3] == "create":
        tokens.write_text('[{"role": "admin", "state": "valid"}]')
        print("secret-of-the-token")
    else:
        print(tokens.read_text() if tokens.exists() else "[]")
"""
PYTHON3 = """\
#!/bin/sh
echo "$@" >>$FAKE/calls
mkdir -p "$3/bin"
printf '#!/bin/sh\\nexec %s %s "$@"\\n' "$PYTHON" "$FAKE/python.py" >"$3/bin/python"
chmod +x "$3/bin/python"
"""
SYSTEMCTL = """\
#!/bin/sh
[ "$1" != show ] || exit 0
echo "systemctl $@" >>$FAKE/calls
[ "$1" != stop ] || rm -f $FAKE/up
[ "$1" != start ] || touch $FAKE/up
"""


class Box:
    """A folder that acts as the machine, with a simulated service."""

    def __init__(self, folder: Path) -> None:
        self.root, self.fake = folder / "root", folder / "fake"
        for name in ("srv/unetops/home", "etc/unetops", "var/lib/unetops"):
            (self.root / name).mkdir(parents=True)
        self.home = self.root / "srv/unetops/home"
        self.given = {"UNETOPS_HOME": str(self.home), "FAKE": str(self.fake)}
        self.fake.mkdir()
        (self.fake / "python.py").write_text(PYTHON)
        programs = {"python3": PYTHON3, "systemctl": SYSTEMCTL}
        programs["journalctl"] = "#!/bin/sh\necho the last words of the service\n"
        for name, text in programs.items():
            (self.fake / name).write_text(text)
            (self.fake / name).chmod(0o755)
        self.program = folder / "unetops-host"
        self.program.write_bytes(host_program())
        self.lock = folder / "requirements.lock"
        self.lock.write_text("numpy==1\n")
        self.database = self.home / "unetops.db"
        self.files = {"/images.zip": BODY}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        box = self

        class Service(BaseHTTPRequestHandler):
            cuts: ClassVar[list[int]] = []

            def do_GET(self) -> None:
                if self.path in box.files:
                    return self._file(box.files[self.path])
                well = (box.fake / "up").exists() and "broken" not in (box.serves or "broken")
                self.send_response(200 if well else 503)
                self.end_headers()
                return None

            def _file(self, body: bytes) -> None:
                start = int(self.headers.get("Range", "bytes=0-")[6:-1])
                tag = f'"{hashlib.sha256(body).hexdigest()[:8]}"'
                if self.headers.get("If-None-Match") == tag:
                    self.send_response(304)
                    return self.end_headers()
                if self.headers.get("If-Range", tag) != tag:
                    start = 0
                self.send_response(206 if start else 200)
                self.send_header("ETag", tag)
                self.send_header("Content-Length", str(len(body) - start))
                if start:
                    self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
                self.end_headers()
                self.cuts.append(start)
                first = len(self.cuts) == 1
                self.wfile.write(body[start : len(body) // 2 if first else None])
                return None

            def log_message(self, *_: object) -> None:
                pass

        self.service = Service
        return Service

    @property
    def serves(self) -> str | None:
        link = self.root / "opt/unetops/current"
        return link.readlink().name if link.is_symlink() else None

    def ask(self, question: str) -> list[tuple]:
        with closing(sqlite3.connect(self.database)) as opened, opened:
            return opened.execute(question).fetchall()

    @property
    def tables(self) -> set[str]:
        return {row[0] for row in self.ask("SELECT name FROM sqlite_master")}

    def pend(self, step: str) -> Path:
        """Record an interrupted release `two`; returns the folder of its backups."""
        backups = self.root / "srv/unetops/backups/1-two"
        backups.mkdir(parents=True)
        noted = {"id": "two", "before": "one", "previous": None, "backups": str(backups)}
        file = self.root / "var/lib/unetops/pending.json"
        file.write_text(json.dumps({**noted, "step": step}))
        return backups

    @property
    def calls(self) -> list[str]:
        file = self.fake / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def start(self, *words: str, **given: object) -> subprocess.Popen[str]:
        code = textwrap.dedent(f"""
            import sys
            from pathlib import Path
            sys.path.insert(0, {str(self.program)!r})
            from infra.machine.unetops_host.__main__ import main
            from infra.machine.unetops_host.machine import Machine
            machine = Machine(Path({str(self.root)!r}), {self.url!r}, 1.0, "nobody of this machine")
            sys.exit(main(sys.argv[1:], machine))
            """)
        environment = {"PATH": f"{self.fake}:/usr/bin:/bin", "FAKE": str(self.fake)}
        lines = [f"{name}={value}\n" for name, value in {**self.given, **given}.items()]
        (self.root / "etc/unetops/environment").write_bytes(os.fsencode("".join(lines)))
        return subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, *words], text=True, start_new_session=True,
            env={**environment, "PYTHON": sys.executable},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str, **given: object) -> subprocess.CompletedProcess[str]:
        with self.start(*words, **given) as process:
            out, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, errors)

    def release(self, name: str, **given: object) -> subprocess.CompletedProcess[str]:
        return self.run(*self.words(name), **given)

    def words(self, name: str) -> list[str]:
        wheel = self.root / f"unetops-{name}.whl"
        with zipfile.ZipFile(wheel, "w") as archive:
            archive.writestr("unetops-1.dist-info/METADATA", "Requires-Dist: numpy\n")
        return ["release", "--id", name, "--wheel", str(wheel), "--lock", str(self.lock)]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    made = Box(tmp_path)
    yield made
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database created by the service, plus a table of ours with a row."""
    home = tmp_path_factory.mktemp("made")
    command = [sys.executable, "-m", "app.cli", "migrate", "--data", str(home)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, timeout=120)
    with closing(sqlite3.connect(home / "unetops.db")) as opened, opened:
        opened.execute("CREATE TABLE mine AS SELECT 1 AS a")
    return home / "unetops.db"


@pytest.fixture
def served(box: Box, database: Path) -> Box:
    """A machine whose releases migrate and back up with the service's own code; `one` serves.

    Each migration takes seconds, so tests that need it are marked `system`.
    """
    assert box.release("one").returncode == 0
    shutil.copyfile(database, box.database)
    box.given["REAL"] = str(ROOT)
    return box


def test_first_release_serves(box: Box):
    done = box.release("one")
    assert done.returncode == 0, done.stderr
    assert box.serves == "one"
    assert json.loads(
        (box.root / "opt/unetops/current/release.json").read_text()
    )["id"] == "one"  # fmt: skip


@pytest.mark.system
def test_second_release_stops_the_workers_before_the_web_and_backs_up_before_it_starts(
    served: Box,
):
    box = served
    (box.fake / "calls").unlink()
    assert box.release("two").returncode == 0
    told = [call for call in box.calls if "systemctl" in call or "migrate" in call]
    fetcher, worker, web, migrate, start = told
    assert fetcher == "systemctl stop unetops-fetcher.service"
    assert worker == "systemctl stop unetops-worker.service"
    assert web == "systemctl stop unetops-web.service"
    assert " migrate --backup " in migrate
    assert start == f"systemctl start {' '.join(UNITS)}"
    assert (box.root / "opt/unetops/previous").readlink().name == "one"


def test_same_release_again_stops_nothing(box: Box):
    box.release("one")
    (box.fake / "calls").unlink()
    assert box.release("one").returncode == 0
    assert box.calls == [f"systemctl start {' '.join(UNITS)}"]


def test_environment_is_shared_until_the_lock_changes(box: Box):
    box.release("one")
    box.release("two")
    assert len(list((box.root / "opt/unetops/base").iterdir())) == 1
    box.lock.write_text("numpy==2\n")
    box.release("three")
    found = [path.name for path in (box.root / "opt/unetops/base").iterdir()]
    assert len(found) == 2
    wanted = hashlib.sha256(box.lock.read_bytes()).hexdigest()[:16]
    assert [name for name in found if name.startswith(wanted)]


def _bases(box: Box) -> set[str]:
    return {path.name for path in (box.root / "opt/unetops/base").iterdir()}


def _serving(box: Box) -> dict[str, str]:
    return json.loads((box.root / "opt/unetops/current/release.json").read_text())


def test_same_release_on_another_index_of_torch_serves_from_there(box: Box):
    words = box.words("one")
    assert box.run(*words, "--torch-index", "https://torch.example/cpu").returncode == 0
    first = _serving(box)["base"]
    again = box.run(*words, "--torch-index", "https://torch.example/cu126")
    assert again.returncode == 0, again.stderr
    assert _serving(box)["base"] != first
    assert [call for call in box.calls if "--extra-index-url https://torch.example/cu126" in call]
    assert json.loads(box.run("status").stdout)["release"] == "one"
    script = (box.root / "opt/unetops/current/run").read_text()
    assert "UNETOPS_COMMIT=one\n" in script
    (box.fake / "calls").unlink()
    assert box.run(*words, "--torch-index", "https://torch.example/cu126").returncode == 0
    assert box.calls == [f"systemctl start {' '.join(UNITS)}"]
    assert box.run(*words, "--torch-index", "https://torch.example/cpu").returncode == 0
    assert _serving(box)["base"] == first


def test_index_that_is_taken_away_is_not_that_of_first_boot(box: Box):
    (box.root / "etc/unetops/machine.json").write_text('{"torch_index": "https://torch.example/a"}')
    box.release("one")
    assert [call for call in box.calls if "--extra-index-url https://torch.example/a" in call]
    (box.fake / "calls").unlink()
    assert box.run(*box.words("one"), "--torch-index", "").returncode == 0
    (base,) = [call for call in box.calls if f" -c {box.lock} " in call]
    assert "--extra-index-url" not in base


def test_same_release_on_another_lock_serves_from_there(box: Box):
    box.release("one")
    first = _serving(box)["base"]
    box.lock.write_text("numpy==2\n")
    assert box.release("one").returncode == 0
    assert _serving(box)["base"] != first
    assert _bases(box) == {first, _serving(box)["base"]}


@pytest.mark.system
def test_broken_release_is_rolled_back_with_its_migration_and_the_last_words(served: Box):
    box = served
    before = box.tables
    done = box.release("broken")
    assert done.returncode == 1
    assert "the last words of the service" in done.stderr
    assert "one serves again" in done.stderr
    assert box.serves == "one"
    assert box.tables == before
    assert (box.fake / "up").exists()
    assert not (box.root / "var/lib/unetops/pending.json").exists()


@pytest.mark.system
def test_broken_release_without_migration_keeps_what_was_written_meanwhile(served: Box):
    box = served
    with box.start(*box.words("samebroken")) as process:
        _until(lambda: box.serves == "samebroken")
        box.ask("INSERT INTO mine VALUES (2)")
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert box.serves == "one"
    assert box.ask("SELECT a FROM mine") == [(1,), (2,)]


def test_broken_first_release_leaves_none(box: Box):
    done = box.release("broken")
    assert done.returncode == 1
    assert "release broken failed" in done.stderr
    assert box.serves is None
    assert not (box.fake / "up").exists()


@pytest.mark.system
def test_killed_release_is_taken_back_by_recover(served: Box):
    box = served
    before = box.tables
    _kill(box, "two", lambda: "made_by_two" in box.tables, SLOW=30)
    assert box.run("recover").returncode == 0
    assert box.serves == "one"
    assert box.tables == before
    assert (box.fake / "up").exists()


@pytest.mark.system
def test_release_killed_while_its_health_is_waited_for_is_judged_by_the_next_run(served: Box):
    box = served
    _kill(box, "broken", lambda: box.serves == "broken" and (box.fake / "up").exists())
    assert box.run("recover").returncode == 0
    assert box.serves == "one"
    assert "made_by_broken" not in box.tables


def _backups(box: Box) -> list[Path]:
    return list((box.root / "srv/unetops/backups").glob("*-two/*"))


@pytest.mark.system
@pytest.mark.parametrize(
    "moment",
    [
        lambda box: "systemctl stop unetops-worker.service" in box.calls,
        lambda box: any(" migrate " in call for call in box.calls),
        lambda box: bool(_backups(box)),
        lambda box: "made_by_two" in box.tables,
        lambda box: box.serves == "two",
    ],
    ids=["stop", "migration", "backup", "migrated", "switched"],
)
def test_release_killed_at_any_time_converges(served: Box, moment):
    _kill(served, "two", lambda: moment(served), SLOW=0.2)
    done = served.release("two")
    assert done.returncode == 0, done.stderr
    assert served.serves == "two"
    assert served.ask("SELECT a FROM mine") == [(1,)]
    assert "made_by_two" in served.tables


WRECKS = {
    "empty part": ("unetops-2.part", lambda whole: b""),
    "part": ("unetops-2.part", lambda whole: whole[: len(whole) // 2]),
    "empty": ("unetops-2.db", lambda whole: b""),
    "cut off": ("unetops-2.db", lambda whole: whole[: len(whole) // 2]),
    "not SQLite": ("unetops-2.db", lambda whole: b"x" * len(whole)),
}


@pytest.mark.system
@pytest.mark.parametrize("wreck", WRECKS)
def test_only_a_whole_backup_takes_the_databases_place(served: Box, wreck: str):
    backups, before = served.pend("migrating"), served.database.read_bytes()
    name, of = WRECKS[wreck]
    (backups / name).write_bytes(of(before))
    assert served.run("recover").returncode == 0
    assert served.database.read_bytes() == before
    assert served.serves == "one"


@pytest.mark.system
def test_sqlite_file_without_our_tables_is_no_backup(served: Box):
    backups, before = served.pend("migrating"), served.database.read_bytes()
    with closing(sqlite3.connect(backups / "unetops-1.db")) as opened, opened:
        opened.execute("CREATE TABLE other (a)")
    assert served.run("recover").returncode == 0
    assert served.database.read_bytes() == before


@pytest.mark.system
def test_disk_that_is_full_while_it_is_backed_up_costs_no_row(served: Box):
    served.ask("CREATE TABLE filler AS SELECT zeroblob(4000000) AS bytes")
    done = served.release("two", ROOM=1 << 20)
    assert done.returncode == 1
    assert "could not be backed up, nothing was changed" in done.stderr
    assert "one serves again" in done.stderr
    assert (served.fake / "up").exists()
    assert _backups(served) == []
    assert served.ask("SELECT a FROM mine") == [(1,)]


@pytest.mark.system
def test_restoring_that_was_cut_off_is_done_by_the_next_run(served: Box):
    served.pend("migrating")
    shutil.copyfile(served.database, served.home / "unetops.restoring")
    served.ask("DELETE FROM mine")  # the adjacent file's content is lost, the tables are equal
    assert served.run("recover").returncode == 0
    assert served.ask("SELECT a FROM mine") == [(1,)]


def _backups_are_a_file(box: Box) -> None:
    (box.root / "srv/unetops/backups").write_text("")


def _environment_is_no_text(box: Box) -> None:
    box.given["A"] = os.fsdecode(b"\xff")


def _notes_cannot_be_written_twice(box: Box) -> None:
    stop = f'[ "$1" != stop ] || mkdir -p {box.root}/var/lib/unetops/pending.json.new'
    (box.fake / "systemctl").write_text(f"{SYSTEMCTL}{stop}\n")


@pytest.mark.parametrize(
    "spoil", [_backups_are_a_file, _environment_is_no_text, _notes_cannot_be_written_twice]
)
def test_whatever_fails_after_the_stop_the_old_release_serves_again(box: Box, spoil):
    assert box.release("one").returncode == 0
    shutil.rmtree(box.root / "srv/unetops/backups")
    spoil(box)
    done = box.release("two")
    assert done.returncode == 1, done.stderr
    assert "one serves again" in done.stderr
    assert box.calls[-1] == f"systemctl start {' '.join(UNITS)}"
    assert (box.fake / "up").exists()
    assert box.serves == "one"
    assert not (box.root / "var/lib/unetops/pending.json").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_release_that_is_told_to_end_is_taken_back_first(box: Box, number: signal.Signals):
    assert box.release("one").returncode == 0
    with box.start(*box.words("two"), SLOW=30) as process:
        _until(lambda: any(" migrate " in call for call in box.calls[-1:]))
        process.send_signal(number)
        process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert (box.fake / "up").exists()
    assert box.serves == "one"
    assert not (box.root / "var/lib/unetops/pending.json").exists()


def test_old_release_is_started_though_taking_back_fails_and_recover_tries_again(box: Box):
    assert box.release("one").returncode == 0
    refuse = '[ "$1" != stop ] || [ ! -e $FAKE/refuses ] || exit 1'
    (box.fake / "systemctl").write_text(f"{SYSTEMCTL}{refuse}\n")
    (box.fake / "refuses").touch()
    done = box.release("two")
    assert done.returncode == 1
    assert "and so did its rollback, `unetops-host recover` retries it" in done.stderr
    assert (box.fake / "up").exists()
    assert (box.root / "var/lib/unetops/pending.json").exists()
    (box.fake / "refuses").unlink()
    assert box.run("recover").returncode == 0
    assert not (box.root / "var/lib/unetops/pending.json").exists()
    assert box.serves == "one"


def test_release_that_was_cut_off_and_cannot_be_started_is_taken_back(box: Box):
    assert box.release("one").returncode == 0
    assert box.release("two").returncode == 0
    box.pend("switched")
    refuse = '[ "$1" != start ] || [ "$(readlink $ROOT/current)" = releases/one ] || exit 1'
    text = SYSTEMCTL + refuse.replace("$ROOT", str(box.root / "opt/unetops"))
    (box.fake / "systemctl").write_text(text + "\n")
    assert box.run("recover").returncode == 0
    assert box.serves == "one"


def test_three_releases_are_kept_and_the_serving_one_among_them(box: Box):
    for name in ("one", "two", "three", "four"):
        assert box.release(name).returncode == 0
    found = {path.name for path in (box.root / "opt/unetops/releases").iterdir()}
    assert found == {"two", "three", "four"}
    assert len(list((box.root / "srv/unetops/backups").iterdir())) == 3


@pytest.mark.parametrize("name", ["../evil", ".hidden", "a b", ""])
def test_name_that_is_no_name_is_refused(box: Box, name: str):
    done = box.run("release", "--id", name, "--source", "x", "--lock", "y")
    assert done.returncode == 1
    assert "invalid release id" in done.stderr


def test_missing_wheel_is_named(box: Box):
    done = box.run("release", "--id", "a", "--wheel", "/none.whl", "--lock", str(box.lock))
    assert done.returncode == 1
    assert "no wheel at /none.whl" in done.stderr


def test_health_tells_what_does_not_answer(box: Box):
    done = box.run("health")
    assert done.returncode == 1
    assert "/readyz: 503" in done.stderr
    assert "the last words of the service" in done.stderr


def test_token_is_shown_once(box: Box):
    box.release("one")
    assert box.run("token").stdout == "secret-of-the-token\n"
    again = box.run("token")
    assert (again.returncode, again.stdout) == (1, "")
    assert "--new creates another" in again.stderr
    assert box.run("token", "--new").stdout == "secret-of-the-token\n"


def test_token_before_a_release_is_refused(box: Box):
    done = box.run("token")
    assert done.returncode == 1
    assert "no release serves yet" in done.stderr


def test_status_names_releases(box: Box):
    box.release("one")
    box.release("two")
    found = json.loads(box.run("status").stdout)
    assert (found["release"], found["previous"]) == ("two", "one")
    assert found["pending"] is False


def _incoming(box: Box) -> list[Path]:
    found = (box.root / "srv/unetops/incoming").iterdir()
    return [path for path in found if not path.name.startswith(".")]


def test_addresses_that_end_in_one_name_are_files_of_their_own(box: Box):
    other = BODY[::-1]
    box.files = {"/a/images.zip": BODY, "/b/images.zip": other}
    found = []
    for address, body in box.files.items():
        sha256 = hashlib.sha256(body).hexdigest()
        done = box.run("fetch", f"{box.url}{address}#sha256={sha256}")
        assert done.returncode == 0, done.stderr
        found.append(Path(done.stdout.strip()))
    assert [path.read_bytes() for path in found] == [BODY, other]
    assert all(path.name.endswith("-images.zip") for path in found)


def test_part_of_another_address_is_not_gone_on_with(box: Box):
    box.files = {"/a/images.zip": BODY, "/b/images.zip": BODY[::-1]}
    parts = box.root / "srv/unetops/incoming"
    with box.start("fetch", f"{box.url}/a/images.zip") as process:
        _until(lambda: any(path.stat().st_size for path in parts.glob("*-images.zip*")))
        process.kill()
        process.communicate()
    done = box.run("fetch", f"{box.url}/b/images.zip")
    assert Path(done.stdout.strip()).read_bytes() == BODY[::-1], done.stderr


def test_file_that_was_fetched_is_asked_for_again_and_sent_only_if_it_changed(box: Box):
    first = box.run("fetch", f"{box.url}/images.zip").stdout
    sent = len(box.service.cuts)
    assert box.run("fetch", f"{box.url}/images.zip").stdout == first
    assert len(box.service.cuts) == sent
    box.files["/images.zip"] = b"new"
    again = box.run("fetch", f"{box.url}/images.zip").stdout
    assert (again, Path(again.strip()).read_bytes()) == (first, b"new")


def test_part_of_a_file_that_has_changed_since_is_not_gone_on_with(box: Box):
    box.files["/images.zip"] = BODY
    parts = box.root / "srv/unetops/incoming"
    with box.start("fetch", f"{box.url}/images.zip") as process:
        _until(lambda: any(path.stat().st_size for path in parts.glob("*-images.zip*")))
        process.kill()
        process.communicate()
    box.files["/images.zip"] = BODY[::-1]
    done = box.run("fetch", f"{box.url}/images.zip")
    assert Path(done.stdout.strip()).read_bytes() == BODY[::-1], done.stderr


def test_checksum_that_is_none_is_refused(box: Box):
    done = box.run("fetch", f"{box.url}/images.zip#sha256=12")
    assert done.returncode == 1
    assert "expected #sha256= and 64 digits" in done.stderr


def test_fetch_goes_on_after_a_cut(box: Box):
    wanted = hashlib.sha256(BODY).hexdigest()
    done = box.run("fetch", f"{box.url}/images.zip#sha256={wanted}")
    assert done.returncode == 0, done.stderr
    assert Path(done.stdout.strip()).read_bytes() == BODY
    assert box.service.cuts == [0, len(BODY) // 2]


def test_fetch_with_another_checksum_is_refused_and_removed(box: Box):
    done = box.run("fetch", f"{box.url}/images.zip#sha256={'0' * 64}")
    assert done.returncode == 1
    assert f"expected sha256 {'0' * 64}" in done.stderr
    assert _incoming(box) == []


def test_fetch_of_a_local_file_is_refused(box: Box):
    done = box.run("fetch", "file:///etc/passwd")
    assert done.returncode == 1
    assert "expected http(s)://.../FILE" in done.stderr


def test_unit_that_ends_again_and_again_is_not_waited_for(box: Box):
    count = 'echo . >>$FAKE/asked; [ "$1" != show ] || wc -l <$FAKE/asked'
    (box.fake / "systemctl").write_text(f"#!/bin/sh\n{count}\n")
    began = time.monotonic()
    done = box.run("health", "--wait", "60")
    assert done.returncode == 1
    assert time.monotonic() - began < 30
    assert "not healthy after" in done.stderr
    assert "the last words of the service" in done.stderr


def test_boot_tells_its_end(box: Box):
    (box.fake / "sysctl").symlink_to("systemctl")
    assert box.run("boot").returncode == 0
    told = json.loads((box.root / "var/lib/unetops/boot.json").read_text())
    assert told["status"] == "done"
    assert "first_release: comes over SSH" in told["log"]


def test_boot_that_fails_by_a_mistake_of_its_facts_tells_so(box: Box):
    (box.fake / "sysctl").symlink_to("systemctl")
    (box.root / "etc/unetops/machine.json").write_text('{"source": "x"}')  # and no release_id
    assert box.run("boot").returncode == 1
    told = json.loads((box.root / "var/lib/unetops/boot.json").read_text())
    assert (told["status"], told["log"][-1]) == ("failed", "KeyError: 'release_id'")


def test_boot_installs_what_cloud_init_has_left_unfinished_and_nothing_twice(box: Box):
    (box.root / "etc/unetops/machine.json").write_text('{"packages": ["caddy", "git"]}')
    log, there = 'echo "$(basename "$0") $@" >>$FAKE/calls', "$FAKE/caddy"
    query = f'[ "$3" = git ] || [ -e {there} ] && printf installed || printf unpacked'
    programs = {"dpkg-query": query, "dpkg": log, "sysctl": log}
    programs["apt-get"] = f"{log}\ncase $* in *install*) touch {there};; esac"
    for name, text in programs.items():
        (box.fake / name).write_text(f"#!/bin/sh\n{text}\n")
        (box.fake / name).chmod(0o755)
    assert box.run("boot").returncode == box.run("boot").returncode == 0
    assert "dpkg --force-confold --configure -a" in box.calls
    (installed,) = [call for call in box.calls if " install " in call]
    assert installed.endswith(" install caddy")


def test_boot_reinstalls_packages_whose_unpacking_was_cut_off(box: Box):
    (box.root / "etc/unetops/machine.json").write_text('{"packages": ["git"]}')
    log = 'echo "$(basename "$0") $@" >>$FAKE/calls'
    query = (
        'case $2 in *Eflag*) printf "bash ok\\nxz-utils reinstreq\\n";; *) printf unpacked;; esac'
    )
    for name, text in {"dpkg-query": query, "dpkg": log, "sysctl": log, "apt-get": log}.items():
        (box.fake / name).write_text(f"#!/bin/sh\n{text}\n")
        (box.fake / name).chmod(0o755)
    assert box.run("boot").returncode == 0
    (removed,) = [call for call in box.calls if " --remove " in call]
    assert removed == "dpkg --force-remove-reinstreq --force-depends --remove xz-utils"
    (installed,) = [call for call in box.calls if " install " in call]
    assert installed.endswith(" install git xz-utils")
    assert box.calls.index(removed) < box.calls.index(installed)


def test_boot_without_a_driver_fails_with_the_reason(box: Box):
    (box.fake / "sysctl").symlink_to("systemctl")
    (box.root / "etc/unetops/machine.json").write_text('{"gpu": true}')
    assert box.run("boot").returncode == 1
    told = json.loads((box.root / "var/lib/unetops/boot.json").read_text())
    assert told["status"] == "failed"
    assert any("use a GPU image" in line for line in told["log"])


def test_idle_machine_powers_off_only_after_the_limit_and_without_a_job(box: Box):
    box.run("idle", "--minutes", "1")
    box.run("idle", "--minutes", "1")
    assert "systemctl poweroff" not in box.calls
    mark = box.root / "run/unetops-idle"
    os.utime(mark, (time.time() - 90, time.time() - 90))
    job = box.root / "proc/77/environ"
    job.parent.mkdir(parents=True)
    job.write_bytes(b"A=1\0UNETOPS_JOB=5\0")
    box.run("idle", "--minutes", "1")
    assert "systemctl poweroff" not in box.calls
    job.unlink()
    os.utime(mark, (time.time() - 90, time.time() - 90))
    box.run("idle", "--minutes", "1")
    assert "systemctl poweroff" in box.calls


def test_machine_is_not_idle_while_a_file_is_fetched(box: Box):
    box.run("idle", "--minutes", "1")
    mark = box.root / "run/unetops-idle"
    awake = (box.root / "var/lib/unetops/awake.lock").open("w")
    fcntl.flock(awake, fcntl.LOCK_SH)  # as fetch, release and boot do
    os.utime(mark, (time.time() - 90, time.time() - 90))
    box.run("idle", "--minutes", "1")
    assert "systemctl poweroff" not in box.calls
    awake.close()
    os.utime(mark, (time.time() - 90, time.time() - 90))
    box.run("idle", "--minutes", "1")
    assert "systemctl poweroff" in box.calls


def test_swap_file_of_a_boot_that_was_cut_off_is_made_again(box: Box):
    (box.root / "etc/unetops/machine.json").write_text('{"swap_gib": 1}')
    (box.root / "swapfile").write_text("half")
    for name in ("sysctl", "fallocate", "mkswap", "swapon"):
        (box.fake / name).symlink_to("systemctl")
    assert box.run("boot").returncode == box.run("boot").returncode == 0
    table = (box.root / "etc/fstab").read_text()
    assert table == f"{box.root}/swapfile none swap sw 0 0\n"
    assert (box.root / "swapfile").read_text() == ""


def _kill(box: Box, name: str, when, **given: object) -> None:
    """Start a release and kill it with all its children once a condition holds."""
    process = box.start(*box.words(name), **given)
    try:
        _until(when)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def _until(done) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end, "did not come"
        time.sleep(0.01)
