"""A stack and a cloud for tests: an engineer's commands, each in a separate process."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.cloud.cli import pulumi_folder
from tests.cloud.cloud import Cloud
from tests.cloud.command import Command
from tests.cloud.digitalocean import DigitalOcean
from tests.cloud.faults import CloudError
from tests.cloud.wire import serving

ROOT = Path(__file__).parents[2]
PASSPHRASE = "a passphrase of the tests"
TOKEN = "dop_v1_a-token-that-opens-nothing"
CHANGES = 7  # the CLI's exit status for --expect-no-changes; all other failures are 1
QUIET = ("config", "stack", "cancel", "about")
NOT_COPIED = shutil.ignore_patterns("__pycache__", ".venv", "*.egg-info")


def environment(root: Path, ports: list[int]) -> dict[str, str]:
    """No account, no download, no update check: everything the engine needs is on this machine."""
    backend = root / "backend"
    backend.mkdir(exist_ok=True)
    folder = pulumi_folder()
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PULUMI_", "DIGITALOCEAN_"))}
    return {
        **kept,
        "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}",
        "UNETOPS_TEST_PYTHON": sys.executable,
        "UNETOPS_LANGUAGE_HOST": str(Path(__file__).parent / "langhost.py"),
        # An engine killed while writing the metadata file next to a checkpoint leaves it empty, and
        # every later command fails with `failed to load checkpoint: EOF`. So write none.
        "PULUMI_BACKEND_URL": f"{backend.as_uri()}?metadata=skip",
        "PULUMI_HOME": str(root / "home"),
        "HOME": str(_engineer(root / "engineer")),
        "PULUMI_CONFIG_PASSPHRASE": PASSPHRASE,
        "PULUMI_DEBUG_PROVIDERS": f"digitalocean:{ports[0]},command:{ports[1]}",
        "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
        "PULUMI_SKIP_UPDATE_CHECK": "true",
        "DIGITALOCEAN_TOKEN": TOKEN,
    }


class Stack:
    """`run` is `pulumi ...` in the project; the other methods are frequent commands."""

    def __init__(self, *, project: Path, name: str, cloud: Cloud, env: dict[str, str]) -> None:
        self.project, self.name, self.cloud, self.env = project, name, cloud, env
        self.said = ""  # output of all commands so far, as in a log

    def run(self, *words: str, code: int | None = 0, text: str = "", timeout: int = 600) -> str:
        """Run one command and return its output; fails on another exit status."""
        done = subprocess.run(
            ["pulumi", "--non-interactive", *words],
            cwd=self.project,
            env=self.env,
            input=text,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        said = done.stdout + ("" if "--json" in words or words[0] in QUIET else done.stderr)
        full = f"pulumi {' '.join(words)}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        self.said += "" if "--show-secrets" in words else full
        assert code is None or done.returncode == code, full
        return said if done.returncode == 0 else done.stdout + done.stderr

    def preview(self, *words: str, code: int | None = 0) -> str:
        return self.run("preview", "--stack", self.name, *words, code=code)

    def up(self, *words: str, code: int | None = 0, timeout: int = 600) -> str:
        plain = ("up", "--yes", "--skip-preview", "--stack", self.name)
        return self.run(*plain, *words, code=code, timeout=timeout)

    def refresh(self, *words: str, code: int | None = 0) -> str:
        sure = () if "--preview-only" in words else ("--yes",)
        return self.run("refresh", *sure, "--stack", self.name, *words, code=code)

    def destroy(self, *words: str, code: int | None = 0) -> str:
        plain = ("destroy", "--yes", "--skip-preview", "--stack", self.name)
        return self.run(*plain, *words, code=code)

    def take_in(self, type_: str, name: str, id_: str, *words: str) -> str:
        """`pulumi import`: import an object of the cloud into the state."""
        plain = ("import", "--yes", "--skip-preview", "--generate-code=false", "--protect=false")
        return self.run(*plain, "--stack", self.name, *words, type_, name, id_)

    def config(self, key: str, value: str, *words: str) -> None:
        """Set a value by argument; a secret (`--secret`) by standard input."""
        name = ("config", "set", "--stack", self.name, *words, key)
        if "--secret" in words:
            self.run(*name, text=value)
        else:
            self.run(*name, "--", value)

    def outputs(self) -> dict[str, Any]:
        words = ("stack", "output", "--json", "--show-secrets", "--stack", self.name)
        return dict(json.loads(self.run(*words)))

    def state(self) -> dict[str, Any]:
        exported = json.loads(self.run("stack", "export", "--stack", self.name))
        return dict(exported["deployment"])

    def state_text(self) -> str:
        """Everything in the backend, including history, as an attacker would read it."""
        files = sorted(p for p in (self.root / "backend").rglob("*") if p.is_file())
        return "\n".join(p.read_text(errors="replace") for p in files)

    @property
    def root(self) -> Path:
        return Path(self.env["PULUMI_HOME"]).parent

    def engines(self) -> list[int]:
        """Process ids of this stack's `pulumi` processes."""
        return [pid for pid, name in self.processes() if name == "pulumi"]

    def processes(self) -> Iterator[tuple[int, str]]:
        """Id and name of this stack's processes, identified by their home folder."""
        mine = f"PULUMI_HOME={self.env['PULUMI_HOME']}".encode()
        for proc in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if mine in (proc / "environ").read_bytes().split(b"\0"):
                    yield int(proc.name), (proc / "comm").read_text().strip()

    def kill_engine(self) -> Callable[[], None]:
        """The action of a Fault: SIGKILL to the engine during this call."""

        def action() -> None:
            kill(self.engines())
            raise CloudError(0, "nobody is left to read this")

        return action


