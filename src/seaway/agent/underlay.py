"""Hear it when the ways to other hosts may have changed: their addresses, links and routes.

It says that they may have, and nothing of what they are now (kernel/underlay.py finds out).
"""

from __future__ import annotations

import struct
from ipaddress import ip_network

from seaway.kernel import netlink as nl
from seaway.kernel.observe import SeenAddress, SeenLink, addresses, links, owned
from seaway.model.network import Address
from seaway.plan.resources import LOCAL_TABLE, ROUTE_PROTOCOL

_AF_INET = 2
_RTN_UNICAST = 1
_RTM_F_CLONED = 0x200  # what the kernel has learnt of a path, not a route


class UnderlayWatch:
    """Remembers addresses and links that are not ours, to tell news from repetitions.

    Made in the namespace it is about.
    """

    def __init__(self) -> None:
        with nl.Netlink() as sock:
            there = links(sock)
            self._names = {link.index: link.name for link in there}
            self._links = {link.index: (link.mtu, link.up) for link in there}
            self._addresses: set[tuple[int, Address]] = set()
            for one in addresses(sock):
                self._address_changed(nl.RTM_NEWADDR, one)

    def changed(self, kind: int, body: bytes) -> bool:
        """May this announcement change how, or from where, other hosts are reached?"""
        if kind in (nl.RTM_NEWLINK, nl.RTM_DELLINK):
            return self._link_changed(kind, body)
        if kind in (nl.RTM_NEWADDR, nl.RTM_DELADDR):
            return self._address_changed(kind, SeenAddress(body))
        return kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE) and _leads_elsewhere(body)

    def _link_changed(self, kind: int, body: bytes) -> bool:
        link = SeenLink(body)
        before = self._links.get(link.index)
        now = (link.mtu, link.up) if kind == nl.RTM_NEWLINK else None
        if now is None:
            self._links.pop(link.index, None)
            self._names.pop(link.index, None)
        else:
            self._links[link.index], self._names[link.index] = now, link.name
        # A link without an address sends nothing of the host's: a container's veth, for one.
        return before not in (None, now) and any(i == link.index for i, _ in self._addresses)

    def _address_changed(self, kind: int, found: SeenAddress) -> bool:
        if found.address is None or not found.universal:
            return False
        if owned(self._names.get(found.index, "")):
            return False
        one = (found.index, found.address)
        known = one in self._addresses
        if kind == nl.RTM_DELADDR:
            self._addresses.discard(one)
            return known
        if known or found.tentative:
            return False
        self._addresses.add(one)
        return True


def _leads_elsewhere(body: bytes) -> bool:
    """Is this about a route to other machines that is not ours?"""
    family, length, _, _, table, protocol, _, kind, flags = struct.unpack_from("=BBBBBBBBI", body)
    if protocol == ROUTE_PROTOCOL or table == LOCAL_TABLE or kind != _RTN_UNICAST:
        return False
    unspecified = bytes(4 if family == _AF_INET else 16)
    to = ip_network((dict(nl.attrs(body[12:])).get(1, unspecified), length))  # RTA_DST
    every_link_has_it = to.is_link_local or to.is_multicast
    return not flags & _RTM_F_CLONED and not every_link_has_it
