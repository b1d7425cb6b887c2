"""Hear it when somebody else touches what is ours, and ask for a look.

Announcements only say "look again"; the audit finds out what to do.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Container, Hashable, Mapping
from ipaddress import ip_address, ip_network
from pathlib import Path

from seaway.agent.underlay import UnderlayWatch
from seaway.kernel import netlink as nl
from seaway.kernel.observe import is_tunnel
from seaway.plan.resources import ROUTE_PROTOCOL, TABLE, Link, Neighbour, Resource

_ROUTE_GROUPS = (1, 3, 5, 7, 9, 11, 24, 25)
"""RTNLGRP_LINK, NEIGH, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE, IPV4_NETCONF,
IPV6_NETCONF: include/uapi/linux/rtnetlink.h."""
_RTM_NEWNETCONF = 80
_ALL_LINKS = struct.pack("=i", -1)  # NETCONFA_IFINDEX_ALL, linux/netconf.h
_RTPROT_KERNEL = 2  # routes that come with an address
_NDMSG = struct.Struct("=B3xiH")  # struct ndmsg, linux/neighbour.h: family, link, state
_NUD_PERMANENT = 0x80
_NFT_GROUPS = (7,)  # NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h
_NEWGEN = 15  # NFT_MSG_NEWGEN, linux/netfilter/nf_tables.h
_SUBSYS_NFTABLES = 10
_AF_INET = 2
_EVERYTHING = 0xFFFFFFFF
_OUR_TABLE = nl.attr_text(1, TABLE)


class DriftMonitor:
    """Listens in the namespace it was made in.

    Args:
        known: The resources we hold, by key; anything else is not ours to mind.
        own_ports: Netlink port numbers whose effects are our own doing.
        on_drift: Called with a reason when something of ours was touched.
        on_others: Called when somebody else changed their nftables rules, their
            bridges or the default route.
        on_underlay: Called when other hosts may be reached in another way than before: by
            another link or router, from another address, or with packets of another size.
    """

    def __init__(
        self,
        known: Callable[[], Mapping[Hashable, Resource]],
        own_ports: Container[int],
        on_drift: Callable[[str], None],
        on_others: Callable[[], None],
        on_underlay: Callable[[], None] | None = None,
    ) -> None:
        self._known = known
        self._own_ports = own_ports
        self._on_drift = on_drift
        self._on_others = on_others
        self._on_underlay = on_underlay
        self._route = nl.subscribe(socket.NETLINK_ROUTE, _ROUTE_GROUPS)
        self._nft = nl.subscribe(nl.NETLINK_NETFILTER, _NFT_GROUPS)
        self._underlay = UnderlayWatch()  # after listening: no news falls between
        self._touched = self._others = False
        self._program = Path("/proc/self/comm").read_bytes().rstrip(b"\n")
        self._self = b""  # our process's number as announcements have it

    async def run(self) -> None:
        """Listen until cancelled."""
        loop = asyncio.get_running_loop()
        loop.add_reader(self._route, self._drain, self._route, self._route_message)
        loop.add_reader(self._nft, self._drain, self._nft, self._nft_message)
        try:
            await asyncio.Event().wait()
        finally:
            for sock in (self._route, self._nft):
                loop.remove_reader(sock)
                sock.close()

    def _drain(self, sock: socket.socket, take: Callable[[int, int, bytes], None]) -> None:
        while True:
            try:
                data = sock.recv(1 << 18)
            except BlockingIOError:
                return
            except OSError:
                # ENOBUFS: more was announced than fits, so anything may have changed.
                self._on_drift("announcements were lost")
                if self._on_underlay:
                    self._on_underlay()
                return
            at = 0
            while at + 16 <= len(data):
                length, kind, _, _, port = struct.unpack_from("=IHHII", data, at)
                if length < 16:
                    break
                take(kind, port, data[at + 16 : at + length])
                at += (length + 3) & ~3

    def _route_message(self, kind: int, port: int, body: bytes) -> None:
        if port in self._own_ports and not _tunnel_went(kind, body):
            return
        if self._on_underlay and self._underlay.changed(kind, body):
            self._on_underlay()
        if _may_lead_out(kind, body):
            self._on_others()
        if (why := self._drift_in(kind, body)) is not None:
            self._on_drift(why)

    def _drift_in(self, kind: int, body: bytes) -> str | None:
        """Say what was done to something of ours, if that is what the announcement is about."""
        if kind in (nl.RTM_NEWLINK, nl.RTM_DELLINK):
            return self._link_changed(kind, body)
        if kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE):
            return self._route_changed(kind, body)
        if kind in (nl.RTM_NEWNEIGH, nl.RTM_DELNEIGH):
            return self._neighbour_changed(kind, body)
        if kind == nl.RTM_DELADDR:
            return self._address_gone(body)
        if kind == _RTM_NEWNETCONF:
            return self._forwarding_stopped(body)
        return None

    def _link_changed(self, kind: int, body: bytes) -> str | None:
        found = dict(nl.attrs(body[16:]))
        name = found.get(3, b"").rstrip(b"\0").decode(errors="replace")  # IFLA_IFNAME
        ours = self._known().get(("link", "", name))
        if not isinstance(ours, Link):
            return None
        mac, mtu = found.get(1, b"").hex(":"), struct.unpack("=I", found.get(4, bytes(4)))[0]
        differs = (ours.mac and mac != ours.mac) or (ours.mtu and mtu != ours.mtu)
        if kind == nl.RTM_DELLINK or differs or _went_down(body):
            return f"link {name} was changed"
        return None

    def _route_changed(self, kind: int, body: bytes) -> str | None:
        protocol = body[5]
        if kind == nl.RTM_DELROUTE and protocol != ROUTE_PROTOCOL:
            return None
        if kind == nl.RTM_NEWROUTE and protocol == _RTPROT_KERNEL:
            return None
        key = _route_key(body)
        if key not in self._known():
            return None
        return f"the route to {key[3]} was {'removed' if kind == nl.RTM_DELROUTE else 'replaced'}"

    def _neighbour_changed(self, kind: int, body: bytes) -> str | None:
        family, index, state = _NDMSG.unpack_from(body)
        found = dict(nl.attrs(body[12:]))
        if family not in (socket.AF_INET, socket.AF_BRIDGE, socket.AF_INET6) or 1 not in found:
            return None  # NDA_DST: neither a neighbour nor an entry of a VXLAN device
        if family == socket.AF_BRIDGE:
            return self._fdb_changed(kind, _link_name(index), found)
        address = ip_address(found[1])
        ours = self._known().get(("neighbour", "", _link_name(index), address))
        if not isinstance(ours, Neighbour):
            return None
        as_it_was = state == _NUD_PERMANENT and found.get(2, b"").hex(":") == ours.mac
        if kind == nl.RTM_NEWNEIGH and as_it_was:
            return None
        return f"the neighbour {address} was changed"

    def _fdb_changed(self, kind: int, link: str, found: Mapping[int, bytes]) -> str | None:
        """Our own changes are announced like others': an entry that is as it should be is fine."""
        mac, to = found.get(2, b"").hex(":"), ip_address(found[1])
        known = self._known()
        right = ("fdb", "", link, mac, to) in known
        if ("link", "", link) not in known or right == (kind == nl.RTM_NEWNEIGH):
            return None
        return f"the fdb entry of {mac} was changed"

    def _address_gone(self, body: bytes) -> str | None:
        name = _link_name(struct.unpack_from("=I", body, 4)[0])
        ours = ("link", "", name) in self._known()  # a link that has gone says so itself
        return f"an address of {name} was removed" if ours else None

    def _forwarding_stopped(self, body: bytes) -> str | None:
        """The switch for all links was turned off; each link tells of its own as well."""
        found = dict(nl.attrs(body[4:]))
        if found.get(1) != _ALL_LINKS or found.get(2) != bytes(4):  # NETCONFA_FORWARDING
            return None
        name = "net.ipv4.ip_forward" if body[0] == _AF_INET else "net.ipv6.conf.all.forwarding"
        return f"{name} was set to 0" if ("sysctl", "", name) in self._known() else None

    def _is_ours(self, body: bytes) -> bool:
        """Every NFTA_*_TABLE, and NFTA_TABLE_NAME, is attribute 1 and nearly always the first."""
        return body.startswith(_OUR_TABLE, 4) or _text(body, 4, 1) == TABLE

    def _nft_message(self, kind: int, _port: int, body: bytes) -> None:
        if kind >> 8 != _SUBSYS_NFTABLES:
            return
        if kind & 0xFF != _NEWGEN:
            if self._touched and self._others:
                return
            if self._is_ours(body):
                self._touched = True
            else:
                self._others = True
            return
        # The end of a transaction names who made it: NFTA_GEN_PROC_PID, which is no number of
        # ours where we have a pid namespace of our own, and NFTA_GEN_PROC_NAME.
        maker = dict(nl.attrs(body[4:]))
        pid = maker.get(2, b"")
        if self._touched and not self._self and maker.get(3, b"").rstrip(b"\0") == self._program:
            self._self = pid  # an agent that starts puts its rules in place
        if pid != self._self:
            if self._touched:
                self._on_drift("our nftables rules were changed")
            if self._others:
                self._on_others()
        self._touched = self._others = False


