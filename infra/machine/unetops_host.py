#!/usr/bin/env python3
"""The machine's own program: first boot, releases, health, tokens, data sets by URL.

Standard library only, one file; Python 3.11. Run as root. Every command can be killed at any
line and run again: what a release has begun stands in pending.json, and the next command
finishes it or takes it back.
"""

import argparse
import contextlib
import fcntl
import hashlib
import json
import os
import pwd
import shutil
import sqlite3
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

USER = "unetops"
UNITS = ("unetops-web.service", "unetops-worker.service", "unetops-fetcher.service")
KEPT = 3  # releases, and backups of the database
HEALTH_S = 120.0  # importing torch takes long on a small machine
MOST_RESTARTS = 3  # a unit that fails again and again is not waited for to the end
LOCK_S = 1800.0
LAST_LINES = 30
TRIES = 5
WORK = ("boot", "fetch", "recover", "release")  # the machine is not idle while one of them runs
AUTHORITY = "/var/lib/caddy/.local/share/caddy/pki/authorities/local/root.crt"


class HostError(Exception):
    """Something an engineer has to know; its text is all that is shown."""


@dataclass(frozen=True)
class Pending:
    """A release that has stopped the service and is not proved healthy yet."""

    id: str
    before: str | None  # the release that served
    previous: str | None  # the one before that
    backups: str  # folder that holds the backup of this attempt
    step: str = "migrating"  # then "switched"


@dataclass(frozen=True)
class Machine:
    """Where everything lies; `root` is another folder only in tests."""

    root: Path = Path("/")
    url: str = "http://127.0.0.1:8000"
    health_s: float = HEALTH_S

    def at(self, path: str) -> Path:
        """A path of the machine."""
        return self.root / path.lstrip("/")

    @property
    def opt(self) -> Path:
        """Programs: environments and releases."""
        return self.at("/opt/unetops")

    @property
    def mount(self) -> Path:
        """The volume."""
        return self.at("/srv/unetops")

    @property
    def state(self) -> Path:
        """Notes of this program."""
        return self.at("/var/lib/unetops")

    @property
    def database(self) -> Path:
        """The service's SQLite file."""
        return self.mount / "home/unetops.db"

    def facts(self) -> dict[str, Any]:
        """What first boot was told."""
        file = self.at("/etc/unetops/machine.json")
        found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
        return found


def main(arguments: Sequence[str] | None = None, machine: Machine | None = None) -> int:
    """Run one command; 0 done, 1 failed with the reason on standard error."""
    given = _parser().parse_args(arguments)
    machine = machine or Machine()
    try:
        with awake(machine) if given.command in WORK else contextlib.nullcontext():
            given.run(machine, given)
    except HostError as error:
        say(f"unetops-host {given.command}: {error}")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="unetops-host", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)

    def add(name: str, run: Callable[[Machine, argparse.Namespace], None]) -> Any:
        command = commands.add_parser(name)
        command.set_defaults(run=run)
        return command

    release = add("release", lambda m, a: install(m, a))
    release.add_argument("--id", required=True)
    origin = release.add_mutually_exclusive_group(required=True)
    origin.add_argument("--wheel", type=Path)
    origin.add_argument("--source", help="URL of a wheel, or git+https://...@COMMIT")
    release.add_argument("--lock", type=Path, required=True)
    release.add_argument("--torch-index")
    release.add_argument("--address", help="what visitors use who send no server name")
    add("health", lambda m, a: health(m, a.wait)).add_argument("--wait", type=float, default=0.0)
    token_command = add("token", lambda m, a: token(m, another=a.new))
    token_command.add_argument("--new", action="store_true", help="though there is one")
    add("status", lambda m, _: show(json.dumps(status(m), indent=1)))
    add("fetch", lambda m, a: show(str(fetch(m, a.url)))).add_argument("url")
    add("boot", lambda m, _: boot(m))
    add("recover", lambda m, _: recover_alone(m))
    idle_command = add("idle", lambda m, a: idle(m, a.minutes * 60))
    idle_command.add_argument("--minutes", type=float, required=True)
    return parser


# Releases


def install(machine: Machine, given: argparse.Namespace) -> None:
    """Make a release serve, or leave the one that serves now."""
    _refuse_name(given.id)
    with alone(machine):
        recover(machine)
        if given.address:
            set_address(machine, given.address)
        folder = lay(machine, given)
        before = target(machine, "current")
        if before == given.id:
            systemctl("start", *UNITS)
        else:
            change(machine, folder, before)
        health(machine, machine.health_s)
        prune(machine)
    say(f"release {given.id} serves")


