"""Errors for the engineer, and the text of other exceptions."""


class HostError(Exception):
    """An error with a message for the engineer, shown without traceback."""


def reason(error: BaseException) -> str:
    """Message of an error, preceded by its type unless it is a `HostError`."""
    return str(error) if isinstance(error, HostError) else f"{type(error).__name__}: {error}"
