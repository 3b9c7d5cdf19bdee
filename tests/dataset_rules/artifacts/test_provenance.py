import os
import subprocess

import pytest

from dataset_rules.artifacts.provenance import checkout_commit
from infra.source import working_copy_id


@pytest.fixture
def working_copy(tmp_path):
    """A repository with one committed file, whose modification time changed afterwards."""

    def git(*arguments):
        name = ("-c", "user.name=A", "-c", "user.email=a@example.org")
        subprocess.run(
            ["git", "-C", str(tmp_path), *name, *arguments], check=True, capture_output=True
        )

    file = tmp_path / "README.md"
    file.write_text("text")
    git("init")
    git("add", ".")
    git("commit", "-m", "one")
    os.utime(file, (1, 1))
    return tmp_path


@pytest.mark.parametrize("find_commit", [checkout_commit, working_copy_id])
def test_finding_the_commit_does_not_write_to_the_git_index(working_copy, find_commit):
    before = (working_copy / ".git/index").stat()
    assert not find_commit(working_copy).endswith("+changes")
    after = (working_copy / ".git/index").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


def test_changes_are_marked(working_copy):
    (working_copy / "README.md").write_text("other")
    assert checkout_commit(working_copy).endswith("+changes")
    assert len(working_copy_id(working_copy)) == 12 + 1 + 8