def _refuse_name(name: str) -> None:
    if not name or name.startswith(".") or not name.replace(".", "").replace("-", "").isalnum():
        raise HostError(f"the release's name is no name: expected a commit, found {name!r}")


def lay(machine: Machine, given: argparse.Namespace) -> Path:
    """The release's folder beside the others; a second call finds it."""
    folder: Path = machine.opt / "releases" / given.id
    if folder.exists():
        return folder
    if not given.lock.is_file():
        raise HostError(f"no lock file at {given.lock}: send requirements.lock first")
    wheel: Path = given.wheel or build(machine, given.source)
    if not wheel.is_file():
        raise HostError(f"no wheel at {wheel}: send it first")
    index = given.torch_index or machine.facts().get("torch_index")
    base = lay_base(machine, wheel, given.lock, index)
    beside = folder.with_name(f".{given.id}.new")
    shutil.rmtree(beside, ignore_errors=True)
    pip(base, "install", "--no-deps", "--target", str(beside), str(wheel))
    facts = {"id": given.id, "base": base.name, "source": given.source or wheel.name}
    (beside / "release.json").write_text(json.dumps(facts, indent=1) + "\n")
    (beside / "run").write_text(_start_script(folder, base))
    (beside / "run").chmod(0o755)
    os.sync()  # a name is given only to what lies on the disk
    beside.rename(folder)
    return folder


def _start_script(folder: Path, base: Path) -> str:
    # PYTHONSAFEPATH: the working folder belongs to the service, and no code is taken from it.
    lines = [
        "#!/bin/sh",
        f"export PYTHONPATH={folder} PYTHONSAFEPATH=1 PYTHONNOUSERSITE=1",
        f"export UNETOPS_COMMIT={folder.name}",
        f'exec {base}/bin/python -m app.cli "$@"',
    ]
    return "\n".join(lines) + "\n"


def lay_base(machine: Machine, wheel: Path, lock: Path, index: str | None) -> Path:
    """The environment with everything that the wheel needs, at the versions of the lock.

    Its name holds the lock's hash, and one of the index and of what the wheel asks for: a
    dependency can move from the tools into the service without a change of the lock. An
    environment cannot be moved, so it is made in its place and marked when complete.
    """
    asked = _sha256(f"{index}\n{_requirements(wheel)}".encode())[:8]
    folder = machine.opt / "base" / f"{_sha256(lock.read_bytes())[:16]}-{asked}"
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


def _requirements(wheel: Path) -> str:
    with zipfile.ZipFile(wheel) as archive:
        names = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        text = "\n".join(archive.read(name).decode() for name in names)
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


def change(machine: Machine, folder: Path, before: str | None) -> None:
    """Stop, back up and migrate, switch, start; take all back where the new release fails.

    The service stands still before the backup: what it wrote later would be lost with a way back.
    """
    backups = machine.mount / "backups" / f"{time.time_ns()}-{folder.name}"
    pending = Pending(folder.name, before, target(machine, "previous"), str(backups))
    write_pending(machine, pending)
    try:
        stop()
        migrate(machine, folder, backups)
        pending = replace(pending, step="switched")
        write_pending(machine, pending)
        switch(machine, "previous", before)
        switch(machine, "current", folder.name)
        systemctl("start", *UNITS)
        health(machine, machine.health_s)
    except HostError as error:
        roll_back(machine, pending)
        raise HostError(f"release {folder.name} failed, {before} serves again\n{error}") from error
    clear_pending(machine)


def stop() -> None:
    """End the workers, which lets their jobs save a checkpoint, and then the web process."""
    for unit in reversed(UNITS):
        systemctl("stop", unit)


def migrate(machine: Machine, folder: Path, backups: Path) -> None:
    """Back up the database and bring it to the release's version."""
    own(machine, backups, 0o700)
    run(*as_service(), str(folder / "run"), "migrate", "--backup", str(backups),
        env=environment(machine))  # fmt: skip


def roll_back(machine: Machine, pending: Pending) -> None:
    """Make the release serve that served before, with its database if the new one changed it."""
    stop()
    restore(machine, Path(pending.backups))
    switch(machine, "current", pending.before)
    switch(machine, "previous", pending.previous)
    if pending.before:
        systemctl("start", *UNITS)
        with contextlib.suppress(HostError):  # the failure that led here says more
            health(machine, machine.health_s)
    clear_pending(machine)


