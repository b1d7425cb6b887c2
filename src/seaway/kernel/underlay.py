"""How this host would send to others: by which link, from which address, how large.

Only asks.  The kernel tells nobody when it learns that a path has become narrower, so whoever
must know asks again from time to time; everything else is announced (agent/drift.py).

Source: rtnetlink(7); rt_fill_info(), net/ipv4/route.c; rt6_fill_node(), net/ipv6/route.c.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from ipaddress import ip_address
from typing import Final

from seaway.kernel import netlink as nl
from seaway.kernel.observe import SeenLink, addresses, links, owned
from seaway.model.network import Address
from seaway.plan.carriers import UnderlayPath

_RTMSG: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_RTN_UNICAST: Final = 1
_DST, _OIF, _GATEWAY, _PREFSRC, _METRICS, _VIA = 1, 4, 5, 7, 8, 18  # RTA_*, linux/rtnetlink.h
_RTAX_MTU: Final = 2
_FAR: Final = {4: ip_address("198.51.100.1"), 6: ip_address("2001:db8:ffff::1")}
"""Addresses that nobody has (RFC 5737, RFC 3849): they are found by the default route alone."""


def path_to(sock: nl.Netlink, address: Address) -> UnderlayPath | None:
    """Say how this host sends to *address*; None: it cannot, or the address is its own."""
    return paths(sock, [address]).get(address)


def paths(sock: nl.Netlink, addresses: Iterable[Address]) -> dict[Address, UnderlayPath]:
    """Say how this host sends to each of *addresses*, leaving out what it cannot reach.

    The MTU is the route's, or what the kernel has learnt of the path since, or the link's.
    Ways through links of ours are none: no tunnel may lead through itself.

    Kernel:
        RTM_GETROUTE, many in one datagram: 1,000 addresses take 25 ms.
    """
    wanted = [*dict.fromkeys(addresses)]
    if not wanted:
        return {}
    by_index = {link.index: link for link in links(sock)}
    answers = sock.ask(nl.RTM_GETROUTE, [_question(address) for address in wanted])
    found = {}
    for address, body in zip(wanted, answers, strict=True):
        if body is not None and (path := _path(address, body, by_index)):
            found[address] = path
    return found


def _question(address: Address) -> bytes:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    length = address.max_prefixlen
    return _RTMSG.pack(family, length, 0, 0, 0, 0, 0, 0, 0) + nl.attr(_DST, address.packed)


def _path(to: Address, body: bytes, by_index: dict[int, SeenLink]) -> UnderlayPath | None:
    kind = _RTMSG.unpack_from(body)[7]
    found = dict(nl.attrs(body[12:]))
    link = by_index.get(struct.unpack("=I", found.get(_OIF, bytes(4)))[0])
    if kind != _RTN_UNICAST or link is None or owned(link.name) or _PREFSRC not in found:
        return None
    metric = dict(nl.attrs(found.get(_METRICS, b""))).get(_RTAX_MTU)
    route_mtu = struct.unpack("=I", metric)[0] if metric else link.mtu
    return UnderlayPath(
        to=to,
        link=link.name,
        source=ip_address(found[_PREFSRC]),
        mtu=min(route_mtu, link.mtu),
        on_link=not found.keys() & {_GATEWAY, _VIA},
        link_mac=_ethernet(link),
    )


def _ethernet(link: SeenLink) -> str:
    """Return its MAC address; what tunnels have instead has another length."""
    return link.mac if len(link.mac) == len("00:00:00:00:00:00") else ""


def default_source(sock: nl.Netlink, version: int) -> Address | None:
    """Return this host's address of an IP version that others can be told to reach it by.

    That which it sends to far places from; without a default route, the first one of a link
    that is not ours.  None: it has no other than of loopback and link-local ones.
    """
    if path := path_to(sock, _FAR[version]):
        return path.source
    names = {link.index: link.name for link in links(sock)}
    for one in addresses(sock):
        fits = one.universal and one.address is not None and one.address.version == version
        if fits and not owned(names.get(one.index, "")):
            return one.address
    return None


def link_mac(sock: nl.Netlink, name: str) -> str:
    """Return a link's MAC address, in lower case; "" if it has none, or is not there."""
    return next((_ethernet(link) for link in links(sock) if link.name == name), "")
