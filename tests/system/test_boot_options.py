"""Options beyond the plain droplet, each in a guest that boots for real."""

from __future__ import annotations

import http.client
import json
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace

import paramiko
import pytest

from app.jobs import process
from infra.cloud_init import user_data
from tests.guest import acme, golden
from tests.guest.droplet import Droplet
from tests.guest.files import Files, index, serving
from tests.guest.guest import sweep
from tests.guest.needs import require
from tests.system.options import DATA, LOCK, SHA256, Made, ask, boot_log, told
from tests.system.test_boot import HOST, Clock

pytestmark = [pytest.mark.system, pytest.mark.timeout(600)]

DOMAIN = "masks.example.test"
INCOMING = "/srv/unetops/incoming"
GPU = "NVIDIA H100 80GB HBM3, 570.86.15"
TRUSTED = "/etc/ssl/certs/pebble.pem"
RESERVED = "198.18.7.7"


@pytest.fixture(scope="module")
def clock(request: pytest.FixtureRequest) -> Clock:
    return Clock(request.config)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Made]:
    require()
    sweep()
    with ExitStack() as ends:
        files = ends.enter_context(serving(Files()))
        yield Made(tmp_path_factory.mktemp("options"), files, ends)


# A droplet with a domain, whose first boot installs a release and fetches a data set


@pytest.fixture(scope="module")
def unbooted(made: Made) -> Droplet:
    return made.droplet("public")


@pytest.fixture(scope="module")
def authority(made: Made, unbooted: Droplet) -> acme.Authority:
    here = unbooted.guest.reserve().here
    return made.ends.enter_context(acme.authority(made.folder / "acme", here))


@pytest.fixture(scope="module")
def public(made: Made, unbooted: Droplet, authority: acme.Authority, clock: Clock) -> Droplet:
    """Booted before its name resolves to it, as a reserved address is assigned after the boot."""
    droplet = unbooted
    made.files.cut_once.add("/images.zip")
    droplet.guest.image[TRUSTED] = authority.own_certificate
    spec = replace(
        made.spec(droplet),
        domain=DOMAIN,
        acme_directory=authority.directory,
        source=f"{made.site(droplet)}/dist/{made.wheel.name}",
        dataset_url=f"{made.site(droplet)}/images.zip#sha256={SHA256}",
        gpu_idle_minutes=30,
    )
    droplet.guest.user_data = user_data(spec)
    clock.start()
    report = droplet.boot()
    clock.lap("first boot with release and data set")
    assert report["status"] == "done", report
    return droplet


def test_first_boot_installs_the_release_of_a_url_by_itself(public: Droplet):
    assert "first_release: first" in boot_log(public)
    assert json.loads(public.ssh(f"{HOST} status").stdout)["release"] == "first"
    public.ssh(f"{HOST} health")


def test_first_boot_fetches_the_dataset_though_the_connection_was_cut(made: Made, public: Droplet):
    (line,) = re.findall(rf"first_dataset: ({INCOMING}/\w+-images\.zip)", str(boot_log(public)))
    assert told(public, "sha256sum", line).split()[0] == SHA256
    assert made.files.starts.count(("/images.zip", 0)) == 1
    assert [start for path, start in made.files.starts if path == "/images.zip"][1] > 0


def test_a_domain_gets_a_certificate_of_the_acme_server_once_it_leads_here(
    made: Made, public: Droplet, authority: acme.Authority, clock: Clock
):
    trust = authority.trust()
    with pytest.raises(ssl.SSLError):
        ask(public, "/healthz", trust, name=DOMAIN)
    authority.lead(DOMAIN, public.address)
    clock.start()
    # What `pulumi up` runs after the boot, when the address points to this droplet.
    lock = "/etc/unetops/requirements.lock"
    same = f"--id first --source {made.site(public)}/dist/{made.wheel.name} --lock {lock}"
    public.ssh(f"{HOST} release {same} --address {public.address}")
    public.until(lambda: ask(public, "/healthz", trust, name=DOMAIN)[0] == 200, "HTTPS", 45)
    clock.lap("domain leads here, to HTTPS under the public authority")
    _, headers = ask(public, "/healthz", trust, name=DOMAIN)
    assert headers["strict-transport-security"] == "max-age=31536000"
    status, headers, _ = public.get("/rules", port=80)
    assert (status, headers["location"]) == (308, f"https://{DOMAIN}/rules")


