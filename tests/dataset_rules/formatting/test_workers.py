"""Processes that make samples."""

import multiprocessing.process
import os
from pathlib import Path

import pytest

from dataset_rules.formatting.workers import _context


@pytest.mark.parametrize(("length", "method"), [(60, "forkserver"), (120, "spawn")])
def test_a_temporary_folder_with_a_long_path_takes_no_socket(
    length: int, method: str, monkeypatch: pytest.MonkeyPatch
):
    folder = Path("/tmp") / ("x" * (length - len("/tmp/")))
    here = {**multiprocessing.process.current_process()._config, "tempdir": os.fspath(folder)}
    monkeypatch.setattr(multiprocessing.process.current_process(), "_config", here)
    assert _context().get_start_method() == method