def kill(processes: list[int]) -> None:
    """SIGKILL; processes that have already exited are ignored."""
    for process in processes:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


@contextlib.contextmanager
def stack(
    project: Path | None = None,
    *,
    name: str = "dev",
    cloud: Cloud | None = None,
    extra: dict[str, str] | None = None,
) -> Iterator[Stack]:
    """Create an empty backend, both doubles and a copy of the project; `extra` is environment.

    Without `project` it is this repository's program: what git knows or would know is copied, so
    that config is set in the copy, and `.venv` is linked.
    """
    cloud = cloud or Cloud()
    root = Path(tempfile.mkdtemp(prefix="unetops-stack-"))
    env: dict[str, str] = {}
    folder = root / "project"
    try:
        _copy(project or ROOT, folder)
        command = Command(cloud, folder=folder, environment=env)
        with serving(DigitalOcean(cloud, env), command) as ports:
            env.update(environment(root, ports), **(extra or {}))
            one = Stack(project=folder, name=name, cloud=cloud, env=env)
            one.run("stack", "init", name, "--secrets-provider", "passphrase")
            try:
                yield one
            finally:
                # The program and its host survive a killed engine.
                kill([pid for pid, _ in one.processes()])
    finally:
        shutil.rmtree(root, ignore_errors=True)


def _engineer(home: Path) -> Path:
    """Create a home folder with the key pair of the documented config."""
    key = home / ".ssh" / "id_ed25519"
    key.parent.mkdir(parents=True, mode=0o700)
    words = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tests", "-f", str(key)]
    subprocess.run(words, check=True)
    return home


def _copy(source: Path, target: Path) -> None:
    if source == ROOT:
        listed = subprocess.run(
            ["git", "ls-files", "-co", "--exclude-standard", "-z"],
            cwd=source,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\0")
        for name in filter(None, listed):
            if (source / name).is_file():
                (target / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source / name, target / name)
    else:
        shutil.copytree(source, target, ignore=NOT_COPIED)
    (target / ".venv").symlink_to(sys.prefix)
    _commit(target)


def _commit(folder: Path) -> None:
    """A release is identified by its commit, so the copy is a repository with one commit."""
    who = ["-c", "user.name=tests", "-c", "user.email=tests@example.org"]
    for words in (["init", "-q"], ["add", "-A"], [*who, "commit", "-q", "-m", "copy"]):
        subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True)
        if words[0] == "init":
            (folder / ".git/info/exclude").write_text(".venv\n")
