"""Hear it when somebody else touches what is ours, and ask for a look.

Announcements only say "look again"; the audit finds out what to do.
"""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Container
from ipaddress import ip_network
from pathlib import Path

from seaway.kernel import netlink as nl
from seaway.plan.resources import ROUTE_PROTOCOL, TABLE

_ROUTE_GROUPS = (1, 5, 7, 9, 11)  # RTNLGRP_LINK, IPV4_IFADDR, IPV4_ROUTE, IPV6_IFADDR, IPV6_ROUTE
_NFT_GROUPS = (7,)  # NFNLGRP_NFTABLES, include/uapi/linux/netfilter/nfnetlink.h
_NEWGEN = 15  # NFT_MSG_NEWGEN, linux/netfilter/nf_tables.h
_SUBSYS_NFTABLES = 10
_AF_INET = 2
_EVERYTHING = 0xFFFFFFFF
_OUR_TABLE = nl.attr_text(1, TABLE)


class DriftMonitor:
    """Listens in the namespace it was made in.

    Args:
        known: Keys of the resources we hold; anything else is not ours to mind.
        own_ports: Netlink port numbers whose effects are our own doing.
        on_drift: Called with a reason when something of ours was touched.
        on_others: Called when somebody else changed their nftables rules, their
            bridges or the default route.
    """

    def __init__(
        self,
        known: Callable[[], Container[object]],
        own_ports: Container[int],
        on_drift: Callable[[str], None],
        on_others: Callable[[], None],
    ) -> None:
        self._known = known
        self._own_ports = own_ports
        self._on_drift = on_drift
        self._on_others = on_others
        self._route = nl.subscribe(socket.NETLINK_ROUTE, _ROUTE_GROUPS)
        self._nft = nl.subscribe(nl.NETLINK_NETFILTER, _NFT_GROUPS)
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
                return
            at = 0
            while at + 16 <= len(data):
                length, kind, _, _, port = struct.unpack_from("=IHHII", data, at)
                if length < 16:
                    break
                take(kind, port, data[at + 16 : at + length])
                at += (length + 3) & ~3

    def _route_message(self, kind: int, port: int, body: bytes) -> None:
        if port in self._own_ports:
            return
        if _may_lead_out(kind, body):
            self._on_others()
        if kind == nl.RTM_DELLINK or (kind == nl.RTM_NEWLINK and _went_down(body)):
            name = _text(body, 16, 3)
            if ("link", "", name) in self._known():
                self._on_drift(f"link {name} was changed")
        elif kind == nl.RTM_DELROUTE and body[5] == ROUTE_PROTOCOL:
            key = _route_key(body)
            if key in self._known():
                self._on_drift(f"the route to {key[3]} was removed")
        elif kind == nl.RTM_DELADDR:
            self._address_gone(body)

    def _address_gone(self, body: bytes) -> None:
        index = struct.unpack_from("=I", body, 4)[0]
        try:
            name = socket.if_indextoname(index)
        except OSError:
            return  # the link has gone, and says so itself
        if ("link", "", name) in self._known():
            self._on_drift(f"an address of {name} was removed")

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


def _route_key(body: bytes) -> tuple[object, ...]:
    """Rebuild the key of plan.resources.Route."""
    family, length, table, kind = body[0], body[1], body[4], body[7]
    found = dict(nl.attrs(body[12:]))
    unspecified = bytes(4 if family == _AF_INET else 16)
    metric = struct.unpack("=I", found[6])[0] if 6 in found else 0
    if family != _AF_INET and metric == 1024:
        metric = 0
    to = ip_network((found.get(1, unspecified), length))
    link = ""
    if kind == 2 and 4 in found:  # RTN_LOCAL
        try:
            link = socket.if_indextoname(struct.unpack("=I", found[4])[0])
        except OSError:
            link = "?"
    return ("route", "", table, to, metric, link if kind == 2 else "")
