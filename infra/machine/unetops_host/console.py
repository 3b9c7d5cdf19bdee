"""What this program says to people, and what it prints for programs."""

import contextlib
import sys


def say(text: str) -> None:
    """Tell the person or the log; whoever no longer listens stops nothing."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def show(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")
