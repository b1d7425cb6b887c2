"""The store's contract: desired state by key, with revisions.

Keys look like ``networks/<id>``; values are one JSON object each (codec.py).
Every write names the revision it builds on, so that of two writers exactly one
wins; a single host's SQLite and a cluster's etcd answer alike.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True)
class Record:
    """One stored value.

    Attributes:
        revision: Counts the store's writes; 0 means "must not exist yet".
    """

    key: str
    value: bytes
    revision: int


@dataclass(frozen=True, slots=True)
class Put:
    """Write *value* if the key is still at *revision*."""

    key: str
    value: bytes
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Delete:
    """Delete the key, whatever its revision; fine if it has gone."""

    key: str


class Store(Protocol):
    """Where desired state is kept."""

    def load(self) -> list[Record]:
        """Read everything, sorted by key; [] from a new store.

        Raises:
            StoreError: It cannot be read; nothing may be deleted on that account.
        """
        ...

    def commit(self, changes: Iterable[Put | Delete]) -> int:
        """Make all *changes* or none; return the new revision of what was put.

        Raises:
            Conflict: A key is not at the revision its Put names.
            StoreError: It cannot be written.
        """
        ...

    def close(self) -> None:
        """Let go of it."""
        ...
