"""Path templates: match image and mask paths, and join them by shared placeholders.

    {name}        one or more characters within one path segment
    {name:int}    digits, compared as a number: 7 matches 007
    {name:path}   whole segments, or none if a slash follows: {folder:path}/{name}.png
    {object:int}  number of an object within an image, not part of the join key
    *             any characters within one segment, not part of the join key
    {{ }} {*}     literal characters

A repeated placeholder must have the same value everywhere: `{id}/images/{id}.png`. Placeholders
that occur in both the image and the mask template form the join key. Keys are compared as a
whole, so 1 never matches 10. Matching is case-sensitive.

    >>> Template("{patient}/img_{n}.png").match("p7/img_1.png")
    {'patient': 'p7', 'n': '1'}
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from dataset_rules.ground.errors import RulesError

OBJECT = "object"  # placeholder that distinguishes the mask files of one image

_TOKEN = re.compile(
    r"(?P<open>\{\{)|(?P<close>\}\})|(?P<star>\{\*\})"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<type>int|path))?\}(?P<slash>/)?"
    r"|(?P<any>\*)|(?P<wrong>[{}])|(?P<text>[^{}*]+)"
)


@dataclass(frozen=True)
class Template:
    """A compiled path template; `text` is its form in the rules."""

    text: str

    def __post_init__(self) -> None:
        """Raise `RulesError` for a malformed template."""
        assert self._pattern

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Unique placeholder names, in order."""
        return tuple(self._pattern.groupindex)

    @cached_property
    def has_many(self) -> bool:
        """True if several paths may belong to one image, by a star or an object number."""
        return OBJECT in self.fields or any(token["any"] for token in _TOKEN.finditer(self.text))

    @cached_property
    def weight(self) -> int:
        """Number of literal characters: of two matching templates, the heavier is more specific."""
        return sum(len(token["text"] or "") for token in _TOKEN.finditer(self.text))

    def match(self, path: str) -> dict[str, str] | None:
        """Values of the placeholders, None if the path does not match."""
        match = self._pattern.fullmatch(unicodedata.normalize("NFC", path))
        if match is None:
            return None
        values = match.groupdict(default="")
        return {name: _normalized(self._types[name], value) for name, value in values.items()}

    @cached_property
    def _types(self) -> dict[str, str]:
        tokens = _TOKEN.finditer(self.text)
        return {token["name"]: token["type"] or "" for token in tokens if token["name"]}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        seen: set[str] = set()
        parts = [self._token_pattern(token, seen) for token in _TOKEN.finditer(self.text)]
        return re.compile("".join(parts), re.DOTALL)

    def _token_pattern(self, token: re.Match[str], seen: set[str]) -> str:
        if token["wrong"]:
            raise RulesError(
                "the path template has an unmatched brace", where=self.text,
                expected="{name}, {name:int}, {name:path} or *",
                remedy="write {{ or }} for a brace that is part of the path",
            )  # fmt: skip
        if token["name"]:
            return self._placeholder_pattern(token, seen)
        if token["any"]:
            return "[^/]*"
        literal = token["text"] or {"{{": "{", "}}": "}", "{*}": "*"}[token[0]]
        return re.escape(unicodedata.normalize("NFC", literal))

    @staticmethod
    def _placeholder_pattern(token: re.Match[str], seen: set[str]) -> str:
        name, kind, slash = token["name"], token["type"], token["slash"] or ""
        if name in seen:
            return f"(?P={name}){slash}"
        seen.add(name)
        body = {"int": "[0-9]+", "path": ".+"}.get(kind, "[^/]+")
        if kind == "path" and slash:
            return f"(?:(?P<{name}>{body})/)?"
        return f"(?P<{name}>{body}){slash}"


def escape(literal: str) -> str:
    """The template that matches exactly this text."""
    return re.sub(r"[{}*]", lambda match: {"{": "{{", "}": "}}", "*": "{*}"}[match[0]], literal)


def _normalized(kind: str, value: str) -> str:
    return str(int(value)) if kind == "int" and value else value
