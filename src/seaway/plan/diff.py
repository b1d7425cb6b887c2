"""Desired minus observed, as a value that can be printed, tested and dry-run."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seaway.plan.resources import Resource, describe


@dataclass(frozen=True, slots=True)
class Diff:
    """Three disjoint groups.  Empty means the kernel already agrees."""

    create: tuple[Resource, ...] = ()
    change: tuple[tuple[Resource, Resource], ...] = ()  # (observed, desired)
    delete: tuple[Resource, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.create or self.change or self.delete)

    def lines(self) -> list[str]:
        """Render for people: ``+`` create, ``~`` change, ``-`` delete, with the reason."""
        rows = [("+", item) for item in self.create]
        rows += [("~", new) for _, new in self.change]
        rows += [("-", item) for item in self.delete]
        return [
            f"{sign} {describe(item)}" + (f"   # {item.reason}" if item.reason else "")
            for sign, item in rows
        ]


def diff(desired: Iterable[Resource], observed: Iterable[Resource]) -> Diff:
    """Compare two snapshots object by object.

    Callers pass only observed objects that Seaway owns, so anything left over
    is ours to delete.  Output keeps input order: same input, same plan.
    """
    want = {item.key: item for item in desired}
    have = {item.key: item for item in observed}
    return Diff(
        create=tuple(item for k, item in want.items() if k not in have),
        change=tuple((have[k], item) for k, item in want.items() if k in have and have[k] != item),
        delete=tuple(item for k, item in have.items() if k not in want),
    )
