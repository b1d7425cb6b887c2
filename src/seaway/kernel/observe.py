"""Read what Seaway owns out of the kernel, as the same values a plan is made of.

Ownership is by mark, never by memory: interface prefix, route protocol number,
table name.  What is not marked is not seen, so it can never be deleted.
"""

from __future__ import annotations

import struct
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path
from threading import Lock
from typing import Any

from seaway.errors import InvalidSpec, NotFound
from seaway.kernel import netlink as nl
from seaway.kernel import netns as namespaces
from seaway.kernel import offload, wireguard
from seaway.kernel.messages import OWN_ALIAS, is_on_link
from seaway.kernel.nft import Nft
from seaway.model.names import GATEWAY_LINK, VETH_PREFIX
from seaway.model.network import Address
from seaway.plan.resources import (
    LINK_GATEWAY,
    MAIN_TABLE,
    ROUTE_PROTOCOL,
    TABLE,
    VXLAN_LINKS,
    WIREGUARD_PREFIX,
    Element,
    Fdb,
    Link,
    LinkAddress,
    LinkKind,
    Neighbour,
    Netns,
    Resource,
    Route,
    RouteKind,
    Sysctl,
)

_IFINFO = struct.Struct("=BxHiII")  # struct ifinfomsg
_IFADDR = struct.Struct("=BBBBI")  # struct ifaddrmsg
_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_NDMSG = struct.Struct("=BxxxiHBB")  # struct ndmsg
_AF_INET, _AF_BRIDGE, _AF_INET6 = 2, 7, 10
_NUD_PERMANENT = 0x80
_RTN = {1: RouteKind.UNICAST, 2: RouteKind.LOCAL, 7: RouteKind.UNREACHABLE}
_IP6_METRIC_DEFAULT = 1024  # IP6_RT_PRIO_USER, include/net/ipv6.h
_SKIP_STATS = nl.attr_u32(29, 1 << 3)  # IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS


class SeenLink:
    """One link of a dump, as far as we read it."""

    __slots__ = ("alias", "index", "kind", "mac", "master", "mtu", "name", "up", "vxlan")

    def __init__(self, body: bytes) -> None:
        _, _, self.index, flags, _ = _IFINFO.unpack_from(body)
        self.up = bool(flags & nl.IFF_UP)
        self.name = self.kind = self.mac = self.alias = ""
        self.mtu = self.master = 0
        self.vxlan: dict[int, bytes] = {}  # IFLA_VXLAN_*
        for kind, data in nl.attrs(body[16:]):
            if kind == 3:  # IFLA_IFNAME
                self.name = data[:-1].decode(errors="replace")  # any bytes may name a link
            elif kind == 4:  # IFLA_MTU
                self.mtu = struct.unpack("=I", data)[0]
            elif kind == 10:  # IFLA_MASTER
                self.master = struct.unpack("=I", data)[0]
            elif kind == 1:  # IFLA_ADDRESS
                self.mac = data.hex(":")
            elif kind == 20:  # IFLA_IFALIAS
                self.alias = data.rstrip(b"\0").decode(errors="replace")
            elif kind == 18:  # IFLA_LINKINFO
                info = dict(nl.attrs(data))
                self.kind = info.get(1, b"").rstrip(b"\0").decode(errors="replace")
                if self.kind == LinkKind.VXLAN:
                    self.vxlan = dict(nl.attrs(info.get(2, b"")))


def links(sock: nl.Netlink) -> list[SeenLink]:
    """List every link of the socket's namespace, ours or not."""
    request = _IFINFO.pack(0, 0, 0, 0, 0) + _SKIP_STATS
    return [SeenLink(body) for body in sock.dump(nl.RTM_GETLINK, request)]


class SeenAddress:
    """One address of a dump or an announcement, as far as we read it."""

    __slots__ = ("address", "index", "prefixlen", "tentative", "universal")

    def __init__(self, body: bytes) -> None:
        family, self.prefixlen, flags, scope, self.index = _IFADDR.unpack_from(body)
        self.universal = scope == 0  # RT_SCOPE_UNIVERSE
        self.address: Address | None = None  # of another family than IP's
        found = dict(nl.attrs(body[8:]))
        raw = found.get(2, found.get(1))  # IFA_LOCAL, else IFA_ADDRESS (IPv6)
        if raw is not None and family in (_AF_INET, _AF_INET6):
            self.address = ip_address(raw)
        if 8 in found:  # IFA_FLAGS
            (flags,) = struct.unpack("=I", found[8])
        # Duplicate address detection is under way: nobody sends from it yet (IFA_F_TENTATIVE).
        self.tentative = bool(flags & 0x40)


def addresses(sock: nl.Netlink) -> list[SeenAddress]:
    """List every address of the socket's namespace, ours or not."""
    request = _IFADDR.pack(0, 0, 0, 0, 0)
    return [SeenAddress(body) for body in sock.dump(nl.RTM_GETADDR, request)]


