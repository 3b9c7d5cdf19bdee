"""Whether the service answers, and what its units said last."""

import time
import urllib.error
import urllib.request

from infra.machine.unetops_host.commands import LAST_LINES, attempt
from infra.machine.unetops_host.errors import HostError
from infra.machine.unetops_host.machine import UNITS, Machine

MOST_RESTARTS = 3  # a unit that fails again and again is not waited for to the end


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
