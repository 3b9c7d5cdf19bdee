"""What a user can cause, said so that the user can mend it."""


class UserError(Exception):
    """A refusal: what happened, where, what was expected, what was found, what to do.

    The text of the exception is one line that holds all of it; the parts stay readable as
    attributes for problem documents and tables.
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
    """A rules document or a source folder that cannot be used as it is."""


class ArtifactError(UserError):
    """A finished folder that is missing, altered or of another kind."""
