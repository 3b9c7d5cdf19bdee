import os
import subprocess

import pytest

from dataset_rules.artifacts.provenance import checked_out
from infra.source import working_copy_id


@pytest.fixture
def working_copy(tmp_path):
    """A commit of one file, which a build has touched since without changing it."""

    def git(*words):
        name = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(["git", "-C", str(tmp_path), *name, *words], check=True, capture_output=True)

    file = tmp_path / "README.md"
    file.write_text("text")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    os.utime(file, (1, 1))
    return tmp_path


@pytest.mark.parametrize("look", [checked_out, working_copy_id])
def test_looking_for_the_commit_writes_nothing_that_a_kill_could_leave_locked(working_copy, look):
    before = (working_copy / ".git/index").stat()
    assert not look(working_copy).endswith("+changes")
    after = (working_copy / ".git/index").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_changes_are_told(working_copy):
    (working_copy / "README.md").write_text("other")
    assert checked_out(working_copy).endswith("+changes")
    assert len(working_copy_id(working_copy)) == 12 + 1 + 8
