"""Kinds of resources according to the Python SDK: names, types and required properties.

The doubles therefore need no schema and are as strict as the SDK's classes.
"""

from __future__ import annotations

import functools
import inspect
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import EnumType
from types import ModuleType
from typing import Any

from pulumi import _types
from pulumi.runtime.rpc import UNKNOWN

SIGNATURE = "4dabf18193072939515e22adb298388d"  # marks assets, archives and secrets on the wire
NOT_PROPERTIES = {"id", "urn", "pulumi_resource_name", "pulumi_resource_type"}
SIMPLE = {str: str, bool: bool, int: int, float: (int, float)}


@dataclass(frozen=True)
class Shape:
    types: Mapping[str, Any]  # inputs, by wire name
    required: frozenset[str]
    computed: frozenset[str]  # outputs that are no inputs
    autonamed: bool


@functools.cache
def shape(module: ModuleType, kind: str) -> Shape:
    args, resource = getattr(module, f"{kind}Args"), getattr(module, kind)
    names = _types.input_type_py_to_pulumi_names(args)
    parameters = inspect.signature(args.__init__).parameters
    required = {names[n] for n, p in parameters.items() if n in names and p.default is p.empty}
    name = parameters.get("name")
    return Shape(
        types=_types.input_type_types(args),
        required=frozenset(required),
        computed=frozenset(_wire_names(resource) - set(names.values())),
        autonamed=name is not None and name.default is None,
    )


def _wire_names(cls: type) -> set[str]:
    found = inspect.getmembers(cls, lambda m: isinstance(m, property))
    return {getattr(p.fget, "_pulumi_name", None) or n for n, p in found} - NOT_PROPERTIES


def problems(module: ModuleType, kind: str, inputs: Mapping[str, Any]) -> dict[str, str]:
    """Property -> error: unknown, missing, or not of the SDK's type."""
    known = shape(module, kind)
    found = {k: f"unknown property {k}" for k in inputs.keys() - known.types.keys()}
    found |= {k: f"missing required property {k}" for k in known.required - inputs.keys()}
    for name in inputs.keys() & known.types.keys():
        if wrong := mismatch(inputs[name], known.types[name], name):
            found[name] = wrong
    return found


def mismatch(value: Any, wanted: Any, path: str) -> str:
    """Describe where a value does not match a type of the SDK; empty if it matches."""
    if value == UNKNOWN or wanted is Any or isinstance(wanted, typing.TypeVar | typing.ForwardRef):
        return ""
    origin = typing.get_origin(wanted)
    if origin is typing.Union:
        return _one_of(value, typing.get_args(wanted), path)
    if origin is not None:
        return _container(value, wanted, path)
    if isinstance(wanted, EnumType):
        wanted = str
    if _types.is_input_type(wanted):
        return _object(value, wanted, path)
    if wanted not in SIMPLE:
        return "" if isinstance(value, dict) and SIGNATURE in value else f"{path}: no {wanted}"
    fits = isinstance(value, SIMPLE[wanted]) and isinstance(value, bool) == (wanted is bool)
    return "" if fits else f"{path}: expected {wanted.__name__}, found {value!r:.60}"


def _one_of(value: Any, options: tuple[Any, ...], path: str) -> str:
    """Awaitables and outputs are for programs: the wire has only plain values."""
    plain = [o for o in options if not _is_future(o) and o is not type(None)]
    found = [mismatch(value, o, path) for o in plain]
    return "" if not found or "" in found else found[0]


def _is_future(option: Any) -> bool:
    origin = typing.get_origin(option) or option
    name = getattr(origin, "__name__", str(option))
    return "Awaitable" in name or "Output" in str(option)


def _container(value: Any, wanted: Any, path: str) -> str:
    arguments = typing.get_args(wanted)
    if issubclass(typing.get_origin(wanted), Mapping):
        rows = value.items() if isinstance(value, dict) else None
    elif issubclass(typing.get_origin(wanted), Sequence):
        rows = enumerate(value) if isinstance(value, list) else None
    else:
        return ""
    if rows is None:
        return f"{path}: expected {wanted}, found {value!r:.60}"
    found = (mismatch(v, arguments[-1], f"{path}[{k}]") for k, v in rows)
    return next((f for f in found if f), "")


def _object(value: Any, cls: type, path: str) -> str:
    if not isinstance(value, dict):
        return f"{path}: expected an object, found {value!r:.60}"
    types = _types.input_type_types(cls)
    strange = sorted(value.keys() - types.keys())
    if strange:
        return f"{path}.{strange[0]}: unknown property"
    found = (mismatch(v, types[k], f"{path}.{k}") for k, v in value.items())
    return next((f for f in found if f), "")
