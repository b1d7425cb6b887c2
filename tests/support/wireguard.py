"""Which WireGuard there is here, for tests that need one or the other."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from seaway.errors import from_errno
from seaway.kernel import features, wireguard

needs_wireguard = pytest.mark.skipif(not wireguard.available(), reason=wireguard.why_not())
"""Marks a test that does with either."""

_KERNEL = pytest.mark.skipif(not features.wireguard(), reason="this kernel has no WireGuard")
_GO = pytest.mark.skipif(not features.installed("wireguard-go"), reason="no wireguard-go here")

WIREGUARD_GO = pytest.param(wireguard.WIREGUARD_GO, marks=_GO)
WAYS = (pytest.param(wireguard.KERNEL, marks=_KERNEL), WIREGUARD_GO)
"""For parametrize: each in turn, as far as it is here."""


def use(way: str, patch: pytest.MonkeyPatch) -> None:
    """Let this process make its links in one way only."""
    if way == wireguard.WIREGUARD_GO:

        def refuse(*_args: object) -> None:
            raise from_errno("create link", "", errno.EOPNOTSUPP)

        patch.setattr(wireguard, "new_link", refuse)


def running(name: str) -> list[int]:
    """List the processes of wireguard-go for a link."""
    found = []
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = command.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[:2] == [b"wireguard-go", name.encode()]:
            found.append(int(command.parent.name))
    return found
