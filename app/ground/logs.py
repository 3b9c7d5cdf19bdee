"""Logs of our processes: one line each to standard error, others' chatter left out."""

import logging

CHATTY = ("alembic", "dbos", "httpx")


def configure(part: str) -> None:
    """Log as this part of the service; called once, by the process's own `main`."""
    form = f"%(asctime)s {part} %(levelname)s %(name)s: %(message)s"
    logging.basicConfig(level=logging.INFO, format=form)
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
