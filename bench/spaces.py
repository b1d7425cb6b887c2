"""Network namespaces to stand for containers, and wires between them."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Network
from pathlib import Path

from bench.programs import run
from seaway.kernel import netns
from seaway.lab import processes

_ROOT = Path("/run/netns")  # where ip-netns(8) and CNI look for names
_PREFIX = "swbench-"
_END_SECONDS = 5.0
CABLE = IPv4Network("10.255.0.0/24")
_serial = itertools.count()


class Spaces:
    """Makes namespaces, and knows them until they are removed."""

    def __init__(self) -> None:
        self._made: set[Path] = set()

    @classmethod
    @contextmanager
    def made(cls) -> Iterator[Spaces]:
        """Spaces that are all gone at the end, and those of runs that were killed, now."""
        _remove_leftovers()
        spaces = cls()
        try:
            yield spaces
        finally:
            for path in list(spaces._made):
                spaces.remove(path)

    def make(self) -> Path:
        """Make a namespace with a name that was never used before; loopback is up."""
        path = self.make_bare()
        host_settings(path)
        run(["ip", "link", "set", "lo", "up"], path)
        return path

    def make_bare(self) -> Path:
        """Make a namespace as a container engine does: nothing is set, in no time."""
        path = _ROOT / f"{_PREFIX}{os.getpid()}-{next(_serial)}"
        netns.create(str(path))
        self._made.add(path)
        return path

    def remove(self, path: Path) -> None:
        """Remove a namespace."""
        netns.remove(str(path))
        self._made.discard(path)


def _remove_leftovers() -> None:
    for path in _ROOT.glob(f"{_PREFIX}*"):
        owner = int(path.name.removeprefix(_PREFIX).partition("-")[0])
        if processes.look(owner) is None:
            processes.kill(processes.inhabitants([path]), _END_SECONDS)
            netns.remove(str(path))


def host_settings(space: Path) -> None:
    """Same congestion control for programs that choose none, such as docker-proxy.

    A namespace inherits the machine's, which may be one that paces; reno is allowed everywhere.
    """
    run(["sysctl", "-qw", "net.ipv4.tcp_congestion_control=reno"], space)


def wire(a: Path, b: Path, link: str = "eth0", subnet: IPv4Network = CABLE) -> tuple[str, str]:
    """Join two namespaces with a veth pair and nothing else; return the addresses of both."""
    addresses = (str(subnet[1]), str(subnet[2]))
    run(["ip", "link", "add", link, "type", "veth", "peer", "name", link, "netns", b.name], a)
    for space, address in zip((a, b), addresses, strict=True):
        batch = f"addr add {address}/{subnet.prefixlen} dev {link}\nlink set {link} up\n"
        run(["ip", "-batch", "-"], space, batch)
    return addresses
