"""rtnetlink requests for the resources of a plan: values in, bytes out.

Source: rtnetlink(7); include/uapi/linux/{if_link,if_addr,rtnetlink,neighbour,ip}.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import Final, TypeAlias, TypeGuard

from seaway.kernel import netlink as nl
from seaway.plan.resources import (
    ROUTE_PROTOCOL,
    Fdb,
    Link,
    LinkAddress,
    LinkKind,
    Neighbour,
    Resource,
    Route,
    RouteKind,
)

OnLink: TypeAlias = LinkAddress | Neighbour | Fdb | Route
"""Resources that netlink keeps on a link, by its index."""

OWN_ALIAS: Final = "seaway"
"""ifalias of links we made inside other namespaces (a macvlan has no host side to tell by)."""

_CREATE = nl.NLM_F_CREATE | nl.NLM_F_EXCL
_PUT = nl.NLM_F_CREATE | nl.NLM_F_REPLACE
_THERE = frozenset({errno.EEXIST})
_IFA_NODAD, _IFA_NOPREFIXROUTE = 0x02, 0x200
_NUD_PERMANENT = 0x80
_RTN = {RouteKind.UNICAST: 1, RouteKind.LOCAL: 2, RouteKind.UNREACHABLE: 7}
_SCOPE_UNIVERSE, _SCOPE_LINK, _SCOPE_HOST = 0, 253, 254
_MACVLAN_MODE = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}  # if_link.h
_NTF_SELF = 2  # the device's own table, not that of a bridge it is a port of
_TUNNELS = frozenset({LinkKind.VXLAN, LinkKind.WIREGUARD})
_QUEUE = 1000  # packets, DEFAULT_TX_QUEUE_LEN; a wireguard-go's link has 500 unless told
_RTAX_LOCK, _RTAX_MTU = 1, 2
_FORWARDING, _RP_FILTER, _ROUTE_LOCALNET = 1, 8, 26  # IPV4_DEVCONF_*, include/uapi/linux/ip.h


def _ifinfo(index: int = 0, up: int = 0) -> bytes:
    return struct.pack("=BxHiII", 0, 0, index, up, up)


def _mac(text: str) -> bytes:
    return bytes.fromhex(text.replace(":", ""))


def new_link(link: Link, target: int, parent: int) -> nl.Message:
    """Create *link*, down.

    Args:
        target: Descriptor of the namespace that a veth's peer or a macvlan is made in.
        parent: Interface index of a macvlan's lower link.
    """
    body = _ifinfo() + nl.attr_text(3, link.name)
    if link.mtu:
        body += nl.attr_u32(4, link.mtu)
    if link.mac:
        body += nl.attr(1, _mac(link.mac))
    data = b""
    if link.kind is LinkKind.VETH:
        peer = _ifinfo() + nl.attr_text(3, link.peer_name) + nl.attr(1, _mac(link.peer_mac))
        peer += nl.attr_u32(4, link.mtu) + nl.attr_u32(28, target)  # IFLA_NET_NS_FD
        data = nl.attr(2, nl.attr(1, peer))  # IFLA_INFO_DATA { VETH_INFO_PEER }
    if link.kind is LinkKind.MACVLAN:
        body += nl.attr_u32(5, parent) + nl.attr_u32(28, target)  # IFLA_LINK
        data = nl.attr(2, nl.attr_u32(1, _MACVLAN_MODE[link.mode or "bridge"]))
    if link.kind is LinkKind.VXLAN:
        data = nl.attr(2, _vxlan(link))
    body += nl.attr(18, nl.attr(1, link.kind.encode()) + data)  # IFLA_LINKINFO
    return nl.Message(nl.RTM_NEWLINK, _CREATE, body, "create link", link.name, _THERE)


def _vxlan(link: Link) -> bytes:
    """Pack a VXLAN device's settings (IFLA_VXLAN_*, linux/if_link.h).

    Nothing is learnt, and nothing is sent that has no entry.  Outer packets may not be cut on
    their way, so that an underlay that has become narrower says so.
    """
    data = nl.attr_u32(1, link.vni) + nl.attr(15, link.port.to_bytes(2, "big"))
    data += nl.attr(7, b"\0") + nl.attr(29, b"\1")  # LEARNING: off; DF: set
    if link.family == 4:
        return data + nl.attr(18, b"\1")  # UDP_CSUM
    # No remote, but an IPv6 one (vxlan_config_validate, drivers/net/vxlan/vxlan_core.c).  Others
    # may send without checksums (RFC 6935), and the kernel tells no other sign of the family.
    return data + nl.attr(16, bytes(16)) + nl.attr(20, b"\1")  # GROUP6, UDP_ZERO_CSUM6_RX


def set_up(index: int, name: str) -> nl.Message:
    """Bring a link up."""
    return nl.Message(nl.RTM_NEWLINK, 0, _ifinfo(index, nl.IFF_UP), "bring up", name)


def set_attributes(index: int, link: Link, *, mac: bool) -> nl.Message:
    """Give an existing link its MTU and, if *mac*, its MAC address.

    Setting a MAC address makes the kernel forget the link's neighbours, even if it had that
    one before (neigh_changeaddr, net/core/neighbour.c).
    """
    body = _ifinfo(index)
    if link.mtu:
        body += nl.attr_u32(4, link.mtu)
    if link.mac and mac:
        body += nl.attr(1, _mac(link.mac))
    return nl.Message(nl.RTM_NEWLINK, 0, body, "change link", link.name)


def set_mtu(index: int, link: Link) -> nl.Message:
    """Give the other end of a veth, which has this index, the same MTU."""
    body = _ifinfo(index) + nl.attr_u32(4, link.mtu)
    return nl.Message(nl.RTM_NEWLINK, 0, body, "change link", link.peer_name)


def configure(index: int, link: Link) -> nl.Message:
    """No addresses of the kernel's own making; 127.0.0.0/8 where replies to it come back.

    The reverse path filter is off where our own rules check every source: even its loose mode
    drops what comes in on a link without addresses, if the way back is another link
    (__fib_validate_source, net/ipv4/fib_frontend.c), as for a container on two networks.
    """
    v6 = v4 = b""
    if link.ipv6:
        v6 = nl.attr(10, nl.attr(8, b"\1"))  # AF_INET6 { IFLA_INET6_ADDR_GEN_MODE: none }
    if link.localnet or link.kind in _TUNNELS:
        settings = nl.attr_u32(_FORWARDING, 1)  # whatever the host's default for new links is
        settings += nl.attr_u32(_ROUTE_LOCALNET, 1) if link.localnet else b""
        settings += nl.attr_u32(_RP_FILTER, 0)
        v4 = nl.attr(2, nl.attr(1, settings))  # AF_INET { IFLA_INET_CONF }
    body = _ifinfo(index) + nl.attr(26, v4 + v6)
    if link.kind is LinkKind.WIREGUARD:
        body += nl.attr_u32(13, _QUEUE)  # IFLA_TXQLEN
    return nl.Message(nl.RTM_NEWLINK, 0, body, "configure", link.name)


def address_message(item: LinkAddress, index: int, *, delete: bool = False) -> nl.Message:
    """Add or delete an address; without duplicate detection, since we hand them out."""
    family = socket.AF_INET if item.address.version == 4 else socket.AF_INET6
    body = struct.pack("=BBBBI", family, item.prefixlen, 0, 0, index)
    body += nl.attr(2, item.address.packed) + nl.attr(1, item.address.packed)
    body += nl.attr_u32(8, _IFA_NODAD | _IFA_NOPREFIXROUTE)  # IFA_FLAGS
    target = f"{item.address} on {item.link}"
    if delete:
        return nl.Message(nl.RTM_DELADDR, 0, body, "remove address", target, nl.GONE)
    return nl.Message(nl.RTM_NEWADDR, _PUT, body, "add address", target, _THERE)


def route_message(item: Route, index: int, *, delete: bool = False) -> nl.Message:
    """Add or delete one route of ours."""
    family = socket.AF_INET if item.to.version == 4 else socket.AF_INET6
    scope = _SCOPE_UNIVERSE
    if item.kind is RouteKind.LOCAL:
        scope = _SCOPE_HOST
    elif item.kind is RouteKind.UNICAST and item.via is None:
        scope = _SCOPE_LINK
    body = struct.pack(
        "=BBBBBBBBI",
        *(family, item.to.prefixlen, 0, 0, item.table, ROUTE_PROTOCOL, scope),
        *(_RTN[item.kind], 4 if item.via else 0),  # RTNH_F_ONLINK
    )
    body += nl.attr(1, item.to.network_address.packed)
    if item.link:
        body += nl.attr_u32(4, index)
    if item.via:
        body += nl.attr(5, item.via.packed)
    if item.metric:
        body += nl.attr_u32(6, item.metric)
    if item.source:
        body += nl.attr(7, item.source.packed)
    if item.mtu:
        body += nl.attr(8, _mtu_metric(item))
    if delete:
        return nl.Message(nl.RTM_DELROUTE, 0, body, "remove route", str(item.to), nl.GONE)
    # One destination may be local on several links; REPLACE would move it from one to the next.
    flags = nl.NLM_F_CREATE | nl.NLM_F_APPEND if item.kind is RouteKind.LOCAL else _PUT
    return nl.Message(nl.RTM_NEWROUTE, flags, body, "add route", str(item.to), _THERE)


def _mtu_metric(item: Route) -> bytes:
    """Pack RTA_METRICS of a route that carries smaller packets than its link.

    IPv6 forwards by it only if it is locked (ip6_dst_mtu_maybe_forward, net/ipv6/route.h);
    IPv4 does so anyway, and would clear DF in what the host itself sends if it were.
    """
    lock = nl.attr_u32(_RTAX_LOCK, 1 << _RTAX_MTU) if item.to.version == 6 else b""
    return lock + nl.attr_u32(_RTAX_MTU, item.mtu)


def neighbour_message(item: Neighbour, index: int, *, delete: bool = False) -> nl.Message:
    """Add or delete one permanent neighbour."""
    family = socket.AF_INET if item.address.version == 4 else socket.AF_INET6
    body = struct.pack("=BxxxiHBB", family, index, _NUD_PERMANENT, 0, 0)
    body += nl.attr(1, item.address.packed)
    if delete:
        return nl.Message(nl.RTM_DELNEIGH, 0, body, "remove neighbour", str(item.address), nl.GONE)
    body += nl.attr(2, _mac(item.mac))
    return nl.Message(nl.RTM_NEWNEIGH, _PUT, body, "add neighbour", str(item.address))


def fdb_message(item: Fdb, index: int, *, delete: bool = False) -> nl.Message:
    """Add or delete one entry of a VXLAN device; adding replaces one for the same MAC address."""
    body = struct.pack("=BxxxiHBB", socket.AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
    body += nl.attr(2, _mac(item.mac)) + nl.attr(1, item.to.packed)
    target = f"{item.mac} at {item.to}"
    if delete:
        return nl.Message(nl.RTM_DELNEIGH, 0, body, "remove fdb entry", target, nl.GONE)
    return nl.Message(nl.RTM_NEWNEIGH, _PUT, body, "add fdb entry", target)


def delete_link(name: str) -> nl.Message:
    """Delete a link, and with it the other end of a veth."""
    body = _ifinfo() + nl.attr_text(3, name)
    return nl.Message(nl.RTM_DELLINK, 0, body, "remove link", name, nl.GONE)


def on_link(item: OnLink, index: int, *, delete: bool = False) -> nl.Message:
    """Add or delete *item* on the link with this index (0: on none)."""
    if isinstance(item, LinkAddress):
        return address_message(item, index, delete=delete)
    if isinstance(item, Route):
        return route_message(item, index, delete=delete)
    if isinstance(item, Fdb):
        return fdb_message(item, index, delete=delete)
    return neighbour_message(item, index, delete=delete)


def mark(index: int, name: str) -> nl.Message:
    """Mark a link in somebody else's namespace as ours."""
    body = _ifinfo(index) + nl.attr_text(20, OWN_ALIAS)
    return nl.Message(nl.RTM_NEWLINK, 0, body, "mark link", name)


def rename(index: int, name: str) -> nl.Message:
    """Give a link that is down another name."""
    body = _ifinfo(index) + nl.attr_text(3, name)
    return nl.Message(nl.RTM_NEWLINK, 0, body, "name link", name)


def is_on_link(item: Resource) -> TypeGuard[OnLink]:
    """Tell the resources that on_link() takes from the others."""
    return isinstance(item, LinkAddress | Route | Neighbour | Fdb)
