"""The script that creates a filesystem on a blank volume, on real block devices.

Without loop devices (no root, a container) the cases run on plain files, and one word of the
script is changed so that it accepts a plain file as a device.
"""

import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

SCRIPT = (Path(__file__).resolve().parents[2] / "infra/machine/volume.sh").read_text()
MIB = 1 << 20
SIZE_BYTES = 64 * MIB


class Disk:
    """A volume from the script's view; `file` has its contents."""

    def __init__(self, file: Path) -> None:
        self.file = file
        with file.open("wb") as made:
            made.truncate(SIZE_BYTES)
        find = ["losetup", "--find", "--show", str(file)]
        is_root = os.geteuid() == 0
        done = subprocess.run(find, capture_output=True, text=True) if is_root else None
        self.is_real = done is not None and done.returncode == 0
        self.device = done.stdout.strip() if done and self.is_real else str(file)
        self.script = SCRIPT if self.is_real else SCRIPT.replace('[ -b "$1" ]', '[ -f "$1" ]')

    def write(self, at: int, data: bytes) -> None:
        with Path(self.device).open("r+b") as opened:
            opened.seek(at)
            opened.write(data)
            opened.flush()
            os.fsync(opened.fileno())

    @property
    def content(self) -> bytes:
        return Path(self.device).read_bytes()

    @property
    def kind(self) -> str:
        probe = ["blkid", "-p", "-s", "TYPE", "-s", "LABEL", "-o", "value", self.device]
        return subprocess.run(probe, capture_output=True, text=True).stdout

    def close(self) -> None:
        if self.is_real:
            subprocess.run(["losetup", "--detach", self.device], check=True)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    made = Disk(tmp_path / "disk.img")
    yield made
    made.close()


def boot(device: str, script: str = SCRIPT) -> subprocess.CompletedProcess[str]:
    """Run the script as cloud-init's bootcmd does, without waiting for a late device."""
    words = ["sh", "-c", script, "volume", device, "1"]
    return subprocess.run(words, capture_output=True, text=True, timeout=60)


def test_blank_volume_gets_a_filesystem_once(disk: Disk):
    done = boot(disk.device, disk.script)
    assert (done.returncode, disk.kind) == (0, "unetops\next4\n"), done.stderr
    made = disk.content
    assert boot(disk.device, disk.script).returncode == 0
    assert disk.content == made


def _data(disk: Disk) -> None:
    disk.write(5000, b"rows of somebody")


def _end_of_the_first_mib(disk: Disk) -> None:
    disk.write(MIB - 1, b"x")


def _signature_at_the_end(disk: Disk) -> None:
    """The superblock of a RAID member (version 0.90) in the last 64 KiB."""
    disk.write(SIZE_BYTES - (64 << 10), struct.pack("<4I", 0xA92B4EFC, 0, 90, 0))
    assert "linux_raid_member" in disk.kind


def _other_filesystem(disk: Disk) -> None:
    subprocess.run(["mkfs.ext4", "-q", "-L", "theirs", disk.device], check=True)


@pytest.mark.parametrize(
    ("fill", "said"),
    [
        (_data, "not empty"),
        (_end_of_the_first_mib, "not empty"),
        (_signature_at_the_end, "blkid finds something"),
        (_other_filesystem, ""),
    ],
)
def test_volume_that_holds_anything_is_never_touched(
    disk: Disk, fill: Callable[[Disk], None], said: str
):
    fill(disk)
    before = disk.content
    done = boot(disk.device, disk.script)
    assert disk.content == before
    assert done.returncode == 0, done.stderr
    assert said in done.stderr
    assert ("not formatted" in done.stderr) == bool(said)


def test_absent_device_is_refused_and_no_file_made_in_its_place(tmp_path: Path):
    done = boot(str(tmp_path / "none"))
    assert done.returncode == 0, "an error would end cloud-init's wait"
    assert "no block device" in done.stderr
    assert not (tmp_path / "none").exists()


def test_what_is_no_block_device_is_refused(tmp_path: Path):
    file = tmp_path / "file"
    file.write_bytes(bytes(SIZE_BYTES))
    assert "no block device" in boot(str(file)).stderr
    assert file.read_bytes() == bytes(SIZE_BYTES)


@pytest.mark.parametrize("size", [0, MIB - 512])
def test_device_whose_first_mib_cannot_be_read_is_refused(tmp_path: Path, size: int):
    file = tmp_path / "short"
    file.write_bytes(bytes(size))
    done = boot(str(file), SCRIPT.replace('[ -b "$1" ]', '[ -f "$1" ]'))
    assert "its first MiB is unreadable" in done.stderr
    assert file.read_bytes() == bytes(size)


def test_device_that_comes_late_is_waited_for(disk: Disk, tmp_path: Path):
    link = tmp_path / "scsi-0DO_Volume_late"
    words = ["sh", "-c", disk.script, "volume", str(link), "40"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as running:
        link.symlink_to(disk.device)
        assert running.wait(60) == 0
    assert disk.kind == "unetops\next4\n"
