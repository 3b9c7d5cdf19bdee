"""A Debian 12 tree that boots cloud-init, and the packages that a guest may install, both cached.

The tree is built with mmdebstrap and this machine's apt configuration, of which nothing remains:
a guest reads only a local repository and a local folder of wheels.
"""

import fcntl
import functools
import hashlib
import os
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

BASE = (
    *("systemd", "systemd-sysv", "udev", "dbus", "libpam-systemd", "cloud-init"),
    *("openssh-server", "sudo", "python3", "python3-venv", "iproute2", "e2fsprogs"),
    *("parted", "fdisk", "gdisk", "ca-certificates", "curl", "procps", "netbase", "kmod", "gpg"),
)
OFFERED = (
    *("caddy", "git", "jq", "nftables", "openssh-server", "python3-venv", "rsync", "sqlite3"),
    "unattended-upgrades",
)
# Read with the code itself, in case the file is edited before the tree is built.
CODE = Path(__file__).read_bytes()
HARNESS = "/opt/harness"
SITE_PACKAGES = f"{HARNESS}/site-packages"
MOUNT_UNIT = """[Unit]
Description=Mount what fstab names (systemd's generator skips devices in a container)
DefaultDependencies=no
ConditionVirtualization=container
After=systemd-tmpfiles-setup-dev.service local-fs-pre.target systemd-remount-fs.service
Before=local-fs.target cloud-init-local.service
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=-/bin/mount -a
[Install]
WantedBy=local-fs.target
"""
CLOUD_CONFIG = """datasource_list: [NoCloud, None]
apt: {preserve_sources_list: true}
network: {config: disabled}
disable_root: false
ssh_pwauth: false
locale: C.UTF-8
"""
FILES = {
    "etc/machine-id": "",
    "etc/apt/sources.list.d/harness.list": f"deb [trusted=yes] file:{HARNESS}/debs ./\n",
    "etc/apt/apt.conf.d/99harness": 'APT::Install-Recommends "0";\nAPT::Sandbox::User "root";\n',
    # Guests are discarded, so packages need not be synced to disk.
    "etc/dpkg/dpkg.cfg.d/harness": "force-unsafe-io\n",
    "etc/pip.conf": f"[global]\nno-index = true\nfind-links = {HARNESS}/wheelhouse\n",
    "etc/cloud/cloud.cfg.d/99-harness.cfg": CLOUD_CONFIG,
    "etc/systemd/system/harness-fstab.service": MOUNT_UNIT,
}
APT = ("-y", "--no-install-recommends", "--download-only")
MMDEBSTRAP = (
    *("mmdebstrap", "--quiet", "--variant=minbase", "--mode=root", "--format=directory"),
    *("--aptopt=Acquire::Languages none", "--aptopt=APT::Install-Recommends false"),
    *("--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/doc/*"),
    "--dpkgopt=path-exclude=/usr/share/locale/*",
)


