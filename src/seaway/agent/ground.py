"""What this host stands on: its own addresses, and how the kernel would send to other hosts."""

from __future__ import annotations

from collections.abc import Iterable

from seaway.kernel import netlink as nl
from seaway.kernel import underlay
from seaway.kernel.observe import SeenLink, addresses, links, owned
from seaway.model.network import Address
from seaway.plan.carriers import UnderlayPath


class Ground:
    """Asks the kernel, in the namespace it was made in.  Not for several threads at once."""

    def __init__(self) -> None:
        self._netlink = nl.Netlink()

    def close(self) -> None:
        """Let go of the socket."""
        self._netlink.close()

    def paths(self, addresses: Iterable[Address]) -> dict[Address, UnderlayPath]:
        """Say how this host sends to each of *addresses*; what it cannot reach is left out."""
        return underlay.paths(self._netlink, addresses)

    def default_addresses(self) -> tuple[Address, ...]:
        """Return the addresses that this host's default routes leave from, IPv4 first."""
        found = (underlay.default_source(self._netlink, version) for version in (4, 6))
        return tuple(address for address in found if address is not None)

    def mac(self, addresses: Iterable[Address]) -> str:
        """Return the MAC address of the link with the first of *addresses* that is ours, or ""."""
        link = self._link_with(addresses)
        return link.mac if link and link.mac != "00:00:00:00:00:00" else ""

    def mtu(self, addresses: Iterable[Address]) -> int:
        """Return the MTU of that link in bytes; 0 if there is none."""
        link = self._link_with(addresses)
        return link.mtu if link else 0

    def _link_with(self, wanted: Iterable[Address]) -> SeenLink | None:
        by_index = {link.index: link for link in links(self._netlink)}
        where = {one.address: one.index for one in addresses(self._netlink)}
        for address in wanted:
            link = by_index.get(where.get(address, 0))
            if link is not None and not owned(link.name):
                return link
        return None