def restore(machine: Machine, backups: Path) -> None:
    """Put the backup in the database's place where a migration changed its structure."""
    found = sorted(backups.glob("*"), key=lambda file: file.stat().st_mtime_ns)
    saved = structure(found[-1]) if found else None
    if saved is None or saved == structure(machine.database):
        return
    beside = machine.database.with_suffix(".restoring")
    shutil.copyfile(found[-1], beside)
    owned(beside, 0o600)
    os.sync()
    for end in ("-wal", "-shm"):  # of the changed database; they would be played into the old one
        Path(f"{machine.database}{end}").unlink(missing_ok=True)
    beside.replace(machine.database)
    say(f"the database is that of {found[-1]} again")


def structure(database: Path) -> list[Any] | None:
    """Tables and version of a database; None if it is none."""
    try:
        with contextlib.closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as opened:
            tables = "SELECT type, name, sql FROM sqlite_master ORDER BY type, name"
            found: list[Any] = opened.execute(tables).fetchall()
            if any(name == "alembic_version" for _, name, _ in found):
                found += opened.execute("SELECT version_num FROM alembic_version").fetchall()
            return found
    except sqlite3.Error:
        return None


def recover(machine: Machine) -> None:
    """Finish or take back what an earlier run had begun when it was cut off."""
    file = machine.state / "pending.json"
    if not file.exists():
        return
    pending = Pending(**json.loads(file.read_text()))
    say(f"release {pending.id} was cut off")
    if pending.step == "switched" and target(machine, "current") == pending.id:
        # It may have served for hours since, so a healthy one stays with all that it wrote.
        systemctl("start", *UNITS)
        with contextlib.suppress(HostError):
            health(machine, machine.health_s)
            clear_pending(machine)
            return
    roll_back(machine, pending)


def recover_alone(machine: Machine) -> None:
    """`recover`, unless a release runs now."""
    with alone(machine):
        recover(machine)


def prune(machine: Machine) -> None:
    """Remove old releases, environments that none of the others uses, and old backups."""
    releases = machine.opt / "releases"
    named = {target(machine, "current"), target(machine, "previous")}
    found = [path for path in releases.iterdir() if not path.name.startswith(".")]
    found.sort(key=lambda path: (path.name in named, path.stat().st_mtime_ns), reverse=True)
    for path in [*found[KEPT:], *releases.glob(".*.new")]:
        shutil.rmtree(path)
    used = {json.loads((path / "release.json").read_text())["base"] for path in found[:KEPT]}
    for path in (machine.opt / "base").iterdir():
        if path.name not in used:
            shutil.rmtree(path)
    for path in sorted((machine.mount / "backups").glob("*-*"))[:-KEPT]:
        shutil.rmtree(path)


def target(machine: Machine, link: str) -> str | None:
    """The release that a link leads to."""
    path = machine.opt / link
    return path.readlink().name if path.is_symlink() else None


def switch(machine: Machine, link: str, release: str | None) -> None:
    """Lead a link to a release in one step; None removes it."""
    path = machine.opt / link
    if release is None:
        path.unlink(missing_ok=True)
        return
    beside = path.with_suffix(".new")
    beside.unlink(missing_ok=True)
    beside.symlink_to(Path("releases") / release)
    beside.replace(path)


def write_pending(machine: Machine, pending: Pending) -> None:
    """Note how far a release is."""
    write(machine.state / "pending.json", json.dumps(asdict(pending)))


def clear_pending(machine: Machine) -> None:
    """Note that nothing is under way."""
    (machine.state / "pending.json").unlink(missing_ok=True)


# Looking


def health(machine: Machine, wait_s: float) -> None:
    """Wait until web, database, worker and predictor answer.

    Raises:
        HostError: if they do not within the time, or a unit only ends and starts, with the last
            lines of both units.
    """
    began, before = time.monotonic(), restarts()
    while True:
        found = [f"{path}: {said}" for path in ("/healthz", "/readyz")
                 if (said := ask(machine.url + path)) != "200"]  # fmt: skip
        if not found:
            return
        waited = time.monotonic() - began
        if waited >= wait_s or restarts() - before >= MOST_RESTARTS:
            raise HostError(f"not healthy after {waited:.0f} s: {'; '.join(found)}\n{journal()}")
        time.sleep(min(0.5, wait_s))


def restarts() -> int:
    """How often systemd has started a unit again since somebody started them."""
    lines = attempt("systemctl", "show", "--value", "-p", "NRestarts", *UNITS).split()
    return sum(int(line) for line in lines if line.isdecimal())


