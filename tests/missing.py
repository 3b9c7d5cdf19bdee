"""Skip or fail tests if a tool is missing on this machine."""

import os
import shutil
import sys
from typing import NoReturn

import pytest


def missing(what: str) -> NoReturn:
    """Skip with a reason; fail with UNETOPS_SYSTEM=all, as in CI."""
    if os.environ.get("UNETOPS_SYSTEM") == "all":
        pytest.fail(f"{what} (a failure, as UNETOPS_SYSTEM=all)", pytrace=False)
    sys.stderr.write(f"skipped: {what}\n")
    pytest.skip(what)


def need(command: str, why: str) -> None:
    """Skip or fail unless a command is on the PATH."""
    if shutil.which(command) is None:
        missing(f"{command} is not installed: {why}")