def cache() -> Path:
    """The cache for slow builds, outside the working copy."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "unetops"


def recipe() -> str:
    """The first digits of a hash over everything that determines the tree."""
    parts = [*BASE, "-", *OFFERED, "-", *MMDEBSTRAP, *APT, *FILES, *FILES.values()]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:16]


def golden() -> Path:
    """The tree, built at the first call; concurrent processes build it only once."""
    tree = cache() / f"guest-{recipe()}"
    with locked(tree.with_suffix(".lock")):
        if not tree.is_dir():
            building = tree.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            _build(building)
            building.rename(tree)
    return tree


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock that ends with the process; creates the file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _build(tree: Path) -> None:
    offer = f'APT_CONFIG="$MMDEBSTRAP_APT_CONFIG" apt-get {" ".join(APT)} install'
    archives = '"$1"/var/cache/apt/archives'
    hooks = (
        f"{offer} {' '.join(OFFERED)}",
        f'mkdir -p "$1"{HARNESS}/debs "$1"{HARNESS}/wheelhouse "$1"{SITE_PACKAGES}',
        f'mv {archives}/*.deb "$1"{HARNESS}/debs/',
        f'cd "$1"{HARNESS}/debs && dpkg-scanpackages -m . >Packages',
    )
    arguments = [f"--customize-hook={hook}" for hook in hooks]
    command = [*MMDEBSTRAP, f"--include={','.join(BASE)}", *arguments, "bookworm", str(tree)]
    done = subprocess.run([*command, *_sources()], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"mmdebstrap ended with {done.returncode}:\n{done.stderr[-3000:]}")
    _finish(tree)


def _sources() -> list[str]:
    """This machine's sources, from which mmdebstrap takes Debian 12's."""
    folder = Path("/etc/apt/sources.list.d")
    found = [folder / "debian.sources", Path("/etc/apt/sources.list")]
    return [str(path) for path in found if path.is_file()]


def _finish(tree: Path) -> None:
    """Remove what is specific to this machine, add what a cloud image has."""
    stale = [*tree.glob("etc/apt/sources.list*"), *tree.glob("etc/ssh/ssh_host_*")]
    for path in [*stale, tree / "etc/hostname", tree / "etc/resolv.conf", tree / "etc/machine-id"]:
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for name, text in FILES.items():
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        (tree / name).write_text(text)
    (tree / "etc/resolv.conf").touch()
    wants = tree / "etc/systemd/system/local-fs.target.wants"
    wants.mkdir(parents=True, exist_ok=True)
    (wants / "harness-fstab.service").symlink_to("../harness-fstab.service")


@functools.cache
def wheelhouse(lock: str) -> Path:
    """A wheel for every line of a lock, with its real requirements and without its code.

    Whatever a droplet asks pip for is resolved as it would be there, against the very versions;
    a requirement that the lock lacks fails. The code, gigabytes of it, is this environment's own,
    mounted read-only and named by a .pth file in every wheel. Debian's Python has the same ABI.
    """
    key = hashlib.sha256(CODE + lock.encode()).hexdigest()[:16]
    folder = cache() / f"wheels-{key}"
    with locked(folder.with_suffix(".lock")):
        if not folder.is_dir():
            building = folder.with_suffix(".building")
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir()
            # torch asks for setuptools, which a lock made by pip leaves out.
            named = {"setuptools": metadata.version("setuptools")}
            named |= dict(re.findall(r"^([\w.-]+)==([^\s;\\]+)", lock, re.MULTILINE))
            for name, version in named.items():
                empty_wheel(building, name, version)
            building.rename(folder)
    return folder


def empty_wheel(folder: Path, name: str, version: str) -> None:
    """A wheel with the metadata of a distribution whose code is in this environment."""
    stem = f"{re.sub(r'[-_.]+', '_', name)}-{version}"
    info = f"{stem}.dist-info"
    files = {
        f"{stem}.pth": f"{SITE_PACKAGES}\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n"
        + _requirements(name, version),
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    if entries := _entry_points(name):  # setuptools finds its own commands by them
        files[f"{info}/entry_points.txt"] = entries
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"])
    with zipfile.ZipFile(folder / f"{stem}-py3-none-any.whl", "w") as archive:
        for path, text in files.items():
            archive.writestr(path, text)


def _entry_points(name: str) -> str:
    try:
        return metadata.distribution(name).read_text("entry_points.txt") or ""
    except metadata.PackageNotFoundError:
        return ""


def _requirements(name: str, version: str) -> str:
    """Requirements of the installed distribution, if its version matches the lock."""
    try:
        found = metadata.metadata(name)
    except metadata.PackageNotFoundError:
        return ""
    if found["Version"].partition("+")[0] != version.partition("+")[0]:
        return ""
    lines = [f"Provides-Extra: {extra}\n" for extra in found.get_all("Provides-Extra") or ()]
    return "".join(lines + [f"Requires-Dist: {r}\n" for r in found.get_all("Requires-Dist") or ()])


if __name__ == "__main__":
    golden()
