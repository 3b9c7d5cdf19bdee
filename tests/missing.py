"""What a test does where a tool of this machine is missing."""

import os
import shutil
import sys
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip and say why; with UNETOPS_SYSTEM=all, as in CI, what is missing is a failure."""
    if os.environ.get("UNETOPS_SYSTEM") == "all":
        pytest.fail(f"{what} (a failure, as UNETOPS_SYSTEM=all)", pytrace=False)
    sys.stderr.write(f"skipped: {what}\n")
    pytest.skip(what)


def need(command: str, why: str) -> None:
    """Go on only with a command on the PATH."""
    if shutil.which(command) is None:
        missing(f"{command} is not installed: {why}")
