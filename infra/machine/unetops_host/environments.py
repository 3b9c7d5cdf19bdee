"""Environments that releases run in, and the wheels of commits."""

import os
import shutil
import zipfile
from pathlib import Path

from infra.machine.unetops_host.commands import pip, run
from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.files import sha256
from infra.machine.unetops_host.machine import Machine


def lay_base(machine: Machine, wheel: Path, lock: Path, index: str | None) -> Path:
    """The environment with everything that the wheel needs, at the versions of the lock.

    Its name holds the lock's hash, and one of the index and of what the wheel asks for: a
    dependency can move from the tools into the service without a change of the lock. An
    environment cannot be moved, so it is made in its place and marked when complete.
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


def base_name(lock: Path, index: str | None, asked: str) -> str:
    """Name of the environment for a lock, an index of torch and what a wheel asks for."""
    asked_hash = sha256(f"{index}\n{asked}".encode())[:8]
    return f"{sha256(lock.read_bytes())[:16]}-{asked_hash}"


def requirements(wheel: Path) -> str:
    """What a wheel asks for, whether it is packed or lies open in a folder."""
    opened = zipfile.Path(wheel) if wheel.is_file() else wheel
    found = [path for path in opened.iterdir() if path.name.endswith(".dist-info")]
    text = "\n".join((path / "METADATA").read_text() for path in found)
    return "\n".join(line for line in text.splitlines() if line.startswith("Requires-Dist:"))


def build(machine: Machine, source: str) -> Path:
    """The wheel behind a URL, or of a commit."""
    tools, out = machine.opt / "tools", machine.opt / "wheel"
    if not (tools / ".complete").exists():
        run("python3", "-m", "venv", str(tools))
        (tools / ".complete").touch()
    shutil.rmtree(out, ignore_errors=True)
    pip(tools, "wheel", "--no-deps", "-w", str(out), source)
    found = sorted(out.glob("*.whl"))
    if len(found) != 1:
        raise HostError(f"{source}: expected one wheel, found {len(found)}")
    return found[0]


def check_gpu(base: Path) -> None:
    """The environment's torch can use the GPU."""
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else torch.__version__)"
    try:
        run(str(base / "bin/python"), "-c", code)
    except HostError as error:
        raise HostError(
            f"torch does not reach the GPU: set torchIndex to a build for this driver\n{error}"
        ) from error