def test_a_release_of_a_git_commit_is_built_on_the_machine(made: Made, public: Droplet):
    source = f"git+{made.site(public)}/repository.git@{made.commit}"
    lock = "/etc/unetops/requirements.lock"
    public.ssh(f"{HOST} release --id {made.commit[:12]} --source {source} --lock {lock}")
    assert json.loads(public.ssh(f"{HOST} status").stdout)["release"] == made.commit[:12]


def start_release(public: Droplet, made: Made, name: str) -> None:
    """Start a release in a separate unit, so that it can be killed."""
    origin = f"--source {made.site(public)}/dist/{made.wheel.name}"
    words = f"{HOST} release --id {name} {origin} --lock /etc/unetops/requirements.lock"
    public.guest.exec("systemd-run", "--quiet", "--collect", "--unit=release", *words.split())


def kill_release(public: Droplet, when: Callable[[], bool], what: str) -> None:
    public.until(when, what, 60, every=0.002)  # partial files exist only for a moment
    public.guest.exec("systemctl", "kill", "--signal=KILL", "--kill-whom=all", "release")
    public.until(lambda: told(public, "systemctl", "is-active", "release") != "active", "its end")


def pending(public: Droplet) -> str:
    file = public.guest.root / "var/lib/unetops/pending.json"
    return file.read_text() if file.exists() else ""


def test_a_release_killed_anywhere_leaves_one_that_serves_and_the_next_run_finishes_it(
    made: Made, public: Droplet, authority: acme.Authority, clock: Clock
):
    before = json.loads(public.ssh(f"{HOST} status").stdout)["release"]
    clock.start()
    start_release(public, made, "second")
    kill_release(public, (public.guest.root / "opt/unetops/releases/.second.new").exists, "a part")
    assert ask(public, "/healthz", authority.trust(), name=DOMAIN)[0] == 200
    assert json.loads(public.ssh(f"{HOST} status").stdout)["release"] == before
    clock.lap("release killed while it is laid beside: the old one serves")
    for step in ("migrating", "switched"):
        start_release(public, made, "second")
        kill_release(public, lambda step=step: f'"{step}"' in pending(public), step)
        assert json.loads(public.ssh(f"{HOST} status").stdout)["pending"]
    public.ssh(f"{HOST} recover")
    public.ssh(f"{HOST} health --wait 60")
    start_release(public, made, "second")
    public.until(lambda: told(public, "systemctl", "is-active", "release") != "active", "end", 60)
    status = json.loads(public.ssh(f"{HOST} status").stdout)
    assert (status["release"], status["pending"]) == ("second", False)
    clock.lap("release killed in its migration and after the switch, then done")


def looks(public: Droplet) -> int:
    """How often the machine has checked whether it is idle."""
    unit = "unetops-idle.service"
    return told(public, "journalctl", "-o", "cat", "--no-pager", "-u", unit).count("Finished ")


def wait_for_looks(public: Droplet, count: int) -> None:
    """Wait for more checks, one per second: with a limit of 1.5 s, some are after it."""
    before = looks(public)
    public.until(lambda: looks(public) >= before + count, f"{count} looks", 60)


def test_an_idle_machine_powers_off_and_a_busy_one_does_not(public: Droplet, clock: Clock):
    assert told(public, "systemctl", "is-active", "unetops-idle.timer") == "active"
    job = ("systemd-run", "--quiet", "--unit=job", "--uid=unetops", f"--setenv={process.JOB}=j1")
    public.guest.exec(*job, "sleep", "infinity")
    hurried = {
        "timer": "[Timer]\nOnBootSec=\nOnBootSec=1s\nOnUnitActiveSec=1s\nAccuracySec=100ms\n",
        "service": f"[Service]\nExecStart=\nExecStart={HOST} idle --minutes 0.025\n",
    }
    for kind, text in hurried.items():
        folder = public.guest.root / f"etc/systemd/system/unetops-idle.{kind}.d"
        folder.mkdir(parents=True)
        (folder / "hurry.conf").write_text(text)
    public.guest.exec("sh", "-ec", "systemctl daemon-reload; systemctl restart unetops-idle.timer")
    wait_for_looks(public, 4)
    assert public.guest.running, "a job runs"
    work = ("flock", "--shared", "/var/lib/unetops/awake.lock", "sleep", "infinity")
    public.guest.exec("systemd-run", "--quiet", "--unit=work", *work)
    public.guest.exec("systemctl", "stop", "job")
    wait_for_looks(public, 4)
    assert public.guest.running, "a release or a fetch runs"
    public.guest.exec("systemctl", "stop", "work")
    clock.start()
    public.until(lambda: not public.guest.running, "power off", 40)
    clock.lap("last job to power off, with a limit of 1.5 s")