def _addresses(sock: nl.Netlink, names: dict[int, str], place: str) -> Iterator[LinkAddress]:
    for one in addresses(sock):
        address, link = one.address, names.get(one.index)
        if address is None or link is None:
            continue
        link_local = address.version == 6 and address.is_link_local
        if link_local and address != LINK_GATEWAY and not is_tunnel(link):
            continue  # the kernel's own doing
        yield LinkAddress(netns=place, link=link, address=address, prefixlen=one.prefixlen)


def routes(sock: nl.Netlink, names: dict[int, str], place: str = "") -> Iterator[Route]:
    """List the routes that carry our protocol number."""
    for family in (_AF_INET, _AF_INET6):
        request = _RTMSG.pack(family, 0, 0, 0, 0, ROUTE_PROTOCOL, 0, 0, 0)
        for body in sock.dump(nl.RTM_GETROUTE, request):
            if body[5] == ROUTE_PROTOCOL and (route := _route(body, names, place)):
                yield route


def _route(body: bytes, names: dict[int, str], place: str) -> Route | None:
    family, length, _, _, table, _, _, kind, _ = _RTMSG.unpack_from(body)
    found = dict(nl.attrs(body[12:]))
    if kind not in _RTN:
        return None

    def word(kind: int) -> int:
        return int(struct.unpack("=I", found[kind])[0]) if kind in found else 0

    metric = word(6)
    if family == _AF_INET6 and metric == _IP6_METRIC_DEFAULT:
        metric = 0
    unspecified = bytes(4 if family == _AF_INET else 16)
    return Route(
        netns=place,
        to=ip_network((found.get(1, unspecified), length)),
        link="" if _RTN[kind] is RouteKind.UNREACHABLE else names.get(word(4), ""),
        via=ip_address(found[5]) if 5 in found else None,
        source=ip_address(found[7]) if 7 in found else None,
        kind=_RTN[kind],
        table=word(15) or table or MAIN_TABLE,
        metric=metric,
        mtu=_mtu_metric(found.get(8, b""), family),
    )


def _mtu_metric(metrics: bytes, family: int) -> int:
    """Read an MTU as messages.route_message() writes it; IPv6 heeds only a locked one."""
    found = dict(nl.attrs(metrics))
    locked = struct.unpack("=I", found.get(1, bytes(4)))[0] & 1 << 2  # RTAX_LOCK
    if 2 not in found or (family == _AF_INET6 and not locked):
        return 0
    return int(struct.unpack("=I", found[2])[0])


def _fdb(sock: nl.Netlink, link: SeenLink) -> Iterator[Fdb]:
    """List the entries of a VXLAN device."""
    for body in sock.dump(nl.RTM_GETNEIGH, _IFINFO.pack(_AF_BRIDGE, 0, link.index, 0, 0)):
        family, index, _state, _flags, _kind = _NDMSG.unpack_from(body)
        found = dict(nl.attrs(body[12:]))
        if (family, index) == (_AF_BRIDGE, link.index) and 1 in found and 2 in found:
            yield Fdb(link=link.name, mac=found[2].hex(":"), to=ip_address(found[1]))


def _neighbours(sock: nl.Netlink, names: dict[int, str], place: str) -> Iterator[Neighbour]:
    for body in sock.dump(nl.RTM_GETNEIGH, _NDMSG.pack(0, 0, 0, 0, 0)):
        _family, index, state, _flags, _kind = _NDMSG.unpack_from(body)
        found = dict(nl.attrs(body[12:]))
        if index in names and state & _NUD_PERMANENT and 1 in found and 2 in found:
            yield Neighbour(
                netns=place,
                link=names[index],
                address=ip_address(found[1]),
                mac=found[2].hex(":"),
            )


def host(sock: nl.Netlink) -> list[Resource]:
    """Read our links and what is on them, and our routes, in the host's namespace.

    Kernel:
        A wg(8) process for every WireGuard link, 1 ms each, and 15 us a peer.
    """
    seen = links(sock)
    names = {s.index: s.name for s in seen}
    ours = {s.index: s.name for s in seen if owned(s.name)}
    found: list[Resource] = []
    for link in seen:
        if link.index not in ours:
            continue
        found.append(as_it_is := _link(link))
        if as_it_is.kind is LinkKind.VXLAN:
            found += _fdb(sock, link)
        if as_it_is.kind is LinkKind.WIREGUARD:
            found += wireguard.observed(link.name)
    found += _addresses(sock, ours, "")
    found += routes(sock, names)
    found += (n for n in _neighbours(sock, ours, "") if not n.address.is_multicast)
    # What is on a link that has to be made anew will be gone then, and is as good as not there.
    lost = {i.name for i in found if isinstance(i, Link) and i.kind is LinkKind.LOST}
    return [item for item in found if not (is_on_link(item) and item.link in lost)]


