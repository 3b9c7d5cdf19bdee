"""The workflows follow the project's rules, and their commands run as written."""

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
    found = [step for step in steps(path) if step.get("uses", "").startswith("actions/checkout@")]
    assert found
    for step in found:
        assert step["with"]["persist-credentials"] is False


@EVERY_FILE
def test_no_expression_stands_in_a_command(path: Path) -> None:
    assert not [step["run"] for step in steps(path) if "${{" in step.get("run", "")]


def test_every_script_that_a_workflow_runs_is_there_and_executable() -> None:
    texts = "\n".join(path.read_text() for path in WORKFLOWS)
    names = set(re.findall(r"\.github/scripts/([\w.-]+)", texts))
    assert "stack.sh" in names
    assert [name for name in names if not os.access(FOLDER / "scripts" / name, os.X_OK)] == []


def test_pull_requests_see_no_secret() -> None:
    assert "secrets." not in named("preview").read_text()
    assert read(named("preview"))[True] == "pull_request"  # `on` is a boolean in YAML 1.1


def test_only_jobs_of_an_environment_see_secrets() -> None:
    secret = [path for path in WORKFLOWS if "secrets." in path.read_text()]
    assert [path.stem for path in secret] == ["deploy", "drift"]
    for path in secret:
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


def run_of(name: str, job: str, words: str) -> str:
    """The command of the only step of a job that contains these words."""
    (found,) = [s["run"] for s in read(named(name))["jobs"][job]["steps"] if words in str(s)]
    return str(found)


@pytest.mark.system
@pytest.mark.timeout(600)
def test_the_preview_job_runs_as_written_and_reports_plan_and_price(tmp_path: Path) -> None:
    """All steps but `make dev`, which the tests require; the runner has no keys or account."""
    runner, summary = tmp_path / "runner", tmp_path / "summary.md"
    runner.mkdir()
    with stack() as one:
        env = {k: v for k, v in one.env.items() if "TOKEN" not in k and "PASSPHRASE" not in k}
        env |= {"HOME": str(runner), "GITHUB_STEP_SUMMARY": str(summary)}
        for step in read(named("preview"))["jobs"]["preview"]["steps"]:
            if "run" in step and step["run"] != "make dev":
                words = ["bash", "-e", "-c", step["run"]]
                done = subprocess.run(
                    words, cwd=one.project, env=env, capture_output=True, text=True
                )
                assert done.returncode == 0, done.stdout + done.stderr
        assert one.cloud.log == []
        text = (one.project / "report.md").read_text()
        assert not (one.project / "Pulumi.preview.yaml").exists()
    assert summary.read_text() == text
    assert text.startswith("<!-- unetops preview -->\n### Preview\n")
    assert re.search(r"\nPrice:\n\n    about \$\d+\.00 a month \(droplet", text)
    assert "    + digitalocean:index/droplet:Droplet: (create)" in text
    assert re.search(r"\n        \+ \d\d to create\n", text)
    assert "infra/policy" in text


@pytest.mark.system
@pytest.mark.timeout(600)
def test_the_preview_job_fails_and_reports_why_where_the_pack_refuses(tmp_path: Path) -> None:
    report = tmp_path / "report.md"
    with stack(ROOT / "tests" / "cloud" / "program") as one:
        words = [FOLDER / "scripts" / "preview.sh", report]
        env = {**one.env, "PROJECT": str(one.project)}
        report.touch()
        done = subprocess.run(words, env=env, capture_output=True, text=True)
        assert done.returncode == 1, done.stdout + done.stderr
        assert one.cloud.log == []
    text = report.read_text()
    assert "### Preview: rejected or failed (1)" in text
    assert "no firewall covers a tag" in text
    assert "unknown, the program failed before" in text


def reported(plan: str, status: int = 0) -> str:
    words = [sys.executable, FOLDER / "scripts" / "report.py", str(status)]
    return subprocess.run(words, input=plan, check=True, capture_output=True, text=True).stdout


def test_a_plan_is_nothing_but_text_in_the_comment() -> None:
    said = reported("@everyone <b>\r\n# title\n```\n~~~\n\ttab")
    plan = said.split("empty stack:\n\n")[1]
    assert plan == "    @everyone <b>\n    # title\n    ```\n    ~~~\n    \ttab\n"


def test_a_long_plan_keeps_its_end_and_fits_into_a_comment() -> None:
    said = reported("\n".join(f"line {n}" for n in range(20_000)) + "\n+ 9 to create", 1)
    assert len(said) < 65_536
    assert said.endswith("    line 19999\n    + 9 to create\n")
    assert "... (the beginning is in the log of the run)\n    line 1" in said


@pytest.mark.parametrize(("there", "call"), [("", "POST"), ("77\n78", "PATCH")])
def test_one_comment_is_made_and_then_rewritten(tmp_path: Path, there: str, call: str) -> None:
    """Checks the requests that the workflow makes with a fake `gh`."""
    fake = tmp_path / "gh"
    fake.write_text('#!/bin/sh\necho "$*" >>calls\ncase "$*" in *--jq*) printf "$THERE";; esac\n')
    fake.chmod(0o755)
    path = f"{tmp_path}:{os.environ['PATH']}"
    env = {"PATH": path, "GH_REPO": "me/unetops", "NUMBER": "5", "THERE": there}
    command = run_of("preview", "comment", "gh api")
    subprocess.run(["bash", "-e", "-c", command], cwd=tmp_path, env=env, check=True)
    asked, written = (tmp_path / "calls").read_text().splitlines()
    assert asked.startswith("api --paginate repos/me/unetops/issues/5/comments --jq .[] | select(")
    assert reported("").splitlines()[0] in asked
    target = "comments/77" if there else "5/comments"
    assert written == (
        f"api --silent --method {call} repos/me/unetops/issues/{target} --field body=@report.md"
    )


def test_only_the_comment_may_be_written_and_nothing_of_the_request_runs_beside_that() -> None:
    jobs = read(named("preview"))["jobs"]
    assert jobs["preview"]["permissions"] == {"contents": "read"}
    assert jobs["comment"]["permissions"] == {"pull-requests": "write"}
    assert "head.repo.full_name == github.repository" in jobs["comment"]["if"]
    used = [step.get("uses", "") for step in jobs["comment"]["steps"]]
    assert not [one for one in used if "checkout" in one]
    assert ".github/scripts" not in str(jobs["comment"])


def test_a_fork_finds_its_plan_in_the_summary_of_the_run() -> None:
    job = read(named("preview"))["jobs"]["preview"]
    (step,) = [s for s in job["steps"] if "GITHUB_STEP_SUMMARY" in s.get("run", "")]
    assert step["if"] == "always()"
    assert "if" not in job