def ask(url: str) -> str:
    """What an address of this machine answers: the status, or why there is none."""
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:  # noqa: S310 - our own address
            return str(answer.status)
    except urllib.error.HTTPError as error:
        return f"{error.code} {error.read(300).decode(errors='replace')}"
    except OSError as error:
        return str(error)


def journal() -> str:
    """The last lines of the units."""
    words = ("--no-pager", "-o", "short-iso", "-n", str(LAST_LINES))
    return attempt("journalctl", *words, *(word for unit in UNITS for word in ("-u", unit)))


def status(machine: Machine) -> dict[str, Any]:
    """What serves here, and by what one knows this machine and its volume again."""
    file, boot_id = machine.at(AUTHORITY), Path("/proc/sys/kernel/random/boot_id")
    pair = _sha256(ssl.PEM_cert_to_DER_cert(file.read_text())).upper() if file.exists() else ""
    fingerprint = ":".join(pair[at : at + 2] for at in range(0, len(pair), 2))
    device = machine.facts().get("device", "")
    volume = attempt("blkid", "-p", "-s", "UUID", "-o", "value", device).strip()
    return {
        "release": target(machine, "current"),
        "previous": target(machine, "previous"),
        "pending": (machine.state / "pending.json").exists(),
        "volume_uuid": volume or None,
        "certificate_authority": fingerprint or None,
        "boot_id": boot_id.read_text().strip(),
    }


def token(machine: Machine, *, another: bool) -> None:
    """Show the first administrator's token, once."""
    command = [*as_service(), str(machine.opt / "current/run"), "token"]
    if target(machine, "current") is None:
        raise HostError("no release serves yet: a token is made by the service's own program")
    listed = json.loads(run(*command, "list", "--json", env=environment(machine)))
    if not another and any(row["role"] == "admin" and row["state"] == "valid" for row in listed):
        raise HostError("an administrator's token was shown already; --new makes another")
    made = run(*command, "create", "--role", "admin", "--label", "host", env=environment(machine))
    show(made.strip())


# First boot and what goes with it


def boot(machine: Machine) -> None:
    """Everything of the first boot that cloud-init does not do; its end stands in boot.json."""
    lines: list[str] = []
    steps = (mounted, packages, folders, swap, system, driver, first_release, first_dataset)
    try:
        for step in steps:
            lines.append(f"{step.__name__}: {step(machine) or 'done'}")
            say(lines[-1])
    except (HostError, OSError) as error:
        lines += str(error).splitlines()
        _write_boot(machine, "failed", lines)
        raise HostError(f"first boot failed in {step.__name__}\n{error}") from error
    _write_boot(machine, "done", lines)


def _write_boot(machine: Machine, end: str, lines: list[str]) -> None:
    made = {"status": end, "log": lines[-LAST_LINES:]}
    write(machine.state / "boot.json", json.dumps(made, indent=1) + "\n")


def mounted(machine: Machine) -> None:
    """The volume is there; without it data would go to the droplet's own disk."""
    if machine.root == Path("/") and not machine.mount.is_mount():
        device = machine.facts().get("device")
        raise HostError(f"the volume is not mounted at {machine.mount}: is {device} attached?")


def packages(machine: Machine) -> str:
    """What cloud-init was to install; it does not go on by itself where the power went."""
    wanted = machine.facts().get("packages") or []
    query = ("dpkg-query", "--show", "--showformat=${db:Status-Status}")
    lacking = [name for name in wanted if attempt(*query, name) != "installed"]
    if not lacking:
        return "all there"
    calm = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ("-o", "DPkg::Lock::Timeout=300", "-o", "Dpkg::Options::=--force-confold")
    with contextlib.suppress(HostError):  # what it cannot finish, apt-get does
        run("dpkg", "--force-confold", "--configure", "-a", env=calm)
    run("apt-get", *wait, "update", env=calm)
    run("apt-get", *wait, "-y", "--fix-broken", "install", *lacking, env=calm)
    return f"installed now: {', '.join(lacking)}"


def folders(machine: Machine) -> None:
    """Folders on the volume and on the disk."""
    for name in ("home", "backups"):
        own(machine, machine.mount / name, 0o700)
    for path in (machine.mount / "incoming", machine.opt / "releases", machine.opt / "base"):
        path.mkdir(parents=True, exist_ok=True)
    machine.at("/etc/caddy/address.d").mkdir(parents=True, exist_ok=True)


