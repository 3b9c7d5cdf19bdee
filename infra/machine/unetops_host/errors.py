"""What an engineer has to know, and how other failures are told."""


class HostError(Exception):
    """Something an engineer has to know; its text is all that is shown."""


def reason(error: BaseException) -> str:
    """What an error says; one that is not ours by its kind as well."""
    return str(error) if isinstance(error, HostError) else f"{type(error).__name__}: {error}"