# A small machine with a GPU, whose first boot is given a source that does not exist


@pytest.fixture(scope="module")
def small(made: Made, clock: Clock) -> Droplet:
    """nvidia-smi and swapon are stubs: a guest has no GPU and cannot enable swap."""
    droplet = made.droplet("small")
    site = made.site(droplet)
    cuda = made.folder / "cuda"
    cuda.mkdir()
    (version,) = re.findall(r"^torch==([\d.]+)", LOCK, re.MULTILINE)
    golden.empty_wheel(cuda, "torch", f"{version}+cu126")
    index(made.files, "/simple", golden.wheelhouse(LOCK))
    index(made.files, "/cu126", cuda)
    host = droplet.guest.reserve().here
    droplet.guest.image |= {
        "/usr/bin/nvidia-smi": f"#!/bin/sh\necho {GPU}\n",
        "/usr/local/sbin/swapon": "#!/bin/sh\necho $@ >/var/tmp/swapon\n",
        "/etc/pip.conf": f"[global]\nindex-url = {site}/simple/\ntrusted-host = {host}\n",
    }
    spec = replace(
        made.spec(droplet),
        gpu=True,
        swap_gib=1,
        torch_index=f"{site}/cu126/",
        source=f"{site}/nowhere/{made.wheel.name}",
    )
    droplet.guest.user_data = user_data(spec)
    clock.start()
    droplet.boot()
    clock.lap("first boot with a source that does not exist")
    return droplet


def boot_again(droplet: Droplet) -> tuple[str, str]:
    """Rerun the steps of the first boot; returns the outcome and the last lines."""
    droplet.ssh(f"{HOST} boot", check=False)
    report = json.loads(told(droplet, "cat", "/var/lib/unetops/boot.json"))
    return report["status"], "\n".join(report["log"])


def test_a_source_that_cannot_be_had_fails_the_first_boot_with_pips_own_words(small: Droplet):
    report = json.loads(told(small, "cat", "/var/lib/unetops/boot.json"))
    assert report["status"] == "failed"
    assert "404" in str(report["log"])
    assert "status: error" in told(small, "cloud-init", "status")
    assert json.loads(small.ssh(f"{HOST} status").stdout)["release"] is None


def test_a_small_machine_gets_a_swap_file_for_good(small: Droplet, clock: Clock):
    assert "swap: 1 GiB" in boot_log(small)
    assert told(small, "stat", "-c", "%s %a %U", "/swapfile") == f"{1 << 30} 600 root"
    assert told(small, "blkid", "-p", "-s", "TYPE", "-o", "value", "/swapfile") == "swap"
    assert told(small, "cat", "/var/tmp/swapon") == "/swapfile"
    assert told(small, "cat", "/etc/fstab").count("/swapfile none swap sw 0 0") == 1
    clock.say("swap: file and fstab are shown; that the kernel uses it cannot be, in a guest")


def test_a_gpu_machine_names_its_driver_and_one_without_says_what_to_do(small: Droplet):
    assert f"driver: {GPU}" in boot_log(small)
    small.guest.exec("mv", "/usr/bin/nvidia-smi", "/root")
    status, log = boot_again(small)
    assert status == "failed"
    assert "no GPU driver responds: use a GPU image" in log
    assert "swap: exists already" in log
    assert told(small, "cat", "/etc/fstab").count("/swapfile") == 1


def test_a_machine_that_refuses_swap_goes_on_without(small: Droplet):
    small.guest.exec("sh", "-ec", "rm /usr/local/sbin/swapon; sed -i /swapfile/d /etc/fstab")
    _, log = boot_again(small)
    small.guest.exec("mv", "/root/nvidia-smi", "/usr/bin/nvidia-smi")
    assert "swap: not enabled: `swapon /swapfile` exited with" in log
    assert "system: " in log
    assert told(small, "ls", "/swapfile").endswith("No such file or directory")


