"""A droplet that boots for real: user_data, systemd as PID 1, its own network and volumes.

systemd-nspawn over an overlay of the golden tree; no service manager is needed on this machine.
A guest is root on this machine's kernel: boot only user_data of this project in one.
"""

import contextlib
import fcntl
import os
import shutil
import signal
import subprocess
import sysconfig
import threading
import time
import uuid
from pathlib import Path
from typing import IO

from tests.guest import golden
from tests.guest.shell import sh
from tests.guest.volume import Volume
from tests.guest.wires import PREFIX, Wires, remove

ROOT = Path(__file__).resolve().parents[2]
# An overlay needs a disk below it; later runs find leftovers by this name.
RUN = Path("/var/tmp/unetops-guests")
ASKED_FOR_REBOOT = 133
CLEAN = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}


class Guest:
    """One droplet; `up` returns while it boots, like an API that answers `active`."""

    def __init__(self, name: str, user_data: str, volumes: tuple[Volume, ...] = ()) -> None:
        """Configure the guest; nothing is started yet."""
        self.name, self.user_data = f"{name}-{uuid.uuid4().hex[:6]}", user_data
        self.volumes = list(volumes)
        self.folder = RUN / self.name
        self.root = self.folder / "root"
        self.wires: Wires | None = None
        self.above: tuple[Path, ...] = ()
        """Layers between the golden tree and what this guest writes."""
        self.image: dict[str, str] = {}
        """Files that the image brings beside Debian's, by path; a script is executable."""
        self._process: subprocess.Popen[bytes] | None = None
        self._thread: threading.Thread | None = None
        self._wanted = False
        self._owner: IO[str] | None = None

    @property
    def address(self) -> str:
        """Its address for this machine."""
        if self.wires is None:
            raise RuntimeError(f"{self.name} has no address before up()")
        return self.wires.address

    @property
    def running(self) -> bool:
        """Whether the power is on."""
        return self._thread is not None and self._thread.is_alive()

    def reserve(self) -> Wires:
        """The future network, for a user_data that needs this machine's address in it."""
        self.wires = self.wires or Wires()
        return self.wires

    def up(self) -> None:
        """Create the machine and start it."""
        wires = self.reserve()
        self._lay_root()
        wires.up(self.folder)
        self.power_on()

    def _lay_root(self) -> None:
        for part in ("upper", "work", "root"):
            (self.folder / part).mkdir(parents=True)
        self._owner = (self.folder / "owner").open("w")
        fcntl.flock(self._owner, fcntl.LOCK_EX)  # the kernel releases it when this process ends
        (self.folder / "wires").write_text(self.wires.name if self.wires else "")
        lower = ":".join(map(str, (*self.above, golden.golden())))
        layers = f"lowerdir={lower},upperdir={self.folder}/upper,workdir={self.folder}/work"
        sh("mount", "-t", "overlay", self.name, "-o", layers, self.root)
        seed = self.root / "var/lib/cloud/seed/nocloud"
        seed.mkdir(parents=True)
        (seed / "user-data").write_text(self.user_data)
        (seed / "meta-data").write_text(f"instance-id: {self.name}\n")
        for name, text in self.image.items():
            file = self.root / name.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            file.chmod(0o755 if text.startswith("#!") else 0o644)

    def power_on(self) -> None:
        """Start it; it also comes back by itself after a reboot."""
        self._wanted = True
        self._thread = threading.Thread(target=self._supervise, daemon=True)
        self._thread.start()

    def _supervise(self) -> None:
        groups = [group / f"unetops-{self.name}" for group in control_groups()]
        for group in groups:
            group.mkdir(exist_ok=True)
        with (self.folder / "console.log").open("ab") as log:
            while self._wanted:
                self._process = subprocess.Popen(
                    [*_within(groups), *self._command()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                    env={**os.environ, "SYSTEMD_NSPAWN_API_VFS_WRITABLE": "network"},
                )
                if self._process.wait() != ASKED_FOR_REBOOT:
                    break

    def _command(self) -> list[str]:
        self._note_volumes()
        volumes = list(self.volumes)  # one may be plugged in at this moment
        lines = [f"L {volume.link} - - - - {volume.attach()}\n" for volume in volumes]
        (self.root / "etc/tmpfiles.d/volumes.conf").write_text("".join(lines))
        wheels = golden.wheelhouse((ROOT / "requirements.lock").read_text())
        shown = {
            wheels: f"{golden.HARNESS}/wheelhouse",
            Path(sysconfig.get_path("purelib")): golden.SITE_PACKAGES,
        }
        return [
            *("systemd-nspawn", "--quiet", f"--directory={self.root}", "--boot"),
            *(f"--machine={self.name}", "--register=no", "--keep-unit", "--console=pipe"),
            f"--network-namespace-path=/run/netns/{self.wires.name if self.wires else ''}",
            *("--capability=CAP_NET_ADMIN", "--resolv-conf=off", "--timezone=off"),
            "--link-journal=no",
            *[f"--bind-ro={here}:{there}" for here, there in shown.items()],
            *[f"--bind={volume.device}" for volume in volumes],
        ]

    def _note_volumes(self) -> None:
        files = [f"{volume.attach()} {volume.path}\n" for volume in self.volumes]
        (self.folder / "volumes").write_text("".join(files))

    def leader(self, wait: float = 30) -> int:
        """The guest's PID 1 in this machine's numbering; a guest that was just started has none."""
        end = time.monotonic() + wait
        while self.running and time.monotonic() < end:
            parent = self._process.pid if self._process else 0
            for pid in sh("pgrep", "-P", parent, check=False).stdout.split() if parent else ():
                if is_init(int(pid)):
                    return int(pid)
            time.sleep(0.05)
        said = (self.folder / "console.log").read_text(errors="replace")[-1000:]
        raise RuntimeError(f"{self.name} is not running; its console: {said}")

    def exec(
        self, *command: str, check: bool = True, timeout: float = 120
    ) -> subprocess.CompletedProcess[str]:
        """Run a command in the guest as root."""
        enter = ("nsenter", "-t", self.leader(), "-m", "-u", "-i", "-n", "-p", "-C", "--")
        clean = [f"{key}={value}" for key, value in CLEAN.items()]
        return sh(*enter, "env", "-i", *clean, *command, check=check, timeout=timeout)

    def plug(self, volume: Volume) -> None:
        """Attach a volume to a running guest; without udev, this machine creates the node."""
        self.volumes.append(volume)
        device = volume.attach()
        self._note_volumes()
        if not self.running:
            self.power_on()
            return
        number = os.minor(Path(device).stat().st_rdev)
        node = f"test -b {device} || mknod {device} b 7 {number}"
        script = f"{node}; mkdir -p /dev/disk/by-id && ln -sfn {device} {volume.link}"
        end = time.monotonic() + 10
        while self.exec("sh", "-ec", script, check=False).returncode and time.monotonic() < end:
            time.sleep(0.1)

    def unplug(self, volume: Volume) -> None:
        """Shut down and detach the volume."""
        self.power_off()
        self.volumes.remove(volume)
        volume.detach()

    def power_off(self, *, hard: bool = False, wait: float = 40) -> None:
        """Shut down; `hard` cuts the power: kills PID 1 and everything in the guest."""
        self._wanted = False
        if self._thread is None:
            return
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError, ProcessLookupError):
                os.kill(self.leader(2), signal.SIGKILL if hard else signal.SIGRTMIN + 4)
        self._thread.join(wait)
        if self._thread.is_alive() and hard:
            raise RuntimeError(f"{self.name} does not end; see {self.folder}/console.log")
        if self._thread.is_alive():
            self.power_off(hard=True)

    def destroy(self) -> None:
        """Stop it and remove all but its volumes; a second call does nothing."""
        self.power_off(hard=True)
        for volume in self.volumes if self.folder.exists() else ():
            unmount(self.root)
            volume.detach()
        if self.wires:
            self.wires.down()
            self.wires = None
        if self._owner:
            self._owner.close()
        wipe(self.folder)


