"""The workflows hold to the rules of the house, and their commands run as they are written."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cloud.cli import missing
from tests.cloud.stack import stack

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".github"
WORKFLOWS = sorted((FOLDER / "workflows").glob("*.yml"))
SCRIPTS = sorted((FOLDER / "scripts").iterdir())
ACTIONLINT = "1.7.7"
PINNED = re.compile(r"[\w-]+/[\w-]+@[0-9a-f]{40}")
EVERY_FILE = pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)


def read(path: Path) -> dict[Any, Any]:
    return dict(yaml.safe_load(path.read_text()))


def steps(path: Path) -> list[dict[str, Any]]:
    return [step for job in read(path)["jobs"].values() for step in job["steps"]]


def named(name: str) -> Path:
    return FOLDER / "workflows" / f"{name}.yml"


def test_all_four_workflows_are_there() -> None:
    assert [path.stem for path in WORKFLOWS] == ["checks", "deploy", "drift", "preview"]


@EVERY_FILE
def test_every_action_is_pinned_by_commit_and_names_its_version(path: Path) -> None:
    lines = [line for line in path.read_text().splitlines() if "uses:" in line]
    assert lines
    for line in lines:
        assert PINNED.search(line), line
        assert re.search(r"# v\d+\.\d+\.\d+$", line), line


@EVERY_FILE
def test_every_job_has_a_time_limit_and_its_own_permissions(path: Path) -> None:
    whole = read(path)
    assert whole["permissions"] == {}
    assert whole["concurrency"]["group"]
    for job in whole["jobs"].values():
        assert 0 < job["timeout-minutes"] <= 60
        assert set(job["permissions"].items()) <= {("contents", "read"), ("pull-requests", "write")}


@EVERY_FILE
def test_no_checkout_leaves_its_credentials(path: Path) -> None:
    for step in steps(path):
        if step.get("uses", "").startswith("actions/checkout@"):
            assert step["with"]["persist-credentials"] is False


@EVERY_FILE
def test_no_expression_stands_in_a_command(path: Path) -> None:
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


@EVERY_FILE
def test_every_script_that_a_workflow_runs_is_there_and_executable(path: Path) -> None:
    for name in re.findall(r"\.github/scripts/([\w.-]+)", path.read_text()):
        assert os.access(FOLDER / "scripts" / name, os.X_OK)


def test_pull_requests_see_no_secret() -> None:
    assert "secrets." not in named("preview").read_text()
    assert True in read(named("preview"))  # `on` is a boolean in YAML 1.1
    assert read(named("preview"))[True] == "pull_request"


def test_only_jobs_of_an_environment_see_secrets() -> None:
    for path in WORKFLOWS:
        if "secrets." in path.read_text():
            assert all(job.get("environment") for job in read(path)["jobs"].values())


def test_the_runner_closes_its_door_whatever_happened() -> None:
    done = [step for step in steps(named("deploy")) if ".github/scripts" in step.get("run", "")]
    assert done[-1]["run"].endswith("stack.sh close")
    assert done[-1]["if"] == "always()"


@pytest.mark.parametrize(("code", "said"), [(0, "no drift"), (7, "Drift"), (1, "drift unknown")])
def test_drift_is_told_from_a_failed_check(tmp_path: Path, code: int, said: str) -> None:
    fake = tmp_path / "pulumi"
    fake.write_text(f"#!/bin/sh\nexit {code}\n")
    fake.chmod(0o755)
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "STACK": "dev"}
    done = subprocess.run(
        [FOLDER / "scripts" / "stack.sh", "drift"], env=env, capture_output=True, text=True
    )
    assert done.returncode == code
    assert said in done.stdout


def test_zizmor_finds_nothing() -> None:
    tool = Path(sys.executable).with_name("zizmor")
    words = [tool, "--offline", "--no-progress", "--persona", "regular", FOLDER / "workflows"]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.system
@pytest.mark.timeout(600)
def test_actionlint_finds_nothing() -> None:
    done = subprocess.run([actionlint(), *WORKFLOWS], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def actionlint() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    tool = cache / "unetops" / f"actionlint-{ACTIONLINT}" / "actionlint"
    if not tool.exists():
        if not shutil.which("go"):
            missing(f"no Go to install actionlint {ACTIONLINT}")
        source = f"github.com/rhysd/actionlint/cmd/actionlint@v{ACTIONLINT}"
        env = {**os.environ, "GOBIN": str(tool.parent)}
        subprocess.run(["go", "install", source], env=env, check=True, capture_output=True)
    return tool


@pytest.mark.system
@pytest.mark.timeout(600)
def test_the_preview_script_reports_what_the_pack_refuses(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    with stack(ROOT / "tests" / "cloud" / "program") as one:
        env = {**one.env, "PROJECT": str(one.project)}
        words = [FOLDER / "scripts" / "preview.sh", report]
        report.touch()
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr
        assert one.cloud.log == []
    text = report.read_text()
    assert "refused or failed" in text
    assert "no firewall names a tag" in text
    assert "6 to create" in text or "+ 6" in text
