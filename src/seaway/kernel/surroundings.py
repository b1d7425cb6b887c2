"""What is around us on this host: routes, resolvers, the way out."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address, ip_network
from pathlib import Path

from seaway.errors import NotFound
from seaway.ipam.pools import Taken
from seaway.kernel import netlink as nl
from seaway.kernel import netns
from seaway.kernel.observe import addresses, links
from seaway.model.names import GATEWAY_LINK
from seaway.model.network import Address
from seaway.plan.host import HostFacts
from seaway.plan.resources import LOCAL_TABLE, ROUTE_PROTOCOL

_RTMSG = struct.Struct("=BBBBBBBBI")  # struct rtmsg
_RTN_UNICAST = 1
_MTU = 1500  # bytes, Ethernet's; taken where no default route tells
_MTU_MAX = 65535
_INNER_KINDS = frozenset({"veth", "tun", "dummy"})
_UNSPEAKABLE = frozenset('"*\\\ufffd')  # nft has no way to say them in a link's name


def facts(sock: nl.Netlink) -> HostFacts:
    """Find out what a plan has to know about this host."""
    return HostFacts(ipv6=has_ipv6(), mtu=_exit_mtu(sock), exit_bridges=exit_bridges(sock))


def has_ipv6() -> bool:
    """Does this namespace speak IPv6?"""
    conf = Path("/proc/sys/net/ipv6/conf")
    try:
        # "all" is about the links there are, "default" about those we are going to make.
        return all(
            (conf / which / "disable_ipv6").read_text().strip() == "0"
            for which in ("all", "default")
        )
    except OSError:
        return False


def bridges(sock: nl.Netlink) -> dict[str, bool]:
    """Tell for every bridge but our own whether it leads to other machines.

    Those that do have a default route, or a port that is neither one end of a
    wire between namespaces nor a virtual machine's tap; a bridge of Docker,
    Podman, libvirt and the like has only such ports.
    """
    found = links(sock)
    leading = {link.master for link in found if link.kind not in _INNER_KINDS}
    leading |= {oif for to, _, oif, _ in _routes(sock) if to == "default"}
    others = (link for link in found if link.kind == "bridge" and link.name != GATEWAY_LINK)
    return {link.name: link.index in leading for link in others}


def exit_bridges(sock: nl.Netlink) -> frozenset[str]:
    """Name the bridges that lead to other machines."""
    return frozenset(
        name for name, leads in bridges(sock).items() if leads and not _UNSPEAKABLE & set(name)
    )


def _exit_mtu(sock: nl.Netlink) -> int:
    """Return the smallest MTU of the links that default routes leave by, in bytes."""
    by_index = {link.index: link.mtu for link in links(sock)}
    exits = [by_index.get(oif, _MTU) for to, _, oif, _ in _routes(sock) if to == "default"]
    return min([*exits, _MTU_MAX]) if exits else _MTU


def _routes(sock: nl.Netlink) -> Iterator[tuple[str, int, int, int]]:
    """Yield (destination or "default", protocol, link index, family) of every unicast route."""
    for family in (socket.AF_INET, socket.AF_INET6):
        for body in sock.dump(nl.RTM_GETROUTE, _RTMSG.pack(family, 0, 0, 0, 0, 0, 0, 0, 0)):
            _, length, _, _, table, protocol, _, kind, _ = _RTMSG.unpack_from(body)
            found = dict(nl.attrs(body[12:]))
            if kind != _RTN_UNICAST or table == LOCAL_TABLE:
                continue
            oif = struct.unpack("=I", found[4])[0] if 4 in found else 0
            if length == 0:
                yield "default", protocol, oif, family
            else:
                yield f"{ip_address(found[1])}/{length}", protocol, oif, family


def taken(sock: nl.Netlink, resolv_conf: Path = Path("/etc/resolv.conf")) -> list[Taken]:
    """List every range this host reaches by a route that is not ours, and its resolvers."""
    names = {link.index: link.name for link in links(sock)}
    found = [
        Taken(prefix=ip_network(to), by=f"the route via {names.get(oif, 'several links')}")
        for to, protocol, oif, _ in _routes(sock)
        if to != "default" and protocol != ROUTE_PROTOCOL and not _everyones(to)
    ]
    return [*found, *_resolvers(resolv_conf)]


def _everyones(to: str) -> bool:
    """Link-local and multicast ranges stand on every link and clash with nothing."""
    prefix = ip_network(to)
    return prefix.is_link_local or prefix.is_multicast


def _resolvers(path: Path) -> Iterator[Taken]:
    with suppress(OSError):
        for line in path.read_text(errors="replace").splitlines():
            words = line.split()
            if words[:1] != ["nameserver"] or len(words) < 2:
                continue
            with suppress(ValueError):
                address = ip_address(words[1].split("%")[0])
                if not address.is_loopback:
                    yield Taken(prefix=ip_network(address), by="a name server of this host")


def local_addresses(sock: nl.Netlink) -> set[Address]:
    """List every address of this host."""
    return {one.address for one in addresses(sock) if one.address is not None}


def require_link(name: str) -> None:
    """Raise NotFound unless this host has an interface called *name*."""
    try:
        socket.if_nametoindex(name)
    except OSError:
        what = f"this host has no interface {name!r}: 'ip link' shows those it has"
        raise NotFound(what) from None


def links_in(path: str) -> list[str]:
    """Name the links in the namespace at *path*, whoever made them."""
    with netns.inside(path):
        return [name for _, name in socket.if_nameindex()]


def exit_of(path: str) -> str:
    """Name the link of a default route in the namespace at *path* that is not ours; "" for none."""
    with netns.inside(path), nl.Netlink() as sock:
        names = dict(socket.if_nameindex())
        for to, protocol, oif, _ in _routes(sock):
            if to == "default" and protocol != ROUTE_PROTOCOL:
                return names.get(oif, "several links")
    return ""


def keep_router_advertisements() -> tuple[str, ...]:
    """Let links that learn their IPv6 routes from a router go on doing so.

    Turning forwarding on makes the kernel ignore router advertisements where
    accept_ra is 1, and a host would lose its default route; 2 means "also when
    forwarding" (Documentation/networking/ip-sysctl, accept_ra).

    Returns:
        The links that were changed.
    """
    changed = []
    root = Path("/proc/sys/net/ipv6/conf")
    if not root.is_dir() or (root / "all/forwarding").read_text().strip() == "1":
        return ()
    for setting in sorted(root.glob("*/accept_ra")):
        if setting.parent.name != "all" and setting.read_text().strip() == "1":
            setting.write_text("2")
            changed.append(setting.parent.name)
    return tuple(changed)
