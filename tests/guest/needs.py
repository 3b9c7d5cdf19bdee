"""Requirements of guests, and what tests do if they are missing."""

import os
import platform
import shutil
import sys

from tests.missing import missing

COMMANDS = (
    *("mmdebstrap", "systemd-nspawn", "dpkg-scanpackages", "ip", "ssh", "scp", "losetup"),
    *("mkfs.ext4", "nsenter", "pgrep"),
)


def lacking() -> list[str]:
    """Everything that prevents this machine from booting a guest, as phrases."""
    found = []
    if platform.system() != "Linux" or os.geteuid() != 0:
        found.append("root on Linux")
    found += [f"the command {name}" for name in COMMANDS if shutil.which(name) is None]
    if sys.version_info[:2] != (3, 11):
        found.append("Python 3.11, which Debian 12 has, so that a guest can use this environment")
    return found


def require() -> None:
    """Skip, or fail if the environment says that nothing may be missing."""
    if found := lacking():
        everything = ", ".join(found)
        missing(f"no guest can boot here; missing: {everything} (tests/system/install-guest.sh)")
