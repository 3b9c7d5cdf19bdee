"""Logging of the service's processes to standard error, with noisy libraries silenced."""

import logging

NOISY = ("alembic", "dbos", "httpx")


def configure(process: str) -> None:
    """Configure logging under this process name; called once by the process's `main`."""
    line_format = f"%(asctime)s {process} %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=line_format)
    for name in NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)
