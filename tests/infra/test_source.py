import zipfile
from pathlib import Path

import pytest

from infra.source import build_wheel

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(ROOT, tmp_path_factory.mktemp("cache") / "release")


def test_a_laptop_of_any_kind_builds_a_wheel_for_the_droplet(wheel: Path):
    assert wheel.name.endswith("-py3-none-any.whl")


def test_a_wheel_that_is_there_is_not_built_again(wheel: Path):
    before = wheel.stat()
    assert build_wheel(ROOT, wheel.parent) == wheel
    assert (wheel.stat().st_ino, wheel.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_wheel_carries_every_file_of_the_machine(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        carried = {name for name in archive.namelist() if name.startswith("infra/machine/")}
    found = (ROOT / "infra/machine").rglob("*")
    wanted = {p for p in found if p.is_file() and "__pycache__" not in p.parts}
    assert carried == {path.relative_to(ROOT).as_posix() for path in wanted}
    assert len(carried) > 20
