"""The README's deployment section, run from the first line to the last by a new user."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cloud.api import CloudApi
from tests.cloud.stack import PASSPHRASE, ROOT, TOKEN
from tests.guest.needs import require
from tests.infra.api_double import serving
from tests.system.deployment import deployment
from tests.system.test_operations import LINE, Engineer

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
SECTION = (ROOT / "README.md").read_text().split("## On a droplet of your own")[1]
LINES = LINE.findall(SECTION.split("\n## ")[0])
INSTALLS = "make infra"  # CI's environment already has what it installs


def test_every_line_of_the_deployment_section_works_for_a_new_user(tmp_path: Path):
    require()
    assert LINES[0] == INSTALLS
    assert "PULUMI_CONFIG_PASSPHRASE" in LINES[1]
    with deployment(tmp_path) as one, serving(CloudApi(one.stack.cloud), token=TOKEN) as api:
        user = Engineer(one, api)
        # The user's own backend instead of the one that the other tests start with.
        del user.env["PULUMI_BACKEND_URL"], user.env["DIGITALOCEAN_TOKEN"]
        del user.env["PULUMI_CONFIG_PASSPHRASE"]
        before = f"export DIGITALOCEAN_TOKEN={TOKEN} PULUMI_CONFIG_PASSPHRASE='{PASSPHRASE}'\n"
        *typed, last = [line.replace("YOUR.ADDRESS", "203.0.113.9") for line in LINES[2:]]
        said = user.shell("set -e\n" + before + "\n".join(typed))
        assert "price: about $" in said
        shown = user.shell(before + "pulumi stack output --json --show-secrets")
        one.stack.env["PULUMI_BACKEND_URL"] = f"file://{user.env['HOME']}/unetops-state"
        assert one.stack.outputs()["url"] in shown
        with one.site(said.split()[-1]) as site:
            assert site.get("/jobs") == []
        user.shell(before + last)
        assert {kind for kind, objects in one.stack.cloud.objects.items() if objects} == {"Volume"}