def swap(machine: Machine) -> str:
    """The swap file; a machine that refuses it (a container) goes on without."""
    size, file = int(machine.facts().get("swap_gib") or 0), machine.at("/swapfile")
    table, line = machine.at("/etc/fstab"), f"{file} none swap sw 0 0\n"
    if not size:
        return "none asked for"
    if table.exists() and line in table.read_text():
        return "there already"
    try:
        file.unlink(missing_ok=True)  # of a boot that was cut off here
        file.touch(0o600)
        run("fallocate", "-l", f"{size}G", str(file))
        run("mkswap", str(file))
        run("swapon", str(file))
    except HostError as error:
        file.unlink(missing_ok=True)
        return f"not on: {error}"
    with table.open("a") as lines:
        lines.write(line)
    return f"{size} GiB"


def system(machine: Machine) -> str:
    """Kernel settings, log limits, firewall, SSH, units, Caddy."""
    refused = []
    # Refused by a container; a droplet takes them.
    for command in (("sysctl", "--system"), ("systemctl", "restart", "systemd-journald")):
        with contextlib.suppress(HostError):
            run(*command)
            continue
        refused.append(" ".join(command))
    systemctl("daemon-reload")
    systemctl("enable", *UNITS, "unetops-recover.service", "nftables.service", "caddy.service")
    systemctl("restart", "nftables.service")
    systemctl("reload-or-restart", "ssh.service")
    systemctl("restart", "caddy.service")
    if machine.at("/etc/systemd/system/unetops-idle.timer").exists():
        systemctl("enable", "--now", "unetops-idle.timer")
    return f"refused: {', '.join(refused)}" if refused else "done"


def driver(machine: Machine) -> str:
    """A GPU size has a driver that answers."""
    if not machine.facts().get("gpu"):
        return "no GPU"
    try:
        return run("nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader").strip()
    except HostError as error:
        raise HostError(f"no GPU driver answers: take a GPU image\n{error}") from error


def check_gpu(base: Path) -> None:
    """The environment's torch can use the GPU."""
    code = "import sys, torch; sys.exit(0 if torch.cuda.is_available() else torch.__version__)"
    try:
        run(str(base / "bin/python"), "-c", code)
    except HostError as error:
        raise HostError(
            f"torch does not reach the GPU: set torchIndex to a build for this driver\n{error}"
        ) from error


def first_release(machine: Machine) -> str:
    """The release that first boot is to install, where it is one."""
    facts = machine.facts()
    if not facts.get("source"):
        return "comes over SSH"
    lock = str(machine.at("/etc/unetops/requirements.lock"))
    words = ["release", "--id", facts["release_id"], "--source", facts["source"], "--lock", lock]
    install(machine, _parser().parse_args(words))
    return str(facts["release_id"])


def first_dataset(machine: Machine) -> str:
    """The dataset that first boot is to fetch, where there is one."""
    url = machine.facts().get("dataset_url")
    return str(fetch(machine, url)) if url else "none asked for"


def fetch(machine: Machine, url: str) -> Path:
    """Bring a file to the volume; goes on where an earlier run ended.

    `#sha256=HEX` at the end of the address is compared with what came.
    """
    plain, _, wanted = url.partition("#sha256=")
    name = Path(urllib.parse.unquote(urllib.parse.urlsplit(plain).path)).name
    if urllib.parse.urlsplit(plain).scheme not in {"http", "https"} or not name:
        raise HostError(f"{plain}: expected http(s)://.../FILE")
    to = machine.mount / "incoming" / name
    part = to.with_name(f"{name}.part")
    to.parent.mkdir(parents=True, exist_ok=True)
    if not to.exists():
        _download(plain, part)
    held = to if to.exists() else part
    if wanted and (found := _sha256_file(held)) != wanted.lower():
        held.unlink()
        raise HostError(f"{plain}: expected sha256 {wanted}, found {found}; removed")
    if held is part:
        part.replace(to)
    return to


def _download(url: str, part: Path) -> None:
    for trial in range(1, TRIES + 1):
        try:
            return _go_on(url, part)
        except (OSError, urllib.error.URLError) as error:
            if getattr(error, "code", 500) < 500 or trial == TRIES:
                raise HostError(f"{url} cannot be fetched: {error}") from error
            time.sleep(trial)
    return None


