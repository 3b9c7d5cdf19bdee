"""A layer over the tree with what a droplet installs at its first boot and with its first release.

The packages and the environment of the service cost a droplet as much as all the rest of a
deployment. Both are installed here once, by the very words that a droplet uses; guests share them
read-only. The tests of the first boot itself boot without it.
"""

import base64
import contextlib
import gzip
import hashlib
import shutil
import sysconfig
import tempfile
from collections.abc import Iterator
from pathlib import Path

import yaml

from infra.cloud_init import PACKAGES, MachineSpec, user_data
from tests.guest import golden
from tests.guest.droplet import build_wheel
from tests.guest.guest import ROOT, unmount
from tests.guest.shell import sh

# An overlay needs a disk below it, as a guest's own files do.
PLACE = Path("/var/tmp/unetops-prepared")
HOST = "/opt/unetops/bin/unetops-host"
BASE = "opt/unetops/base"
GIVEN = "/root/given"
# It is in the environment's name; without it a release would build another one.
INDEX = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())["config"]["unetops:torchIndex"]
RELEASE = f"{HOST} release --id prepared --torch-index {INDEX}"
# No service runs here, so the release ends where it would stop one: its environment is laid then.
SCRIPT = f"""
export DEBIAN_FRONTEND=noninteractive
apt-get -q update
apt-get -q -y install {" ".join(PACKAGES)}
apt-get clean
{RELEASE} --wheel {GIVEN}/*.whl --lock {GIVEN}/requirements.lock || true
test -f /{BASE}/*/.complete
rm -rf {GIVEN} /srv/unetops /var/lib/unetops /opt/unetops/bin /opt/unetops/releases
"""


def prepared() -> Path:
    """The layer, built at the first call; concurrent processes build it only once."""
    lock = ROOT / "requirements.lock"
    parts = (golden.recipe(), lock.read_text(), (ROOT / "pyproject.toml").read_text(), SCRIPT)
    key = hashlib.sha256("\n".join(parts).encode() + _program() + Path(__file__).read_bytes())
    layer = PLACE / key.hexdigest()[:16]
    with golden.locked(layer.with_suffix(".lock")):
        if not layer.is_dir():
            building = layer.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            _build(building, lock)
            (building / "upper").rename(layer)
            shutil.rmtree(building)
    return layer


def _program() -> bytes:
    """The host program, as installed by user_data."""
    spec = MachineSpec(hostname="prepared", volume_name="prepared")
    written = yaml.safe_load(user_data(spec))["write_files"]
    (file,) = [file for file in written if file["path"] == HOST]
    data = base64.b64decode(file["content"])
    return gzip.decompress(data) if file["encoding"].startswith("gz") else data


def _build(folder: Path, lock: Path) -> None:
    with _laid(folder) as root, tempfile.TemporaryDirectory() as made:
        given, program = root / GIVEN.lstrip("/"), root / HOST.lstrip("/")
        for path in (given, program.parent):
            path.mkdir(parents=True)
        program.write_bytes(_program())
        program.chmod(0o755)
        shutil.copy(lock, given)
        shutil.copy(build_wheel(Path(made)), given)
        shown = {
            golden.wheelhouse(lock.read_text()): f"{golden.HARNESS}/wheelhouse",
            Path(sysconfig.get_path("purelib")): golden.SITE_PACKAGES,
        }
        enter = ("systemd-nspawn", "--quiet", f"--directory={root}", "--register=no")
        enter += ("--keep-unit", "--console=pipe", "--resolv-conf=off", "--timezone=off")
        binds = [f"--bind-ro={here}:{there}" for here, there in shown.items()]
        sh(*enter, "--link-journal=no", *binds, "sh", "-ec", SCRIPT, timeout=600)


@contextlib.contextmanager
def _laid(folder: Path) -> Iterator[Path]:
    for part in ("upper", "work", "root"):
        (folder / part).mkdir(parents=True)
    layers = f"lowerdir={golden.golden()},upperdir={folder}/upper,workdir={folder}/work"
    sh("mount", "-t", "overlay", "prepared", "-o", layers, folder / "root")
    try:
        yield folder / "root"
    finally:
        unmount(folder / "root")
