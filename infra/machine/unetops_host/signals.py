"""The signals that ask this program to end: it takes back first what it has begun."""

import contextlib
import signal
from collections.abc import Iterator

ENDS = (signal.SIGHUP, signal.SIGINT, signal.SIGTERM)


def heed() -> None:
    """End at a signal as at Ctrl-C: an error goes up, and what was begun is taken back."""
    for number in ENDS:
        signal.signal(number, _end)


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Let no signal that asks this program to end cut the block off."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(number: int, _: object) -> None:
    raise SystemExit(128 + number)
