"""Termination signals: the program rolls back before it exits."""

import contextlib
import signal
from collections.abc import Iterator

ENDS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def install_handlers() -> None:
    """Treat termination signals like Ctrl-C: an exception propagates and triggers the rollback."""
    for number in ENDS:
        signal.signal(number, _end)


@contextlib.contextmanager
def ignore_signals() -> Iterator[None]:
    """Ignore termination signals inside the block."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)
