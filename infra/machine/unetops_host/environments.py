"""Python environments of releases, and wheels built from commits."""

import os
import shutil
import zipfile
from pathlib import Path

from infra.machine.unetops_host.commands import pip, run
from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.files import sha256
from infra.machine.unetops_host.machine import Machine


def create_base(machine: Machine, wheel: Path, lock: Path, index: str | None) -> Path:
    """Create the environment with all requirements of the wheel, at the versions of the lock.

    Its name contains a hash of the lock and one of the index and the wheel's requirements: a
    dependency can move from the tools to the service without a change of the lock. Environments
    cannot be moved, so it is created in its final place and marked when complete.
    """
    folder = machine.opt / "base" / base_name(lock, index, requirements(wheel))
    if (folder / ".complete").exists():
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    run("python3", "-m", "venv", str(folder))
    extra = ("--extra-index-url", index) if index else ()
    pip(folder, "install", "-c", str(lock), *extra, f"{wheel}[all]")
    pip(folder, "uninstall", "-y", "unetops")
    if machine.facts().get("gpu"):
        check_gpu(folder)
    os.sync()
    (folder / ".complete").touch()
    return folder


def base_name(lock: Path, index: str | None, required: str) -> str:
    """Name of the environment for a lock, an index of torch and a wheel's requirements."""
    required_hash = sha256(f"{index}\n{required}".encode())[:8]
    return f"{sha256(lock.read_bytes())[:16]}-{required_hash}"


def requirements(wheel: Path) -> str:
    """The requirements of a wheel, packed or unpacked in a folder."""
    opened = zipfile.Path(wheel) if wheel.is_file() else wheel
    found = [path for path in opened.iterdir() if path.name.endswith(".dist-info")]
    text = "\n".join((path / "METADATA").read_text() for path in found)
    return "\n".join(line for line in text.splitlines() if line.startswith("Requires-Dist:"))


def build(machine: Machine, source: str) -> Path:
    """Download the wheel at a URL, or build that of a commit."""
    tools, wheels = machine.opt / "tools", machine.opt / "wheel"
    if not (tools / ".complete").exists():
        run("python3", "-m", "venv", str(tools))
        (tools / ".complete").touch()
    shutil.rmtree(wheels, ignore_errors=True)
    pip(tools, "wheel", "--no-deps", "-w", str(wheels), source)
    found = sorted(wheels.glob("*.whl"))
    if len(found) != 1:
        raise HostError(f"{source}: expected one wheel, found {len(found)}")
    return found[0]


def check_gpu(base: Path) -> None:
    """Check that the environment's torch can use the GPU."""
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else torch.__version__)"
    try:
        run(str(base / "bin/python"), "-c", code)
    except HostError as error:
        raise HostError(
            f"torch cannot use the GPU: set torchIndex to a build for this driver\n{error}"
        ) from error
