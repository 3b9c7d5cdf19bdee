"""Fixtures for all tests, and the location of the real data."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.drawn import write_dataset

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("UNETOPS_DATA", ROOT.parent / "shared" / "data"))


@pytest.fixture(autouse=True)
def _no_real_home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch):
    """Keep tests from writing to the user's data folder."""
    monkeypatch.setenv("UNETOPS_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture(scope="session")
def real_data() -> Callable[[str], Path]:
    """Folder of a real dataset by name; skips the test if it is absent."""

    def find(name: str) -> Path:
        folder = DATA / name
        if not folder.is_dir():
            pytest.skip(f"real dataset {name} is not in {DATA}; set UNETOPS_DATA")
        return folder

    return find


@pytest.fixture
def discs(tmp_path: Path) -> Path:
    """A tiny formatted dataset: 6 train, 2 val, 2 test images of 64 x 64 px."""
    return write_dataset(tmp_path / "discs")
