"""Bad configurations on the real engine: each error has its remedy, and nothing is created."""

from __future__ import annotations

import re

import pytest

from tests.cloud.stack import Stack, stack
from tests.infra.test_components import KEY

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]
SPACES = "nyc3, ams3, sfo2, sfo3, sgp1, lon1, fra1, tor1, blr1, syd1, atl1"
BAD: dict[str, tuple[dict[str, str], str]] = {
    "region without Spaces": (
        {"region": "nyc1", "bucket": "true"},
        f"bucket: region nyc1 has no Spaces; set bucketRegion to one of {SPACES}, "
        "or bucket to false",
    ),
    "retired image": (
        {"image": "ubuntu-20-04-x64"},
        "image: ubuntu-20-04-x64 is retired; use ubuntu-24-04-x64, or debian-12-x64",
    ),
    "GPU size with a CPU image": (
        {"size": "gpu-h100x1-80gb", "region": "tor1"},
        "image: debian-12-x64 has no GPU driver for size gpu-h100x1-80gb; "
        "use gpu-h100x1-base, or a size without gpu-",
    ),
    "volume to shrink": (
        {"volumeGib": "50"},
        "volumeGib: 50 is less than the 80 that the volume has, and volumes cannot shrink; "
        "pulumi config set volumeGib 80, or more",
    ),
    "key file missing": (
        {"sshPublicKeys[0]": "~/.ssh/none.pub"},
        "sshPublicKeys: file ~/.ssh/none.pub cannot be read (No such file or directory); "
        "create one with `ssh-keygen -t ed25519`, or give the path of your .pub file",
    ),
    "private key file missing": (
        {"deployKeyFile": "~/.ssh/none"},
        "deployKeyFile: file ~/.ssh/none cannot be read (No such file or directory); "
        "set it to your private key file, or remove deployKeyFile to use the SSH agent",
    ),
    "user_data over 64 KiB": (
        {"sshPublicKeys[0]": KEY + "x" * 66_000},
        "user_data: NUMBER bytes, the limit is 65536; use fewer or shorter sshPublicKeys",
    ),
}
ALL = {
    "region": "nyc1", "bucket": "true", "image": "ubuntu-20-04-x64", "size": "gpu-h100x1-80gb",
    "volumeGib": "50", "deployKeyFile": "~/.ssh/none", "sizze": "x",
    "sshPublicKeys[0]": "~/.ssh/none.pub", "sshPublicKeys[1]": KEY + "x" * 66_000,
}  # fmt: skip


def mistakes(one: Stack, documented: str, values: dict[str, str]) -> tuple[str, list[str]]:
    """Heading and lines of `pulumi preview` for the documented config with these values."""
    (one.project / "Pulumi.dev.yaml").write_text(documented)
    for key, value in values.items():
        one.config(key, value, *(["--path"] if "[" in key else []))
    said = one.preview("--color", "never", code=1).split("Diagnostics:")[1]
    found = re.search(r"error: (.*):\n((?:      - .*\n)+)", said)
    assert found, said
    lines = [line.removeprefix("      - ") for line in found[2].splitlines()]
    return found[1], [re.sub(r"user_data: \d+", "user_data: NUMBER", line) for line in lines]


def test_each_mistake_is_named_with_its_remedy_and_all_come_at_once() -> None:
    with stack() as one:
        documented = (one.project / "Pulumi.dev.yaml").read_text()
        for region in ("nyc3", "nyc1"):
            held = {"name": "unetops-dev", "region": region, "size": 80, "tags": ["unetops-dev"]}
            one.cloud.create("Volume", held)
        mark = len(one.cloud.log)
        for values, said in BAD.values():
            # As large as the existing volume, unless the volume is the error.
            heading, lines = mistakes(one, documented, {"volumeGib": "80", **values})
            assert lines == [said]
            assert heading == "1 error in the stack's configuration, nothing was created"
        heading, lines = mistakes(one, documented, ALL)
        assert heading == f"{len(lines)} errors in the stack's configuration, nothing was created"
        assert lines[0].startswith("sizze: unknown key; did you mean size?")
        others = [said for _, said in BAD.values() if not said.startswith("image: debian")]
        assert set(others) <= set(lines)
        assert "image: ubuntu-20-04-x64 has no GPU driver" in "\n".join(lines)
        assert "region: nyc1 has no GPU droplets" in "\n".join(lines)
        assert len(lines) == len(others) + 3
        assert len(one.cloud.log) == mark
        assert "resources" not in one.state()