def _within(groups: list[Path]) -> list[str]:
    """Command prefix that puts a command into separate control groups, one set per guest."""
    enter = [f"echo $$ >{group}/cgroup.procs" for group in groups]
    return ["sh", "-ec", "\n".join([*enter, 'exec "$@"']), "sh"]


def control_groups() -> list[Path]:
    """The hierarchies in which a service manager keeps its units."""
    top = Path("/sys/fs/cgroup")
    if (top / "cgroup.controllers").exists():
        return [top]
    return [top / name for name in ("systemd", "unified") if (top / name).is_dir()]


def is_init(pid: int) -> bool:
    """Whether a process is PID 1 of a separate namespace."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return len(line.split()) > 2 and line.split()[-1] == "1"
    return False


def unmount(root: Path, wait: float = 10) -> None:
    """Unmount a guest's root after its last process has released it."""
    end = time.monotonic() + wait
    while root.is_mount() and sh("umount", root, check=False).returncode:
        if time.monotonic() > end:
            sh("umount", "-l", root, check=False)
        time.sleep(0.05)


def wipe(folder: Path) -> None:
    """Remove what is left of a guest that has stopped."""
    unmount(folder / "root")
    for top in control_groups():
        for path, _, _ in os.walk(top / f"unetops-{folder.name}", topdown=False):
            with contextlib.suppress(OSError):
                Path(path).rmdir()
    shutil.rmtree(folder, ignore_errors=True)
    with contextlib.suppress(OSError):
        Path(f"/run/systemd/nspawn/propagate/{folder.name}").rmdir()


def sweep() -> list[str]:
    """Remove guests whose test process is gone; returns their names. Others stay."""
    left = []
    for file in sorted(RUN.glob("*/owner")):
        with file.open("r+") as owner:
            try:
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            _end(file.parent)
            left.append(file.parent.name)
    return left


def _end(folder: Path) -> None:
    for group in control_groups():
        for file in (group / f"unetops-{folder.name}").rglob("cgroup.procs"):
            for process in file.read_text().split():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(process), signal.SIGKILL)
    unmount(folder / "root")
    _release(folder / "volumes")
    wires = folder / "wires"
    if wires.is_file() and wires.read_text().startswith(PREFIX):
        remove(wires.read_text())
    wipe(folder)


def _release(noted: Path) -> None:
    """Release the loop devices of a guest, unless they are used for another file."""
    for line in noted.read_text().splitlines() if noted.is_file() else ():
        device, _, file = line.partition(" ")
        if device in sh("losetup", "-j", file, "-nO", "NAME").stdout.split():
            sh("losetup", "-d", device, check=False)