def test_torch_comes_from_its_own_index_and_must_reach_the_gpu(
    made: Made, small: Droplet, clock: Clock
):
    made.files.folders["/nowhere"] = made.wheel.parent
    status, log = boot_again(small)
    assert status == "failed"
    assert "torch cannot use the GPU: set torchIndex to a build for this driver" in log
    bases = told(small, "sh", "-c", "ls -d /opt/unetops/base/*/lib/python3.11/site-packages/torch*")
    assert "+cu126.dist-info" in bases
    clock.say("GPU: driver and torch's index are shown; that torch reaches a GPU cannot be, here")


def fetch(small: Droplet, made: Made, name: str, digest: str = SHA256) -> tuple[int, str]:
    done = small.ssh(f"{HOST} fetch '{made.site(small)}/{name}#sha256={digest}'", check=False)
    return done.returncode, done.stdout + done.stderr


def test_a_dataset_with_another_checksum_is_removed_and_named(made: Made, small: Droplet):
    code, said = fetch(small, made, "images.zip", "0" * 64)
    assert code == 1
    assert f"expected sha256 {'0' * 64}, found {SHA256}; removed" in said
    assert told(small, "ls", INCOMING) == ""


def test_a_fetch_that_was_killed_goes_on_where_it_ended(made: Made, small: Droplet):
    made.files.texts["/slow.zip"] = DATA
    made.files.slow.add("/slow.zip")
    part = ("find", INCOMING, "-name", "*-slow.zip.part", "-size", "+1M")
    url = f"{made.site(small)}/slow.zip#sha256={SHA256}"
    small.guest.exec("systemd-run", "--quiet", "--collect", "--unit=fetch", HOST, "fetch", url)
    small.until(lambda: told(small, *part) != "", "a part")
    small.guest.exec("systemctl", "kill", "--signal=KILL", "fetch")
    made.files.slow.clear()
    code, said = fetch(small, made, "slow.zip")
    assert code == 0, said
    assert re.fullmatch(rf"{INCOMING}/\w+-slow\.zip", said.strip())
    first, second = [start for path, start in made.files.starts if path == "/slow.zip"]
    assert first == 0
    assert second >= 1 << 20
    assert told(small, "sha256sum", said.strip()).split()[0] == SHA256


# Common to all droplets


def test_security_updates_are_on_and_the_real_tool_takes_their_configuration(small: Droplet):
    dump = told(small, "apt-config", "dump")
    on = ("APT::Periodic::Unattended-Upgrade", "APT::Periodic::Update-Package-Lists")
    assert [name for name in on if f'{name} "1";' not in dump] == []
    assert 'Unattended-Upgrade::Automatic-Reboot "true";' in dump
    done = small.guest.exec("unattended-upgrade", "--dry-run", "--debug", check=False)
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "label=Debian-Security" in said
    for timer in ("apt-daily.timer", "apt-daily-upgrade.timer"):
        assert told(small, "systemctl", "is-enabled", timer) == "enabled"


def test_the_journal_keeps_its_limit(small: Droplet):
    said = told(small, "journalctl", "--no-pager", "-b", "-u", "systemd-journald", "-o", "cat")
    assert "max 500.0M" in [line for line in said.splitlines() if "System Journal" in line][-1]


def test_ssh_refuses_the_right_password(small: Droplet):
    small.guest.exec("sh", "-ec", "echo root:right | chpasswd")
    with paramiko.Transport((small.address, 22)) as made:
        made.start_client(timeout=10)
        with pytest.raises(paramiko.BadAuthenticationType) as refused:
            made.auth_password("root", "right", fallback=False)
    assert refused.value.allowed_types == ["publickey"]


def test_a_reserved_address_serves_a_visitor_who_sends_no_server_name(small: Droplet):
    wires = small.guest.reserve()
    wires.also(RESERVED)
    lock = "--lock /etc/unetops/requirements.lock"
    small.ssh(f"{HOST} release --id x --wheel /none {lock} --address {RESERVED}", check=False)
    made = http.client.HTTPSConnection(RESERVED, timeout=10, context=small.authority())
    made.request("GET", "/")
    answer = made.getresponse()
    assert (answer.status, "Not ready" in answer.read().decode()) == (503, True)
    made.close()
