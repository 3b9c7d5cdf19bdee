"""The machine's own program, run against a folder that stands for the machine's root.

systemctl, journalctl and pip are stand-ins on the PATH; files, links, SQLite and HTTP are real.
"""

import fcntl
import hashlib
import json
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
import threading
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from infra.units import UNITS

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = ROOT / "infra/machine/unetops_host.py"
BODY = bytes(range(256)) * 400
# Stands for the environment's python: `-m pip install --target` lays a release that migrates by
# adding a table of its name, `-m app.cli` is that release.
PYTHON = """\
import os, pathlib, sqlite3, sys, time
words = sys.argv[1:]
log = pathlib.Path(os.environ["FAKE"]) / "calls"
with log.open("a") as file:
    print(" ".join(words), file=file)
if "--target" in words:
    to = pathlib.Path(words[words.index("--target") + 1])
    to.mkdir(parents=True)
    (to / "wheel").write_text(words[-1])
if words[:2] == ["-m", "app.cli"] and words[2] == "migrate":
    folder = pathlib.Path(words[4])
    with sqlite3.connect(pathlib.Path(os.environ["UNETOPS_HOME"]) / "unetops.db") as db:
        with sqlite3.connect(folder / "unetops.db") as copy:
            db.backup(copy)
        name = pathlib.Path(os.environ["PYTHONPATH"]).name
        if not name.startswith("same"):
            db.execute(f"CREATE TABLE IF NOT EXISTS made_by_{name} (a)")
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
printf '#!/bin/sh\\nexec %s %s "$@"\\n' "$REAL" "$FAKE/python.py" >"$3/bin/python"
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
    """A folder that stands for the machine, and the service that it seems to run."""

    def __init__(self, folder: Path) -> None:
        self.root, self.fake = folder / "root", folder / "fake"
        for name in ("srv/unetops/home", "etc/unetops", "var/lib/unetops"):
            (self.root / name).mkdir(parents=True)
        self.home = self.root / "srv/unetops/home"
        (self.root / "etc/unetops/environment").write_text(
            f"UNETOPS_HOME={self.home}\nFAKE={self.fake}\n"
        )
        self.fake.mkdir()
        (self.fake / "python.py").write_text(PYTHON)
        programs = {"python3": PYTHON3, "systemctl": SYSTEMCTL}
        programs["journalctl"] = "#!/bin/sh\necho the last words of the service\n"
        for name, text in programs.items():
            (self.fake / name).write_text(text)
            (self.fake / name).chmod(0o755)
        self.lock = folder / "requirements.lock"
        self.lock.write_text("numpy==1\n")
        self.database = self.home / "unetops.db"
        with sqlite3.connect(self.database) as opened:
            opened.execute("CREATE TABLE jobs (a)")
            opened.execute("INSERT INTO jobs VALUES (1)")
        opened.close()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        box = self

        class Service(BaseHTTPRequestHandler):
            cuts: ClassVar[list[int]] = []

            def do_GET(self) -> None:
                if self.path == "/images.zip":
                    return self._file()
                well = (box.fake / "up").exists() and "broken" not in (box.serves or "broken")
                self.send_response(200 if well else 503)
                self.end_headers()
                return None

            def _file(self) -> None:
                start = int(self.headers.get("Range", "bytes=0-")[6:-1])
                self.send_response(206 if start else 200)
                self.send_header("Content-Length", str(len(BODY) - start))
                self.end_headers()
                self.cuts.append(start)
                first = len(self.cuts) == 1
                self.wfile.write(BODY[start : len(BODY) // 2 if first else None])

            def log_message(self, *_: object) -> None:
                pass

        self.service = Service
        return Service

    @property
    def serves(self) -> str | None:
        link = self.root / "opt/unetops/current"
        return link.readlink().name if link.is_symlink() else None

    @property
    def tables(self) -> set[str]:
        with sqlite3.connect(self.database) as opened:
            rows = opened.execute("SELECT name FROM sqlite_master").fetchall()
        opened.close()
        return {row[0] for row in rows}

    @property
    def calls(self) -> list[str]:
        file = self.fake / "calls"
        return file.read_text().splitlines() if file.exists() else []

    def start(self, *words: str, slow: float = 0) -> subprocess.Popen[str]:
        code = textwrap.dedent(f"""
            import sys
            sys.path.insert(0, {str(PROGRAM.parent)!r})
            sys.dont_write_bytecode = True
            import unetops_host as host
            machine = host.Machine(host.Path({str(self.root)!r}), {self.url!r}, 1.0)
            host.as_service = lambda: []
            sys.exit(host.main(sys.argv[1:], machine))
            """)
        environment = {"PATH": f"{self.fake}:/usr/bin:/bin", "FAKE": str(self.fake)}
        (self.root / "etc/unetops/environment").write_text(
            f"UNETOPS_HOME={self.home}\nFAKE={self.fake}\nSLOW={slow}\n"
        )
        return subprocess.Popen(
            [sys.executable, "-c", code, *words], text=True, start_new_session=True,
            env={**environment, "REAL": sys.executable},
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        with self.start(*words) as process:
            out, errors = process.communicate(timeout=60)
        return subprocess.CompletedProcess(words, process.returncode, out, errors)

    def release(self, name: str) -> subprocess.CompletedProcess[str]:
        return self.run(*self.words(name))

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


def test_first_release_serves(box: Box):
    done = box.release("one")
    assert done.returncode == 0, done.stderr
    assert box.serves == "one"
    assert json.loads(
        (box.root / "opt/unetops/current/release.json").read_text()
    )["id"] == "one"  # fmt: skip


def test_second_release_stops_the_workers_before_the_web_and_backs_up_before_it_starts(box: Box):
    box.release("one")
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


def test_broken_release_is_rolled_back_with_its_migration_and_the_last_words(box: Box):
    box.release("one")
    before = box.tables
    done = box.release("broken")
    assert done.returncode == 1
    assert "the last words of the service" in done.stderr
    assert "one serves again" in done.stderr
    assert box.serves == "one"
    assert box.tables == before
    assert (box.fake / "up").exists()
    assert not (box.root / "var/lib/unetops/pending.json").exists()


def test_broken_release_without_migration_keeps_what_was_written_meanwhile(box: Box):
    box.release("one")
    with box.start(*box.words("samebroken")) as process:
        _until(lambda: box.serves == "samebroken")
        with sqlite3.connect(box.database) as opened:
            opened.execute("INSERT INTO jobs VALUES (2)")
        opened.close()
        process.communicate(timeout=60)
    assert process.returncode == 1
    assert box.serves == "one"
    with sqlite3.connect(box.database) as opened:
        assert opened.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
    opened.close()


def test_broken_first_release_leaves_none(box: Box):
    assert box.release("broken").returncode == 1
    assert box.serves is None


def test_release_killed_in_its_migration_is_done_by_the_next_run(box: Box):
    box.release("one")
    _kill(box, "two", lambda: any("made_by_two" in name for name in box.tables))
    assert box.serves == "one"
    assert (box.root / "var/lib/unetops/pending.json").exists()
    done = box.release("two")
    assert done.returncode == 0, done.stderr
    assert box.serves == "two"
    assert box.tables == {"jobs", "made_by_one", "made_by_two"}


def test_killed_release_is_taken_back_by_recover(box: Box):
    box.release("one")
    before = box.tables
    _kill(box, "two", lambda: any("made_by_two" in name for name in box.tables))
    assert box.run("recover").returncode == 0
    assert box.serves == "one"
    assert box.tables == before
    assert (box.fake / "up").exists()


def test_release_killed_while_its_health_is_waited_for_is_judged_by_the_next_run(box: Box):
    box.release("one")
    _kill(box, "broken", lambda: box.serves == "broken" and (box.fake / "up").exists(), slow=0)
    assert box.run("recover").returncode == 0
    assert box.serves == "one"
    assert "made_by_broken" not in box.tables


def test_release_killed_at_any_time_converges(box: Box):
    box.release("one")
    for number in range(6):
        name = f"r{number}"
        process = box.start(*box.words(name))
        time.sleep(0.1 + 0.08 * number)
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        assert box.release(name).returncode == 0
        assert box.serves == name
    with sqlite3.connect(box.database) as opened:
        assert opened.execute("SELECT a FROM jobs").fetchall() == [(1,)]
    opened.close()


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
    assert "is no name" in done.stderr


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
    assert "--new makes another" in again.stderr
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
    assert list((box.root / "srv/unetops/incoming").iterdir()) == []


def test_fetch_of_a_local_file_is_refused(box: Box):
    assert box.run("fetch", "file:///etc/passwd").returncode == 1


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


def test_boot_without_a_driver_fails_with_the_reason(box: Box):
    (box.fake / "sysctl").symlink_to("systemctl")
    (box.root / "etc/unetops/machine.json").write_text('{"gpu": true}')
    assert box.run("boot").returncode == 1
    told = json.loads((box.root / "var/lib/unetops/boot.json").read_text())
    assert told["status"] == "failed"
    assert any("take a GPU image" in line for line in told["log"])


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


def _kill(box: Box, name: str, when, *, slow: float = 30) -> None:
    """Start a release and kill it with all its children once something is so."""
    process = box.start(*box.words(name), slow=slow)
    _until(when)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _until(done) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end, "did not come"
        time.sleep(0.01)
