"""Runs a probe inside the sandbox of a unit: same user, same limits, another program."""

import json
import textwrap
from typing import Any

from tests.guest.guest import Guest

PROBE = """
import ctypes, json, os, socket, subprocess, sys

def tried(act):
    # In a child: a filter may kill for the attempt, and one that worked must not help the next.
    end, start = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            act()
            said = "worked"
        except Exception as error:
            said = f"{type(error).__name__}: {error}"
        os.write(start, said.encode())
        os._exit(0)
    os.close(start)
    _, status = os.waitpid(child, 0)
    said = os.read(end, 4096).decode()
    return said or f"killed by signal {os.WTERMSIG(status)}"

def touch(folder):
    path = os.path.join(folder, f"probe-{os.getpid()}")
    def act():
        open(path, "w").close()
        os.unlink(path)
    return act

def overwrite(path):
    return lambda: os.close(os.open(path, os.O_WRONLY))

def call(*words):
    def act():
        subprocess.run(words, check=True, capture_output=True, timeout=10)
    return act

def connect(host, port):
    return lambda: socket.create_connection((host, port), timeout=3).close()

def unshare():
    if ctypes.CDLL(None, use_errno=True).unshare(0x10000000):
        raise OSError(ctypes.get_errno(), "unshare")

wanted = json.loads(sys.argv[1])
status = dict(l.split(":", 1) for l in open("/proc/self/status") if ":" in l)
print("PROBE " + json.dumps({
    "uid": os.getuid(), "groups": os.getgroups(),
    "no_new_privileges": status["NoNewPrivs"].strip(), "seccomp": status["Seccomp"].strip(),
    "bounding": int(status["CapBnd"], 16), "effective": int(status["CapEff"], 16),
    "write": {path: tried(touch(path)) for path in wanted["folders"]},
    "files": {path: tried(overwrite(path)) for path in wanted["files"]},
    "gain": {
        "setuid": tried(lambda: os.setuid(0)),
        "setgid": tried(lambda: os.setgid(0)),
        "user namespace": tried(unshare),
        "mount": tried(call("mount", "-t", "tmpfs", "none", "/mnt")),
        "sudo": tried(call("sudo", "-n", "true")),
        "setuid bit": tried(lambda: os.chmod("/usr/bin/su", 0o4755)),
        "another's process": tried(lambda: os.kill(1, 10)),
        "shadow": tried(lambda: open("/etc/shadow").read()),
    },
    "connect": {f"{h}:{p}": tried(connect(h, p)) for h, p in wanted["connect"]},
}))
"""


def probe(guest: Guest, unit: str, **wanted: list[Any]) -> dict[str, Any]:
    """Start a twin of `unit` whose program is the probe; returns what it could do.

    The twin is the unit's own file with another ExecStart, so that a directive that is missing
    there is missing here.
    """
    wanted = {"folders": [], "files": [], "connect": [], **wanted}
    twin = "probe-" + unit
    program = guest.root / "usr/local/lib/unetops-probe.py"
    program.parent.mkdir(parents=True, exist_ok=True)
    program.write_text(textwrap.dedent(PROBE))
    text = guest.exec("systemctl", "cat", unit).stdout
    quoted = json.dumps(json.dumps(wanted).replace("%", "%%"))
    start = f"/usr/bin/python3 /usr/local/lib/unetops-probe.py {quoted}"
    changes = (
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\nExecStartPre=\nExecStartPost=\nExecStop=\n"
        f"ExecReload=\nExecStopPost=\nExecStart=\nExecStart={start}\nStandardOutput=journal\n"
    )
    guest.exec("sh", "-ec", 'printf "%s" "$1" >/run/systemd/system/"$2"; systemctl daemon-reload',
               "sh", f"{text}\n{changes}", twin)  # fmt: skip
    guest.exec("systemctl", "start", twin, check=False)
    said = guest.exec("journalctl", "-u", twin, "-o", "cat", "--no-pager").stdout
    lines = [line for line in said.splitlines() if line.startswith("PROBE ")]
    if not lines:
        raise RuntimeError(f"the probe in {unit} said nothing; its journal: {said[-1500:]}")
    found: dict[str, Any] = json.loads(lines[-1].removeprefix("PROBE "))
    return found
