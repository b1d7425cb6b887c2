"""Records: model values to versioned JSON and back.

A record says its version.  This release writes version 2 and reads 1, its
predecessor's, as well.  Unknown fields are errors: a newer agent's record is
not half understood; so whoever adds, renames or removes a field, or gives one
another meaning, counts VERSION up.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import Any, Final, TypeVar

import msgspec

from seaway.errors import InvalidSpec, StoreError

VERSION: Final = 2
"""2: clusters.  What there was before has kept its fields and what they mean."""

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]

UPGRADES: Final[dict[int, dict[type, Upgrade]]] = {1: {}}
"""Versions that are read besides VERSION: what makes one kind of record into the next version's.

A kind that is not named reads as it is; a field that is missing has its default.
"""

T = TypeVar("T")

_ADDRESSES = {IPv4Address, IPv6Address}
_PREFIXES = {IPv4Network, IPv6Network}
_HINTS: dict[type, dict[str, Any]] = {}


def encode(value: Any) -> bytes:
    """Render a model value as one record."""
    return msgspec.json.encode({"version": VERSION, "value": value}, enc_hook=str)


def decode(kind: type[T], data: bytes) -> T:
    """Read a record of this or the previous version back into *kind*.

    Raises:
        StoreError: Not a record of ours, or from a newer Seaway.
    """
    try:
        record = msgspec.json.decode(data)
        found: T = plain(kind, _upgraded(kind, record["version"], record["value"]))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, InvalidSpec) as err:
        raise StoreError(f"a stored {kind.__name__} cannot be read: {err}") from err
    return found


def _upgraded(kind: type, version: int, item: Any) -> Any:
    """Return what *item* is in this version."""
    while version != VERSION:
        if version not in UPGRADES:
            known = ", ".join(map(str, (*UPGRADES, VERSION)))
            raise StoreError(
                f"a stored {kind.__name__} has version {version}, this Seaway reads {known}: "
                "run the Seaway that wrote it, or a newer one"
            )
        item = UPGRADES[version].get(kind, _unchanged)(item)
        version += 1
    return item


def _unchanged(item: dict[str, Any]) -> dict[str, Any]:
    return item


def plain(kind: Any, item: Any) -> Any:
    """Build a value of type *kind* from what JSON made of it.

    Handles what model values are made of: dataclasses, enums, IP addresses and
    prefixes, tuples, dicts of text, optional values and plain scalars.
    """
    origin = typing.get_origin(kind)
    if origin in (typing.Union, types.UnionType):
        return _union(set(typing.get_args(kind)), item)
    if origin is tuple:
        inner = typing.get_args(kind)[0]
        return tuple(plain(inner, one) for one in item)
    if origin is dict:
        inner = typing.get_args(kind)[1]
        return {str(key): plain(inner, one) for key, one in item.items()}
    if is_dataclass(kind) and isinstance(kind, type):
        return _dataclass(kind, item)
    if isinstance(kind, type) and (issubclass(kind, Enum) or kind in _ADDRESSES | _PREFIXES):
        return kind(item)
    return item


def _union(options: set[Any], item: Any) -> Any:
    if item is None:
        return None
    options.discard(type(None))
    if options <= _ADDRESSES:
        return ip_address(item)
    if options <= _PREFIXES:
        return ip_network(item)
    (only,) = options
    return plain(only, item)


def _dataclass(kind: type, item: dict[str, Any]) -> Any:
    if not isinstance(item, dict):
        raise TypeError(f"{item!r} is not an object")
    if kind not in _HINTS:
        _HINTS[kind] = {k: _unwrap(v) for k, v in typing.get_type_hints(kind).items()}
    hints = _HINTS[kind]
    if unknown := item.keys() - hints.keys():
        raise ValueError(f"unknown field {min(unknown)!r}")
    known = {name: plain(hints[name], value) for name, value in item.items()}
    for field in fields(kind):
        if (
            field.name not in known
            and field.default is MISSING
            and field.default_factory is MISSING
        ):
            raise ValueError(f"field {field.name!r} is missing")
    return kind(**known)


def _unwrap(hint: Any) -> Any:
    """See through NewType."""
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    return hint
