"""Path templates: how the paths of images and of masks are made, and what joins them.

    {name}        one or more characters within one segment of the path
    {name:int}    digits, compared as a number: 7 joins 007
    {name:path}   whole segments, also none when a slash follows: {folder:path}/{name}.png
    {object:int}  the number of one of the objects of an image, joined with nothing
    *             any characters within one segment, joined with nothing
    {{ }} {*}     the characters themselves

A placeholder that stands twice must be equal both times: `{id}/images/{id}.png`. The
placeholders that the image template and the mask template share are the key that joins them;
keys are compared as wholes, so 1 never joins 10. Upper and lower case differ.

    >>> Template("{patient}/img_{n}.png").match("p7/img_1.png")
    {'patient': 'p7', 'n': '1'}
"""

import re
import unicodedata
from dataclasses import dataclass
from functools import cached_property

from dataset_rules.ground.errors import RulesError

OBJECT = "object"  # the placeholder that tells the files of one image apart

_TOKEN = re.compile(
    r"(?P<open>\{\{)|(?P<close>\}\})|(?P<star>\{\*\})"
    r"|\{(?P<name>[A-Za-z_][A-Za-z0-9_]*)(?::(?P<type>int|path))?\}(?P<slash>/)?"
    r"|(?P<any>\*)|(?P<wrong>[{}])|(?P<text>[^{}*]+)"
)


@dataclass(frozen=True)
class Template:
    """A compiled path template; `text` is what stands in the rules."""

    text: str

    def __post_init__(self) -> None:
        """Refuses a template that is malformed."""
        assert self._pattern

    @cached_property
    def fields(self) -> tuple[str, ...]:
        """Names of the placeholders, in order, each once."""
        return tuple(self._pattern.groupindex)

    @cached_property
    def has_many(self) -> bool:
        """True if several paths may belong to one image: by a star or a number of the object."""
        return OBJECT in self.fields or any(token["any"] for token in _TOKEN.finditer(self.text))

    @cached_property
    def weight(self) -> int:
        """Literal characters: of two templates that fit a path the heavier one says more."""
        return sum(len(token["text"] or "") for token in _TOKEN.finditer(self.text))

    def match(self, path: str) -> dict[str, str] | None:
        """Values of the placeholders, None where the path does not fit."""
        found = self._pattern.fullmatch(unicodedata.normalize("NFC", path))
        if found is None:
            return None
        values = found.groupdict(default="")
        return {name: _normal(self._types[name], value) for name, value in values.items()}

    @cached_property
    def _types(self) -> dict[str, str]:
        tokens = _TOKEN.finditer(self.text)
        return {token["name"]: token["type"] or "" for token in tokens if token["name"]}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        seen: set[str] = set()
        parts = [self._part(token, seen) for token in _TOKEN.finditer(self.text)]
        return re.compile("".join(parts), re.DOTALL)

    def _part(self, token: re.Match[str], seen: set[str]) -> str:
        if token["wrong"]:
            raise RulesError(
                "the path template has a lone brace", where=self.text,
                expected="{name}, {name:int}, {name:path} or *",
                remedy="write {{ or }} for a brace that is part of the path",
            )  # fmt: skip
        if token["name"]:
            return self._placeholder(token, seen)
        if token["any"]:
            return "[^/]*"
        literal = token["text"] or {"{{": "{", "}}": "}", "{*}": "*"}[token[0]]
        return re.escape(unicodedata.normalize("NFC", literal))

    @staticmethod
    def _placeholder(token: re.Match[str], seen: set[str]) -> str:
        name, kind, slash = token["name"], token["type"], token["slash"] or ""
        if name in seen:
            return f"(?P={name}){slash}"
        seen.add(name)
        body = {"int": "[0-9]+", "path": ".+"}.get(kind, "[^/]+")
        if kind == "path" and slash:
            return f"(?:(?P<{name}>{body})/)?"
        return f"(?P<{name}>{body}){slash}"


def escape(literal: str) -> str:
    """The template that fits exactly this text."""
    return re.sub(r"[{}*]", lambda sign: {"{": "{{", "}": "}}", "*": "{*}"}[sign[0]], literal)


def _normal(kind: str, value: str) -> str:
    return str(int(value)) if kind == "int" and value else value
