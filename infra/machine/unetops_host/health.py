"""Health of the service, and the last log lines of its units."""

import time
import urllib.error
import urllib.request

from infra.machine.unetops_host.commands import LAST_LINES, attempt
from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.machine import UNITS, Machine

MAX_RESTARTS = 3  # stop waiting for a unit that keeps failing


def health(machine: Machine, wait_s: float) -> None:
    """Wait until web, database, worker and predictor answer.

    Raises:
        HostError: if they do not in time, or if a unit keeps restarting, with the last lines of
            all units.
    """
    started, before = time.monotonic(), restarts()
    while True:
        found = [f"{path}: {reply}" for path in ("/healthz", "/readyz")
                 if (reply := ask(machine.url + path)) != "200"]  # fmt: skip
        if not found:
            return
        waited = time.monotonic() - started
        if waited >= wait_s or restarts() - before >= MAX_RESTARTS:
            raise HostError(f"not healthy after {waited:.0f} s: {'; '.join(found)}\n{journal()}")
        time.sleep(min(0.5, wait_s))


def restarts() -> int:
    """How often systemd has restarted the units since they were started."""
    lines = attempt("systemctl", "show", "--value", "-p", "NRestarts", *UNITS).split()
    return sum(int(line) for line in lines if line.isdecimal())


def ask(url: str) -> str:
    """The response of a local URL: its status, or why there is none."""
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
