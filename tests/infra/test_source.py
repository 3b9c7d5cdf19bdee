from pathlib import Path

from infra.source import build_wheel

ROOT = Path(__file__).resolve().parents[2]


def test_a_laptop_of_any_kind_builds_a_wheel_for_the_droplet(tmp_path):
    wheel = build_wheel(ROOT, tmp_path / "release")
    assert wheel.name.endswith("-py3-none-any.whl")
    assert build_wheel(ROOT, tmp_path / "release") == wheel  # it is there already
