"""The README's commands, run verbatim on drawn data."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from dataset_rules.pixels.images import encode
from tests.cloud.cli import missing
from tests.drawn import draw_discs
from tests.system.test_service import serving

pytestmark = [pytest.mark.system, pytest.mark.timeout(400)]

README = (Path(__file__).resolve().parents[2] / "README.md").read_text()


def block(heading: str, first: str) -> str:
    """The indented block of a section that starts with a word."""
    section = README.split(f"## {heading}\n")[1].split("\n## ")[0]
    for found in re.findall(r"(?:^    .*\n)+", section, re.MULTILINE):
        if found.strip().startswith(first):
            return re.sub(r"^    ", "", found, flags=re.MULTILINE)
    raise AssertionError(f"no block in {heading} begins with {first}")


@pytest.fixture
def source(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    folder = tmp_path / "source"
    for index in range(16):
        image, instances = draw_discs(rng)
        for kind, pixels in (("photos", image), ("truth", (instances > 0).astype(np.uint8) * 255)):
            path = folder / kind / f"cell {index}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encode(pixels, ".png"))
    return folder


def shell(script: str, folder: Path) -> str:
    """Run a script of the README in a folder; every line must succeed."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script], cwd=folder, text=True, capture_output=True,
        env={**os.environ, "PATH": path, "NO_PROXY": "127.0.0.1"}, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_commands_for_your_own_images_run_one_after_the_other(
    source: Path, tmp_path: Path
) -> None:
    script = block("Your own images", ". .venv").split("\n", 1)[1]
    image = source / "photos" / "cell 3.png"
    names = {
        "IMAGE_mask.png": '"cell 3_mask.png"', "IMAGE...": f'"{image}"', "10m": "20s",
        "SRC": str(source), "DATASET": "dataset", "RUN": "run", "OTHER": "run", "REPORT": "report",
        "DIR": "masks", "EXPORTED": "exported",
    }  # fmt: skip
    for name, value in names.items():
        script = re.sub(rf"(?<![\w]){re.escape(name)}(?![\w])", value.replace("\\", ""), script)
    shown = shell(script, tmp_path)
    assert "the chain is intact" in shown
    assert (tmp_path / "report" / "report.html").exists()


def test_the_commands_over_http_end_with_a_mask(source: Path, tmp_path: Path) -> None:
    if not shutil.which("jq"):
        missing("the README's commands use jq, which is not installed here")
    (tmp_path / "rules.json").write_text(block("Your own images", "{"))
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in source.rglob("*.png"):
            archive.write(path, path.relative_to(source))
    shutil.copy(source / "photos" / "cell 5.png", tmp_path / "cell.png")
    script = block("The service", "api=").replace("120}", "20}")
    with serving(tmp_path / "home") as service:
        api = str(service.http.base_url).rstrip("/")
        shell(script.replace("http://127.0.0.1:8000/api/v1", api), tmp_path)
    mask = cv2.imread(str(tmp_path / "cell_mask.png"), cv2.IMREAD_UNCHANGED)
    assert mask.shape == (64, 64)
    assert mask.any()
