"""The host program as the single file that user_data carries."""

import gzip
import os
import shutil
import subprocess
import sys
from pathlib import Path

from infra import units
from infra.host_program import host_program
from infra.machine.unetops_host import machine

ROOT = Path(__file__).resolve().parents[2]
PACK = "import sys; from infra.host_program import host_program as h; sys.stdout.buffer.write(h())"


def test_program_runs_by_its_first_line_wherever_it_lies(tmp_path: Path):
    file = tmp_path / "unetops-host"
    file.write_bytes(host_program())
    file.chmod(0o755)
    path = f"{Path(sys.executable).parent}:/usr/bin:/bin"
    done = subprocess.run(
        [file, "--help"], cwd=tmp_path, env={"PATH": path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "{release,health,token,status,fetch,boot,recover,idle}" in done.stdout


def test_program_needs_the_standard_library_alone(tmp_path: Path):
    file = tmp_path / "unetops-host"
    file.write_bytes(host_program())
    words = [sys.executable, "-I", "-S", str(file), "fetch", "file:///etc/passwd"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.startswith("unetops-host fetch: ")


def test_checkouts_that_differ_in_all_but_the_text_give_the_same_bytes(tmp_path: Path):
    """Timestamps, permissions, order on disk, line endings, compiled files and time zone differ."""
    copy = tmp_path / "infra"
    copy.mkdir()
    for path in sorted((ROOT / "infra").rglob("*.py"), reverse=True):
        to = copy / path.relative_to(ROOT / "infra")
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
        to.chmod(0o700)
        os.utime(to, (1e9, 1e9))
    shutil.copytree(ROOT / "infra/machine", copy / "machine/unetops_host/__pycache__")
    env = {"PATH": "/usr/bin:/bin", "TZ": "Asia/Tokyo", "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PACK], cwd=tmp_path, env=env, capture_output=True)
    assert done.stdout == host_program(), done.stderr.decode()


def test_program_takes_less_than_a_third_of_what_user_data_may_hold():
    assert len(gzip.compress(host_program(), 9)) * 4 / 3 < 64 * 1024 / 3


def test_program_and_units_agree_on_what_serves():
    assert machine.UNITS == units.UNITS
    assert str(machine.Machine().mount) == units.MOUNT
    assert machine.Machine().user == units.USER
    assert str(machine.Machine().database.parent) == units.HOME
