"""``--filter KEY=VALUE`` as Docker means it: one key given twice is "or", two keys are "and"."""

from __future__ import annotations

from seaway.cli.flags import UsageError

TYPE_CHECKING = False  # a type checker takes it for True; typing itself is slow to import
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Test = Callable[[Mapping[str, Any], str], bool]


def labelled(found: Mapping[str, Any], wanted: str) -> bool:
    """Has it this label, ``KEY`` or ``KEY=VALUE``?"""
    key, equals, value = wanted.partition("=")
    return key in found["labels"] and (not equals or found["labels"][key] == value)


def scope(network: Mapping[str, Any]) -> str:
    """Where a network is: on this host or on all of a cluster's."""
    return "cluster" if network["driver"] == "overlay" else "local"


NETWORK: Mapping[str, Test] = {
    "driver": lambda n, v: n["driver"] == v,
    "id": lambda n, v: n["id"].startswith(v),
    "label": labelled,
    "name": lambda n, v: v in n["name"],
    "scope": lambda n, v: scope(n) == v,
}

SANDBOX: Mapping[str, Test] = {
    "id": lambda s, v: s["id"].startswith(v) or s["container"].startswith(v),
    "label": labelled,
    "name": lambda s, v: v in s["name"],
    "network": lambda s, v: any(n["network"] == v for n in s["networks"]),
    "status": lambda s, v: s["phase"] == v,
}


def select(
    found: Iterable[Mapping[str, Any]], filters: Sequence[str], tests: Mapping[str, Test]
) -> list[Mapping[str, Any]]:
    """Keep what passes every key of *filters*.

    Raises:
        UsageError: A filter that is none, or of an unknown key.
    """
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key not in tests:
            raise UsageError(f"--filter {text!r}: use {', '.join(f'{k}=' for k in sorted(tests))}")
        wanted.setdefault(key, []).append(value)
    return [
        item
        for item in found
        if all(any(tests[k](item, v) for v in values) for k, values in wanted.items())
    ]
