"""Output of this program: messages for people, results for programs."""

import contextlib
import sys


def say(text: str) -> None:
    """Print a message to standard error; a closed stream is ignored."""
    with contextlib.suppress(OSError):
        sys.stderr.write(f"{text}\n")
        sys.stderr.flush()


def show(text: str) -> None:
    """Print a result."""
    sys.stdout.write(f"{text}\n")
