"""Stack configuration: a plain mapping becomes a frozen object, and a list of what cannot be read.

`infra.checks` says whether what was read can be built.

Nothing here knows Pulumi, so `unetops infra doctor` and the tests read it as the program does.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, get_args, get_origin

from infra.catalog import DEFAULT_IMAGE, WORKING_COPY


class ConfigError(Exception):
    """The configuration cannot be built; `mistakes` holds every one with its remedy."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        lines = "\n".join(f"  - {mistake}" for mistake in mistakes)
        count = "one mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{count} in the stack's configuration, nothing was made:\n{lines}")


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """What an engineer decides about a stack; Pulumi.yaml describes each value."""

    stack: str
    region: str = "nyc3"
    size: str = "s-4vcpu-8gb"
    image: str = DEFAULT_IMAGE
    bootstrap: str = "1"
    volume_gib: int = 100
    ssh_public_keys: tuple[str, ...] = ()
    ssh_from: tuple[str, ...] = ()
    deploy_key_file: str | None = None
    source: str = WORKING_COPY
    torch_index: str | None = None
    domain: str | None = None
    acme_directory: str | None = None
    bucket: bool = False
    bucket_region: str | None = None
    snapshot: str | None = None
    gpu_idle_minutes: int | None = None
    alert_emails: tuple[str, ...] = ()
    dataset_url: str | None = None
    lose_data: str | None = None
    prices: Mapping[str, float] = field(default_factory=dict)
    price_ceiling: float | None = None
    tags: tuple[str, ...] = ()
    public_keys: tuple[str, ...] = ()
    """The texts of `ssh_public_keys`, files read."""
    deploy_key: str | None = field(default=None, repr=False)
    """The private key's text: the way to the host, never part of user_data."""

    @property
    def name(self) -> str:
        """Name of the stack's resources, and the tag that they carry."""
        return f"unetops-{self.stack}"

    @property
    def all_tags(self) -> list[str]:
        """The stack's own tag first."""
        return [self.name, *(tag for tag in self.tags if tag != self.name)]

    @property
    def spaces_region(self) -> str:
        """Where the bucket lies: beside the droplet if nothing else is said."""
        return self.bucket_region or self.region

    @property
    def loses_data(self) -> bool:
        """Whether the volume and the bucket may be deleted with what they hold."""
        return self.lose_data == self.stack


INTERNAL = ("stack", "public_keys", "deploy_key")


def key_of(name: str) -> str:
    """Name of a field as it is written in Pulumi.yaml: `volume_gib` is `volumeGib`."""
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


FIELDS = {key_of(f.name): f for f in fields(StackConfig) if f.name not in INTERNAL}
KEYS = tuple(FIELDS)


def parsed(
    values: Mapping[str, Any], stack: str, read: Callable[[str], str]
) -> tuple[StackConfig, list[str]]:
    """Configuration of a stack as it is written, and the mistakes of its form with their remedies.

    Args:
        values: the values of the namespace, keys without `unetops:`; texts as Pulumi keeps them or
            native values.
        stack: name of the stack.
        read: text of a file by its path; raises OSError.
    """
    made: dict[str, Any] = {"stack": stack}
    mistakes = [unknown_key(key) for key in values if key not in KEYS]
    for key in (key for key in KEYS if values.get(key) not in (None, "")):
        try:
            made[FIELDS[key].name] = parse(values[key], FIELDS[key].type)
        except ValueError as e:
            mistakes.append(f"{key}: {e}")
    made |= _files(made, read, mistakes)
    return StackConfig(**made), mistakes


def unknown_key(key: str) -> str:
    """What to say of a key that nobody reads."""
    near = difflib.get_close_matches(key, KEYS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(KEYS)}."
    return f"{key}: no such key; {hint} Remove it: pulumi config rm {key}"


def parse(value: Any, kind: Any) -> Any:
    """A value as a field's type wants it.

    Raises:
        ValueError: if it cannot be read so.
    """
    kinds = [k for k in get_args(kind) if k is not type(None)] if get_origin(kind) else []
    if get_origin(kind) is tuple:
        return tuple(str(item) for item in _json(value, list, "a list: [a, b]"))
    if get_origin(kind) is Mapping:
        return _numbers(_json(value, dict, "a map: {key: number}"))
    simple = kinds[0] if kinds else kind
    if simple is bool:
        return _boolean(value)
    if simple in (int, float):
        return _number(value, simple)
    return str(value)


def _boolean(value: Any) -> bool:
    if str(value).lower() not in ("true", "false"):
        raise ValueError(f"expected true or false, found {value!r}")
    return str(value).lower() == "true"


def _number(value: Any, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(value)
    except (TypeError, ValueError):
        raise ValueError(f"expected a number ({kind.__name__}), found {value!r}") from None


def _numbers(prices: dict[str, Any]) -> dict[str, float]:
    return {str(key): float(_number(value, float)) for key, value in prices.items()}


def _json(value: Any, kind: type, expected: str) -> Any:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except json.JSONDecodeError:
            raise ValueError(f"expected {expected}, found {value!r}") from None
    if not isinstance(value, kind):
        raise ValueError(f"expected {expected}, found {value!r}")
    return value


def _files(made: dict[str, Any], read: Callable[[str], str], mistakes: list[str]) -> dict[str, Any]:
    keys = [_public_key(item, read, mistakes) for item in made.get("ssh_public_keys", ())]
    found: dict[str, Any] = {"public_keys": tuple(key for key in keys if key)}
    if path := made.get("deploy_key_file"):
        remedy = "name your private key's file, or remove deployKeyFile to use the SSH agent"
        found["deploy_key"] = _text(path, "deployKeyFile", remedy, read=read, mistakes=mistakes)
    return found


def _public_key(item: str, read: Callable[[str], str], mistakes: list[str]) -> str | None:
    if item.startswith(("ssh-", "ecdsa-", "sk-")):
        return item.strip()
    remedy = "make one with `ssh-keygen -t ed25519`, or name the .pub file that you have"
    text = _text(item, "sshPublicKeys", remedy, read=read, mistakes=mistakes)
    return text.strip() if text else None


def _text(
    path: str, key: str, remedy: str, *, read: Callable[[str], str], mistakes: list[str]
) -> str | None:
    try:
        return read(path)
    except OSError as e:
        mistakes.append(f"{key}: file {path} cannot be read ({e.strerror or e}); {remedy}")
        return None


def defaults() -> dict[str, Any]:
    """Default of every key that has one, as Pulumi.yaml must repeat it."""
    return {key: f.default for key, f in FIELDS.items() if f.default not in (MISSING, None, ())}