class Eyes:
    """Sockets to look at the host's namespace with, for any thread, one at a time.

    Made in that namespace; apart from those that change it, so that looking
    never waits for a change or gets in its way.
    """

    def __init__(self) -> None:
        self._nft = Nft()
        self._netlink = nl.Netlink()
        self._looking = Lock()

    def close(self) -> None:
        """Let go of the sockets."""
        self._nft.close()
        self._netlink.close()

    def see(self) -> tuple[list[dict[str, Any]], list[Resource]]:
        """Return our table as JSON, and what is ours on the host, its elements included."""
        with self._looking:
            listing = table(self._nft)
            found = host(self._netlink)
        return listing, [*found, *elements(listing)]


def owned(name: str) -> bool:
    """Does an interface of this name on the host belong to Seaway?"""
    return name == GATEWAY_LINK or name.startswith(VETH_PREFIX) or is_tunnel(name)


def is_tunnel(name: str) -> bool:
    """Is it the name of one of our tunnels to other hosts?"""
    return name in VXLAN_LINKS.values() or name.startswith(WIREGUARD_PREFIX)


def _link(s: SeenLink, place: str = "") -> Link:
    kind = LinkKind(s.kind) if s.kind in set(LinkKind) else LinkKind.LOST
    if not place and s.name.startswith(WIREGUARD_PREFIX):
        kind = LinkKind.WIREGUARD if wireguard.answers(s.name, s.kind) else LinkKind.LOST
    mac = "" if kind is LinkKind.WIREGUARD else s.mac
    found = Link(netns=place, name=s.name, kind=kind, mac=mac, mtu=s.mtu, up=s.up)
    if kind is not LinkKind.VXLAN:
        return found
    family = 6 if s.vxlan.get(20) == b"\1" else 4  # see messages.new_link()
    return replace(
        found,
        vni=struct.unpack("=I", s.vxlan.get(1, bytes(4)))[0],
        port=int.from_bytes(s.vxlan.get(15, b""), "big"),
        family=family,
        checksum=bool(place) or offload.tx_checksum(s.name),
    )


def inside(path: str, names: Collection[str]) -> list[Resource]:
    """Read our part of another namespace: the links called *names*, and macvlans of ours.

    Raises:
        NotFound: The namespace has gone.
    """
    with nl.Netlink(path) as sock:
        seen = links(sock)
        ours = {s.index: s.name for s in seen if s.name in names or s.alias == OWN_ALIAS}
        every = {s.index: s.name for s in seen}
        found: list[Resource] = [_link(s, path) for s in seen if s.index in ours]
        found += _addresses(sock, ours, path)
        found += routes(sock, every, path)
        found += (n for n in _neighbours(sock, ours, path) if not n.address.is_multicast)
        return found


def sysctls(wanted: Iterable[Sysctl]) -> Iterator[Sysctl]:
    """Read the settings that *wanted* names; a namespace that is not there has none."""
    for setting in wanted:
        path = Path("/proc/sys", *setting.name.split("."))
        try:
            with namespaces.inside(setting.netns):
                yield replace(setting, value=path.read_text().strip())
        except (OSError, NotFound, InvalidSpec):
            continue


def kept_netns(folder: str) -> list[Netns]:
    """List the namespaces that are mounted in *folder* (our run directory's netns/)."""
    try:
        paths = sorted(Path(folder).iterdir())
    except FileNotFoundError:
        return []
    return [Netns(path=str(p)) for p in paths if namespaces.exists(str(p))]


def elements(listing: Iterable[dict[str, Any]]) -> list[Element]:
    """Turn a JSON listing of our table into elements, written as a plan writes them."""
    found: list[Element] = []
    for item in listing:
        for word in ("set", "map"):
            if word in item:
                name, elements = item[word]["name"], item[word].get("elem", ())
                if item[word]["type"] == "ifname":  # any word of nft's may be a link's name
                    elements = [f'"{e}"' for e in elements]
                found += (_element(name, e) for e in elements)
    return found


def _element(name: str, item: object) -> Element:
    match, value = item if isinstance(item, list) else (item, None)
    if isinstance(match, dict) and "elem" in match:
        match = match["elem"]["val"]
    return Element(set=name, match=_parts(match), value=() if value is None else _parts(value))


def _parts(item: Any) -> tuple[str, ...]:
    if isinstance(item, dict) and "concat" in item:
        return tuple(_part(p) for p in item["concat"])
    return (_part(item),)


def _part(item: Any) -> str:
    if isinstance(item, dict) and "prefix" in item:
        prefix = ip_network(f"{item['prefix']['addr']}/{item['prefix']['len']}")
        return str(prefix)
    if isinstance(item, dict) and "range" in item:
        first, last = item["range"]
        return f"{first}-{last}"
    return str(item)


def chains(listing: Iterable[dict[str, Any]]) -> str:
    """Boil a JSON listing of our table down to its fixed part, comparable as text."""
    fixed = []
    for item in listing:
        word, body = next(iter(item.items()))
        if word in ("table", "chain", "rule", "set", "map"):
            kept = {k: v for k, v in body.items() if k not in ("handle", "elem", "index")}
            fixed.append(f"{word} {kept}")
    return "\n".join(fixed)


def table(nft: Nft) -> list[dict[str, Any]]:
    """List our table as JSON; [] when it is not there."""
    return nft.listing(f"table inet {TABLE}")
