"""What the kernel holds for one namespace: counted, and compared."""

from __future__ import annotations

import json
import socket
import struct
import time
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

from bench.programs import Failed, run
from seaway.kernel import netns
from seaway.kernel.netlink import attrs, split, subscribe

Objects = Mapping[str, frozenset[str]]
"""Kind -> each object of it as a line of text."""

_RTNLGRP_IPV4_ROUTE = 7  # include/uapi/linux/rtnetlink.h, as all below
_RTM_NEWROUTE = 24
_RTA_DST = 1
_RTMSG = struct.Struct("8BI")


def objects(space: Path) -> Objects:
    """List what is there: all that an agent sets, and nothing that comes and goes by itself."""
    routes = [*_ip(space, "-4", "route"), *_ip(space, "-6", "route")]
    return {
        "routes": frozenset(r for r in routes if " table local " not in r),
        "neighbours": frozenset(_ip(space, "neigh", "show", "nud", "permanent")),
        "forwarding entries": frozenset(
            line for line in run(["bridge", "fdb", "show"], space).splitlines() if " dst " in line
        ),
        "WireGuard peers": frozenset(_peers(space)),
        "nftables elements": frozenset(_elements(space)),
    }


def changes(before: Objects, after: Objects) -> list[str]:
    """List every object that is in only one of both."""
    return [f"{kind}: {line}" for kind in before for line in sorted(before[kind] ^ after[kind])]


class RouteWatch:
    """Hears of routes that a namespace gets."""

    def __init__(self, space: Path) -> None:
        with netns.inside(str(space)):
            self._sock = subscribe(socket.NETLINK_ROUTE, [_RTNLGRP_IPV4_ROUTE])

    def close(self) -> None:
        """Hear no more."""
        self._sock.close()

    def wait(self, to: IPv4Network, seconds: float) -> None:
        """Wait until there is a route to exactly *to*.

        Raises:
            Failed: There is none after *seconds*.
        """
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0:
            self._sock.settimeout(left)
            try:
                data = self._sock.recv(1 << 16)
            except TimeoutError:
                break
            if any(kind == _RTM_NEWROUTE and _leads(body, to) for kind, _, _, body in split(data)):
                return
        raise Failed(f"no route to {to} after {seconds:g} s")


def _leads(body: bytes, to: IPv4Network) -> bool:
    length = _RTMSG.unpack_from(body)[1]
    target = dict(attrs(body[_RTMSG.size :])).get(_RTA_DST)
    return length == to.prefixlen and target == to.network_address.packed


def _ip(space: Path, *words: str) -> list[str]:
    if words[-1] == "route":
        words = (*words, "show", "table", "all")
    return run(["ip", *words], space).splitlines()


def _peers(space: Path) -> list[str]:
    """One line for each peer on each link, with its allowed addresses."""
    links = run(["ip", "-br", "link", "show"], space).splitlines()
    names = [line.split()[0] for line in links if line.startswith("sww-")]
    found = []
    for name in names:
        told = run(["wg", "show", name, "allowed-ips"], space).splitlines()
        found += [f"{name} {line}" for line in told]
    return found


def _elements(space: Path) -> list[str]:
    listing = json.loads(run(["nft", "-j", "-s", "list", "ruleset"], space))
    found = []
    for item in listing["nftables"]:
        kind: dict[str, Any] = item.get("set") or item.get("map") or {}
        found += [f"{kind['name']} {json.dumps(e)}" for e in kind.get("elem", ())]
    return found
