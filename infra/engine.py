"""Runs the `pulumi` command for the tools that accompany the program."""

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Record = dict[str, Any]


class EngineError(Exception):
    """`pulumi` is missing or failed; one line, followed by its own message."""


@dataclass(frozen=True)
class Engine:
    """One stack of the project in a folder."""

    stack: str
    root: Path

    def run(self, *words: str) -> str:
        """Output of `pulumi WORDS --stack S`.

        Raises:
            EngineError: with pulumi's message.
        """
        return self._run(*words, "--stack", self.stack)

    def cancel(self) -> None:
        """Release the lock of a killed update; `cancel` takes the stack as a plain argument."""
        self._run("cancel", "--yes", self.stack)

    def _run(self, *words: str) -> str:
        if shutil.which("pulumi") is None:
            raise EngineError(
                "pulumi is not on the PATH; install it: https://www.pulumi.com/docs/install/"
            )
        command = ["pulumi", *words, "--non-interactive", "--color", "never"]
        done = subprocess.run(
            command, cwd=self.root, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if done.returncode:
            message = (done.stderr or done.stdout).strip()
            raise EngineError(f"pulumi {words[0]} exited with {done.returncode}: {message}")
        return done.stdout

    def state(self) -> "State":
        """The state in the backend."""
        exported = json.loads(self.run("stack", "export"))
        return State(exported.get("deployment") or {})


@dataclass(frozen=True)
class State:
    """A deployment as `pulumi stack export` prints it."""

    deployment: Record

    @property
    def resources(self) -> list[Record]:
        """The resources of the state."""
        return list(self.deployment.get("resources") or [])

    @property
    def pending(self) -> list[Record]:
        """Resources whose creation was in progress when the engine died."""
        marks = self.deployment.get("pending_operations") or []
        return [mark["resource"] for mark in marks if mark.get("type") == "creating"]

    def ids(self, kind: str) -> set[str]:
        """Cloud ids of all resources of a type."""
        return {str(r["id"]) for r in self.resources if r["type"] == kind and r.get("id")}
