"""Records: model values to versioned JSON and back.

A record says its version, and the lowest version that may read it.  This release
writes version 2 and reads 1, its predecessor's, as well.  Whoever adds, renames or
removes a field, or gives one another meaning, counts VERSION up; and READS too,
unless who does not know of that may go on without.

So the hosts of a cluster can be upgraded one by one: those that are not yet read what
they may of the others' records, and leave out what they do not know.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from functools import cache, lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from socket import AF_INET, AF_INET6, inet_pton
from typing import Any, Final, TypeVar

import msgspec

from seaway.errors import InvalidSpec, StoreError
from seaway.model.cluster import HostId
from seaway.model.network import NetworkId

VERSION: Final = 2
"""2: clusters.  What there was before has kept its fields and what they mean."""

READS: Final = 2
"""The lowest version whose readers may do without what has come since."""

Upgrade = Callable[[dict[str, Any]], dict[str, Any]]

UPGRADES: Final[dict[int, dict[type, Upgrade]]] = {1: {}}
"""Versions that are read besides VERSION: what makes one kind of record into the next version's.

A kind that is not named reads as it is; a field that is missing has its default.
"""

T = TypeVar("T")

_PREFIXES = {IPv4Network, IPv6Network}
_REPEATED = {HostId, NetworkId}
"""Texts that thousands of records have in common: each is kept once."""

Read = Callable[[Any], Any]


def encode(value: Any) -> bytes:
    """Render a model value as one record."""
    record = {"version": VERSION, "reads": READS, "value": value}
    return msgspec.json.encode(record, enc_hook=str)


def decode(kind: type[T], data: bytes, *, newer: bool = False) -> T:
    """Read a record of this or the previous version back into *kind*.

    Args:
        newer: Read one of a later version, too, if that allows it, without what is new in it.
            Such a value must not be written back.

    Raises:
        StoreError: Not a record of ours, or from a newer Seaway.
    """
    try:
        record = msgspec.json.decode(data)
        read: Read = _reader(kind)  # type: ignore[arg-type]  # types are hashable
        version, item = record["version"], record["value"]
        if newer and version > VERSION >= record.get("reads", version):
            item, version = _known_of(kind, item), VERSION
        found: T = read(_upgraded(kind, version, item))
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, OSError, InvalidSpec) as err:
        raise StoreError(
            f"a stored {kind.__name__} cannot be read: {err}; "
            "if a newer Seaway wrote it, upgrade this one, otherwise restore a backup"
        ) from err
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


def _known_of(hint: Any, item: Any) -> Any:
    """Leave out the fields that this version does not know, at any depth."""
    hint = _unwrap(hint)
    if typing.get_origin(hint) is tuple:
        return [_known_of(typing.get_args(hint)[0], one) for one in item]
    inner = [one for one in typing.get_args(hint) if is_dataclass(one)]
    hint = inner[0] if inner else hint
    if not is_dataclass(hint) or not isinstance(item, dict):
        return item
    hints = typing.get_type_hints(hint)
    return {name: _known_of(hints[name], value) for name, value in item.items() if name in hints}


def _unchanged(item: dict[str, Any]) -> dict[str, Any]:
    return item


@cache
def _reader(hint: Any) -> Read:
    """Return what builds a value of type *hint* from what JSON made of it.

    Handles what model values are made of: dataclasses, enums, IP addresses and
    prefixes, tuples, dicts of text, optional values and plain scalars.  A large cluster
    has hundreds of thousands of records, so each type is looked at once.
    """
    if hint in _REPEATED:
        return sys.intern
    hint = _unwrap(hint)
    if make := _GENERIC.get(typing.get_origin(hint)):
        return make(typing.get_args(hint))
    if isinstance(hint, type):
        if is_dataclass(hint):
            return _dataclass(hint)
        if issubclass(hint, Enum) or hint in _PREFIXES:
            return hint
    return _ADDRESSES.get(hint, _same)


def _v4(text: str) -> IPv4Address:
    """As IPv4Address(text), in a third of the time."""
    return IPv4Address(inet_pton(AF_INET, text))


def _v6(text: str) -> IPv6Address:
    """As IPv6Address(text), in a fifth of the time; no record has a scope (RFC 4007)."""
    return IPv6Address(inet_pton(AF_INET6, text))


_ADDRESSES: Final[dict[Any, Read]] = {IPv4Address: _v4, IPv6Address: _v6}


def _same(item: Any) -> Any:
    return item


def _tuple(inner: tuple[Any, ...]) -> Read:
    read = _reader(inner[0])
    return lambda item: tuple([read(one) for one in item])


def _dict(inner: tuple[Any, ...]) -> Read:
    if inner[1] is str:
        return lambda item: _labels(tuple(item.items()))
    read = _reader(inner[1])
    return lambda item: {key: read(value) for key, value in item.items()}


@lru_cache(maxsize=16384)
def _labels(items: tuple[tuple[str, str], ...]) -> dict[str, str]:
    """Containers of one service have the same labels: they share them.  Nobody changes any."""
    return {sys.intern(key): sys.intern(value) for key, value in items}


def _optional(inner: tuple[Any, ...]) -> Read:
    options = set(inner) - {type(None)}
    read: Read
    if len(options) == 1:
        read = _reader(*options)
    elif options <= _ADDRESSES.keys():
        read = ip_address
    elif options <= _PREFIXES:
        read = ip_network
    else:
        raise TypeError(f"{options}: nothing in a record says which of them it is")
    return lambda item: None if item is None else read(item)


_GENERIC: Final[dict[Any, Callable[[tuple[Any, ...]], Read]]] = {
    typing.Union: _optional,
    types.UnionType: _optional,
    tuple: _tuple,
    dict: _dict,
}


def _dataclass(kind: type) -> Read:
    hints = typing.get_type_hints(kind)
    readers = {field.name: _reader(hints[field.name]) for field in fields(kind)}
    required = {
        f.name for f in fields(kind) if f.default is MISSING and f.default_factory is MISSING
    }

    def read(item: dict[str, Any]) -> Any:
        if not isinstance(item, dict):
            raise TypeError(f"{item!r} is not an object")
        if unknown := item.keys() - readers.keys():
            raise ValueError(f"unknown field {min(unknown)!r}")
        if missing := required - item.keys():
            raise ValueError(f"field {min(missing)!r} is missing")
        return kind(**{name: readers[name](value) for name, value in item.items()})

    return read


def _unwrap(hint: Any) -> Any:
    """See through NewType."""
    while isinstance(hint, typing.NewType):
        hint = hint.__supertype__
    return hint
