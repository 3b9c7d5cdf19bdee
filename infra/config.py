"""Stack configuration: parses a plain mapping into a frozen object and collects the errors.

`infra.checks` tells whether the parsed configuration can be deployed.

This module does not depend on Pulumi, so `unetops infra doctor` and the tests parse the
configuration exactly as the program does.
"""

import difflib
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, get_args, get_origin

from infra.catalog import DEFAULT_IMAGE, WORKING_COPY


class ConfigError(Exception):
    """The configuration is invalid; `mistakes` lists every error with its remedy."""

    def __init__(self, mistakes: list[str]) -> None:
        self.mistakes = mistakes
        lines = "\n".join(f"  - {mistake}" for mistake in mistakes)
        count = "1 error" if len(mistakes) == 1 else f"{len(mistakes)} errors"
        super().__init__(f"{count} in the stack's configuration, nothing was created:\n{lines}")


@dataclass(frozen=True, kw_only=True)
class StackConfig:
    """The settings of a stack; Pulumi.yaml describes each value."""

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
    """Contents of `ssh_public_keys`, with files read."""
    deploy_key: str | None = field(default=None, repr=False)
    """Contents of the private key for SSH to the host; never part of user_data."""

    @property
    def name(self) -> str:
        """Name of the stack's resources, and their tag."""
        return f"unetops-{self.stack}"

    @property
    def all_tags(self) -> list[str]:
        """All tags, the stack's own first."""
        return [self.name, *(tag for tag in self.tags if tag != self.name)]

    @property
    def spaces_region(self) -> str:
        """Region of the bucket; by default that of the droplet."""
        return self.bucket_region or self.region

    @property
    def loses_data(self) -> bool:
        """Whether the volume and the bucket may be deleted with their contents."""
        return self.lose_data == self.stack


INTERNAL = ("stack", "public_keys", "deploy_key")


def key_of(name: str) -> str:
    """Name of a field in Pulumi.yaml: `volume_gib` is `volumeGib`."""
    first, *rest = name.split("_")
    return first + "".join(word.title() for word in rest)


FIELDS = {key_of(f.name): f for f in fields(StackConfig) if f.name not in INTERNAL}
KEYS = tuple(FIELDS)


def parsed(
    values: Mapping[str, Any], stack: str, read: Callable[[str], str]
) -> tuple[StackConfig, list[str]]:
    """Configuration of a stack without checks, and its syntax errors with their remedies.

    Args:
        values: the values of the namespace, keys without `unetops:`; strings as Pulumi stores
            them, or native values.
        stack: name of the stack.
        read: reads a file by path; raises OSError.
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
    """Error message for an unknown key."""
    near = difflib.get_close_matches(key, KEYS, n=1)
    hint = f"did you mean {near[0]}?" if near else f"known keys: {', '.join(KEYS)}."
    return f"{key}: unknown key; {hint} Remove it: pulumi config rm {key}"


def parse(value: Any, kind: Any) -> Any:
    """Convert a value to a field's type.

    Raises:
        ValueError: if it cannot be converted.
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
        remedy = "set it to your private key file, or remove deployKeyFile to use the SSH agent"
        found["deploy_key"] = _text(path, "deployKeyFile", remedy, read=read, mistakes=mistakes)
    return found


def _public_key(item: str, read: Callable[[str], str], mistakes: list[str]) -> str | None:
    if item.startswith(("ssh-", "ecdsa-", "sk-")):
        return item.strip()
    remedy = "create one with `ssh-keygen -t ed25519`, or give the path of your .pub file"
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
    """Default of every key that has one; Pulumi.yaml must repeat them."""
    return {key: f.default for key, f in FIELDS.items() if f.default not in (MISSING, None, ())}
