"""Worker processes of the formatter."""

import multiprocessing.process
import os
from pathlib import Path

import pytest

from dataset_rules.formatting.workers import _context


@pytest.mark.parametrize(("length", "method"), [(60, "forkserver"), (120, "spawn")])
def test_no_fork_server_if_the_path_of_the_temporary_folder_is_too_long_for_its_socket(
    length: int, method: str, monkeypatch: pytest.MonkeyPatch
):
    folder = Path("/tmp") / ("x" * (length - len("/tmp/")))
    config = {**multiprocessing.process.current_process()._config, "tempdir": os.fspath(folder)}
    monkeypatch.setattr(multiprocessing.process.current_process(), "_config", config)
    assert _context().get_start_method() == method