def _may_lead_out(kind: int, body: bytes) -> bool:
    """Is this about a bridge's port, or a default route?"""
    if kind in (nl.RTM_NEWLINK, nl.RTM_DELLINK):
        return any(found == 10 for found, _ in nl.attrs(body[16:]))  # IFLA_MASTER
    return kind in (nl.RTM_NEWROUTE, nl.RTM_DELROUTE) and body[1] == 0  # rtm_dst_len


def _tunnel_went(kind: int, body: bytes) -> bool:
    """Our own doing, too, if it has to be made anew; what was on it goes unannounced."""
    return kind == nl.RTM_DELLINK and is_tunnel(_text(body, 16, 3))  # IFLA_IFNAME


def _went_down(body: bytes) -> bool:
    """Was the link up before?  One that is just being made is announced as down, too.

    Source:
        struct ifinfomsg, linux/rtnetlink.h: ifi_flags, then ifi_change, whose bits are
        all set in the announcement of a new link.
    """
    flags, change = struct.unpack_from("=II", body, 8)
    return not flags & nl.IFF_UP and bool(change & nl.IFF_UP) and change != _EVERYTHING


def _text(body: bytes, header: int, kind: int) -> str:
    for found, data in nl.attrs(body[header:]):
        if found == kind:
            return data.rstrip(b"\0").decode(errors="replace")
    return ""


def _route_key(body: bytes) -> tuple[Hashable, ...]:
    """Rebuild the key of plan.resources.Route."""
    family, length, table, kind = body[0], body[1], body[4], body[7]
    found = dict(nl.attrs(body[12:]))
    unspecified = bytes(4 if family == _AF_INET else 16)
    metric = struct.unpack("=I", found[6])[0] if 6 in found else 0
    if family != _AF_INET and metric == 1024:
        metric = 0
    to = ip_network((found.get(1, unspecified), length))
    local = kind == 2 and 4 in found  # RTN_LOCAL, RTA_OIF
    link = _link_name(struct.unpack("=I", found[4])[0]) if local else ""
    return ("route", "", table, to, metric, link)


def _link_name(index: int) -> str:
    """Return what the link is called; "?" if it has gone."""
    try:
        return socket.if_indextoname(index)
    except OSError:
        return "?"
