"""Commands of the harness: one way to run them, an error that says what they printed."""

import subprocess


def sh(
    *command: object, check: bool = True, timeout: float = 120
) -> subprocess.CompletedProcess[str]:
    """Run a command and keep what it prints; a failure is an error with its last words."""
    words = [str(word) for word in command]
    done = subprocess.run(
        words, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout
    )
    if check and done.returncode:
        said = (done.stderr or done.stdout)[-2000:]
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {said}")
    return done
