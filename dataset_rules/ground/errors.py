"""User errors, each with its fix."""


class UserError(Exception):
    """A user error: what happened, where, what was expected, what was found, how to fix it.

    The exception message is one line with all parts. They are also available as attributes,
    for problem documents and tables.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        expected: str | None = None,
        found: str | None = None,
        remedy: str | None = None,
    ) -> None:
        self.what = what
        self.where = where
        self.expected = expected
        self.found = found
        self.remedy = remedy
        super().__init__(self._line())

    def _line(self) -> str:
        parts = [f"{self.where}: {self.what}" if self.where else self.what]
        if self.expected:
            parts.append(f"expected {self.expected}")
        if self.found:
            parts.append(f"found {self.found}")
        if self.remedy:
            parts.append(self.remedy)
        return "; ".join(parts)


class RulesError(UserError):
    """A rules document or source folder that cannot be used as is."""


class ArtifactError(UserError):
    """A finished folder that is missing, altered or of the wrong kind."""
