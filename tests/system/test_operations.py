"""All commands of docs/operations.md, run line by line in the order of a stack's life."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cloud.api import CloudApi
from tests.cloud.faults import Fault
from tests.cloud.stack import ROOT, TOKEN
from tests.guest.needs import require
from tests.infra.api_double import Api, serving
from tests.system.deployment import Deployment, deployment
from tests.system.test_boot import Clock
from tests.system.test_service import PAPER

pytestmark = [pytest.mark.system, pytest.mark.timeout(900)]

PAGE = (ROOT / "docs/operations.md").read_text()
LINE = re.compile(r"^    (.*?)(?: {2,}# .*)?$", re.MULTILINE)
LINES = LINE.findall(PAGE)
SSH = "#!/bin/sh\nexec /usr/bin/ssh {options} -o BatchMode=yes -o StrictHostKeyChecking=yes "
RECORDED = "pulumi stack export | jq"
ENDED = 124  # exit status of `timeout`
LOCKED = 1
OTHER_RULES = {**PAPER, "height": "32"}


class Engineer:
    """A shell in the project's root; records which lines of the page were run."""

    def __init__(self, one: Deployment, api: Api) -> None:
        self.one, self.left = one, LINES
        self.token, self.rules = "", list[str]()
        tools, known = one.stack.root / "tools", one.key.with_name("known_hosts")
        tools.mkdir()
        # Both look for their files in the account's home, not in HOME.
        options = f"-i {one.key} -o UserKnownHostsFile={known} -o GlobalKnownHostsFile=/dev/null"
        self._tool(tools / "ssh", SSH.format(options=options) + '"$@"\n')
        self._tool(tools / "ssh-keygen", f'#!/bin/sh\nexec /usr/bin/ssh-keygen -f {known} "$@"\n')
        # The program of this copy, not of the installed checkout.
        self._tool(tools / "unetops", f'#!/bin/sh\nexec {sys.executable} -m app.cli "$@"\n')
        path = f"{tools}:{Path(sys.executable).parent}:{one.stack.env['PATH']}"
        # There is no terminal for confirmation.
        self.env = one.stack.env | {"PATH": path, "PULUMI_SKIP_CONFIRMATIONS": "true"}
        self.env |= {"DIGITALOCEAN_API_URL": api.address}

    @staticmethod
    def _tool(file: Path, text: str) -> None:
        file.write_text(text)
        file.chmod(0o755)

    def types(self, heading: str, *, without: str | None = None, **words: str) -> str:
        """Run the lines of a section in order, except one that starts with `without`."""
        section = PAGE.split(f"## {heading}")[1].split("\n## ")[0]
        lines = [line for line in LINE.findall(section) if not line.startswith(without or "\n")]
        return "".join(self.line(line, **words) for line in lines)

    def line(self, line: str, *, code: int = 0, **words: str) -> str:
        """Run one line of the page, or a command within its text; fails on another exit status."""
        assert line in LINES or f"`{line}`" in PAGE, f"the page has no line {line}"
        self.left = [one for one in self.left if one != line]
        return self.shell(_filled(line, words), code=code)

    def on_the_host(self, **words: str) -> str:
        """Run the lines that follow a bare `ssh` on the page."""
        block = PAGE.split("    ssh root@HOST\n")[1].split("\n\n")[0]
        lines = LINE.findall(block)
        self.left = [one for one in self.left if one not in ("ssh root@HOST", *lines)]
        script = _filled("\n".join(["set -e", *lines]), words)
        return self.shell(_filled(f"ssh root@HOST {shlex.quote(script)}", {}))

    def has_rules(self) -> list[bool]:
        """For each posted rules document, whether the service has it."""
        with self.one.site(self.token) as site:
            return [site.http.get(f"/rules/{one}").status_code == 200 for one in self.rules]

    def shell(self, command: str, *, code: int = 0) -> str:
        done = subprocess.run(
            ["bash", "-c", command], cwd=self.one.stack.project, env=self.env,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
        assert done.returncode == code, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


def _filled(line: str, words: dict[str, str]) -> str:
    """Replace the words in capitals by this stack's values."""
    for name, value in {"HOST": "$(pulumi stack output address)", **words}.items():
        line = re.sub(rf"(?<![\w.]){re.escape(name)}\b", value.replace("\\", r"\\"), line)
    return line


def test_every_command_of_the_operations_page_does_what_it_says(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    require()
    clock = Clock(request.config)
    with (
        deployment(tmp_path, is_prepared=True) as one,
        serving(CloudApi(one.stack.cloud), token=TOKEN) as api,
    ):
        api.objects["sizes"] = [{"slug": "s-2vcpu-4gb", "regions": ["nyc3"], "available": True,
                                 "price_monthly": 24.0}]  # fmt: skip
        engineer = Engineer(one, api)
        clock.start()
        for leg in (meets, looks, goes_back, restores, recovers, adopts, loses):
            leg(engineer)
            clock.lap(f"operations, {leg.__name__}")
        assert engineer.left == []


def meets(engineer: Engineer) -> None:
    """Doctor, first `up`, host key, first tokens."""
    shown = engineer.one.stack.outputs
    engineer.types("Before `pulumi up`")
    engineer.shell("pulumi up")
    engineer.line("pulumi stack output knownHosts >> ~/.ssh/known_hosts")
    (recorded,) = [line for line in engineer.left if "-host-key" in line]
    assert engineer.line(recorded) == f"{shown()['knownHosts']}\n"
    first, second = engineer.types("First admin token").split()
    for token in (first, second):
        with engineer.one.site(token) as site:
            assert site.get("/jobs") == []
    further = "/opt/unetops/bin/unetops token create --role ROLE"
    assert f"`{further}`" in PAGE
    assert engineer.shell(_filled(f"ssh root@HOST {further}", {"ROLE": "viewer"}))
    engineer.token = first


def looks(engineer: Engineer) -> None:
    """Logs and health; following the log is stopped after the existing lines."""
    units = "-u unetops-web -u unetops-worker -u unetops-fetcher"
    follows = f"ssh root@HOST journalctl {units} -n 100 -f"
    said = engineer.line(follows, code=ENDED, ssh="timeout 5 ssh")
    assert "unetops-web" in said and "unetops-worker" in said
    said = engineer.types("Logs and health", without=follows)
    assert '"release"' in said and '"status": "done"' in said and "caddy" in said


def goes_back(engineer: Engineer) -> None:
    """A release, rules posted meanwhile, and back to the previous release."""
    one = engineer.one
    first = one.stack.outputs()["release"]
    with one.site(engineer.token) as site:
        engineer.rules.append(site.post("/rules", json=PAPER)["id"])
    one.commit("README.md", "\nA further line.\n")
    engineer.shell("pulumi up")
    assert one.stack.outputs()["release"] != first
    with one.site(engineer.token) as site:
        engineer.rules.append(site.post("/rules", json=OTHER_RULES)["id"])
    engineer.types("Releases and rollback", COMMIT=first)
    assert one.stack.outputs()["release"] == first
    assert engineer.has_rules() == [True, True]


def restores(engineer: Engineer) -> None:
    """The backup made by the second release has nothing of what came later."""
    engineer.line("pulumi config set snapshot LABEL && pulumi up", LABEL="before")
    assert engineer.one.stack.cloud.only("VolumeSnapshot")
    listed = engineer.shell(_filled("ssh root@HOST ls /srv/unetops/backups", {})).split()
    engineer.on_the_host(**{"TIME-RELEASE": sorted(listed)[-2]})
    engineer.shell(_filled("ssh root@HOST /opt/unetops/bin/unetops-host health --wait 60", {}))
    assert engineer.has_rules() == [True, False]


def recovers(engineer: Engineer) -> None:
    """A kill that leaves the lock behind."""
    stack = engineer.one.stack
    stack.cloud.faults = [Fault(stack.kill_engine())]
    stack.up(code=-9)
    stack.cloud.faults = []
    assert "currently locked" in engineer.shell("pulumi up 2>&1", code=LOCKED)
    engineer.types("After a `pulumi up` that was killed")
    torn = stack.root / "backend/.pulumi/stacks/unetops/dev.json.attrs"
    torn.touch()
    engineer.line("find STATE -name '*.attrs' -empty -delete", STATE=str(stack.root / "backend"))
    assert not torn.exists()


def adopts(engineer: Engineer) -> None:
    """All but the volume is destroyed and the state lost: the volume returns with its data."""
    stack = engineer.one.stack
    engineer.line("pulumi destroy --exclude-protected")
    volume = stack.cloud.only("Volume")[0]
    engineer.shell("pulumi stack rm dev --force --preserve-config && pulumi stack init dev")
    line = f"unetops infra recover --stack dev --take volume/{volume}"
    assert line in engineer.shell("pulumi up 2>&1", code=1)
    engineer.types("A volume that is not in the state", ID=volume)
    assert stack.cloud.only("Volume")[0] == volume
    engineer.types("The host's key", without=RECORDED)
    assert engineer.has_rules() == [True, False]


def loses(engineer: Engineer) -> None:
    """The data is deleted only with the stack's name; then nothing billed is left."""
    stack = engineer.one.stack
    assert "protected" in engineer.shell("pulumi destroy 2>&1", code=1)
    engineer.types("Destroy", without="pulumi destroy --exclude-protected")
    left = {kind for kind, objects in stack.cloud.objects.items() if objects}
    assert left == {"VolumeSnapshot"}