def _go_on(url: str, part: Path) -> None:
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    request = urllib.request.Request(url, headers=headers)  # noqa: S310 - http(s), see fetch
    try:
        answer = urllib.request.urlopen(request, timeout=60)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: nothing is left to fetch
            raise
        return
    with answer, part.open("ab" if answer.status == 206 else "wb") as file:
        shutil.copyfileobj(answer, file, 1 << 20)
        length = answer.headers.get("Content-Length")
        start = have if answer.status == 206 else 0
        if length and file.tell() - start != int(length):
            raise OSError(f"ended after {file.tell()} bytes")


def set_address(machine: Machine, address: str) -> None:
    """Have Caddy show the certificate for this address to clients that send no name.

    It starts over: a domain's certificate, which could not be had before the address led here, is
    asked for at once and not after its next pause.
    """
    file, text = machine.at("/etc/caddy/address.d/address.conf"), f"default_sni {address}\n"
    if not file.exists() or file.read_text() != text:
        write(file, text)
        systemctl("reload-or-restart", "caddy.service")


def idle(machine: Machine, limit_s: float) -> None:
    """Power off if no job, release or fetch ran for so long.

    The droplet still bills when it is off; only destroying it ends that.
    """
    mark = machine.at("/run/unetops-idle")
    if not mark.exists() or works(machine):
        write(mark, "")
    elif time.time() - mark.stat().st_mtime > limit_s:
        say(f"no job for {limit_s / 60:.0f} minutes: powers off")
        systemctl("poweroff")


def works(machine: Machine) -> bool:
    """Whether a step of a job, or one of the long commands of this program, runs now."""
    for file in machine.at("/proc").glob("[0-9]*/environ"):
        with contextlib.suppress(OSError):
            if b"UNETOPS_JOB=" in file.read_bytes():
                return True
    with _awake_file(machine).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return (machine.state / "pending.json").exists()


@contextlib.contextmanager
def awake(machine: Machine) -> Iterator[None]:
    """Keep `idle` from powering off; several may, and each ends with its process, however."""
    with _awake_file(machine).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def _awake_file(machine: Machine) -> Path:
    machine.state.mkdir(parents=True, exist_ok=True)
    return machine.state / "awake.lock"


# Parts


def alone_path(machine: Machine) -> Path:
    """The file that one release at a time holds."""
    return machine.state / "release.lock"


@contextlib.contextmanager
def alone(machine: Machine) -> Iterator[None]:
    """Hold the lock; it ends with the process, however."""
    path = alone_path(machine)
    path.parent.mkdir(parents=True, exist_ok=True)
    until = time.monotonic() + LOCK_S
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError as error:
                if time.monotonic() > until:
                    raise HostError(f"another release runs ({path})") from error
                time.sleep(0.2)
        yield


def as_service() -> list[str]:
    """Words before a command that run it as the service's user."""
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return []
    return ["setpriv", f"--reuid={USER}", f"--regid={USER}", "--init-groups", "--"]


def environment(machine: Machine) -> dict[str, str]:
    """What the units give the service."""
    lines = machine.at("/etc/unetops/environment").read_text().splitlines()
    given = dict(line.split("=", 1) for line in lines if "=" in line)
    return {"PATH": os.environ["PATH"], "LANG": "C.UTF-8", **given}


def own(machine: Machine, folder: Path, mode: int) -> None:
    """A folder of the service's user."""
    folder.mkdir(parents=True, exist_ok=True)
    owned(folder, mode)


def owned(path: Path, mode: int) -> None:
    """Give a path to the service's user."""
    path.chmod(mode)
    if as_service():
        shutil.chown(path, USER, USER)


def pip(environment_folder: Path, verb: str, *words: str) -> None:
    """Run an environment's pip."""
    quiet = ("--quiet", "--no-input", "--disable-pip-version-check")
    run(str(environment_folder / "bin/python"), "-m", "pip", verb, *quiet, *words)


def systemctl(*words: str) -> None:
    """Run systemctl."""
    run("systemctl", *words)


def run(*command: str, env: dict[str, str] | None = None) -> str:
    """What a command prints.

    Raises:
        HostError: if it fails, with its last lines.
    """
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    except OSError as error:
        raise HostError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        last = "\n".join((done.stdout + done.stderr).splitlines()[-LAST_LINES:])
        raise HostError(f"`{' '.join(command)}` ended with {done.returncode}\n{last}")
    return done.stdout


def attempt(*command: str) -> str:
    """What a command prints, or nothing: not to be had is no failure."""
    try:
        return run(*command)
    except HostError:
        return ""


def write(path: Path, text: str) -> None:
    """Write a file in one step."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f"{path.name}.new")
    with beside.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def say(text: str) -> None:
    """Tell the person or the log."""
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def show(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def _sha256_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
