"""Runs commands of the test harness; errors contain the output."""

import subprocess


def sh(
    *command: object, check: bool = True, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command and return its output; raises with its last lines if it fails."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )
    if check and done.returncode:
        said = (done.stderr or done.stdout)[-2000:]
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {said}")
    return done
