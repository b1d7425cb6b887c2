"""Connection tracking: cut exactly the flows that must find a new backend.

Address translation is decided once per flow.  A UDP flow never ends while its
client keeps sending, so when a published UDP port moves to another container,
or appears under a running client, its old entries have to go.

Source: include/uapi/linux/netfilter/nfnetlink_conntrack.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address

from seaway.errors import KernelError, from_errno
from seaway.kernel import netlink as nl

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK; IPCTNL_MSG_CT_GET, _DELETE
_TUPLE_ORIG, _TUPLE_REPLY, _ID = 1, 2, 12  # CTA_*
_UDP = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One tracked UDP flow.

    Attributes:
        to: Address and port its first packet was sent to, before any translation.
        answered_by: Address and port that answers, after translation.
        original: The packed original tuple, which names the entry.
        id: The entry's own number, so that a newer one with the same tuple is spared.
    """

    version: int
    to: tuple[IPv4Address | IPv6Address, int]
    answered_by: tuple[IPv4Address | IPv6Address, int]
    original: bytes
    id: bytes


_Side = tuple[IPv4Address | IPv6Address, int]


def _tuple(data: bytes) -> tuple[int, _Side, _Side]:
    """Return the protocol, and (address, port) of source and destination."""
    found = dict(nl.attrs(data))
    ip, proto = dict(nl.attrs(found[1])), dict(nl.attrs(found[2]))  # CTA_TUPLE_IP, _PROTO
    v4 = 1 in ip  # CTA_IP_V4_SRC, _V4_DST are 1 and 2; of IPv6 3 and 4
    source, destination = (ip_address(ip[1 if v4 else 3]), ip_address(ip[2 if v4 else 4]))
    sport, dport = (int.from_bytes(proto.get(kind, b"")[:2]) for kind in (2, 3))
    return proto[1][0], (source, sport), (destination, dport)


def udp_flows(sock: nl.Netlink, version: int, port: int | None = None) -> Iterator[Flow]:
    """List the UDP flows of one IP version in the socket's namespace.

    Args:
        port: Only flows to this port.  The kernel picks out what is asked for (since 5.8).
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    request = struct.pack("=BBH", family, 0, 0)
    try:
        bodies = list(sock.dump(_GET, request + _only(port)))
    except KernelError as err:
        if err.errno not in (errno.EINVAL, errno.EOPNOTSUPP):
            raise
        bodies = list(sock.dump(_GET, request))
    for body in bodies:
        found = dict(nl.attrs(body[4:]))
        if _TUPLE_ORIG not in found or _TUPLE_REPLY not in found:
            continue
        proto, _, to = _tuple(found[_TUPLE_ORIG])
        if proto != _UDP or (port is not None and to[1] != port):
            continue
        yield Flow(
            version=version,
            to=to,
            answered_by=_tuple(found[_TUPLE_REPLY])[1],
            original=found[_TUPLE_ORIG],
            id=found.get(_ID, b""),
        )


def _only(port: int | None) -> bytes:
    """Pack a filter: UDP and, if given, this destination port of the first packet."""
    nested = 0x8000  # NLA_F_NESTED
    proto, flags = nl.attr(1, bytes([_UDP])), 1 << 3  # CTA_PROTO_NUM
    if port is not None:
        proto, flags = proto + nl.attr(3, port.to_bytes(2)), flags | 1 << 5  # CTA_PROTO_DST_PORT
    wanted = nl.attr(_TUPLE_ORIG | nested, nl.attr(2 | nested, proto))
    # CTA_FILTER { CTA_FILTER_ORIG_FLAGS }, of bits CTA_FILTER_F_*: net/netfilter/nf_internals.h
    return wanted + nl.attr(25 | nested, nl.attr_u32(1, flags) + nl.attr_u32(2, 0))


def cut(sock: nl.Netlink, flows: Iterable[Flow]) -> int:
    """Delete *flows*; one that has ended by itself is fine.  Returns how many were named."""
    messages = []
    for flow in flows:
        family = socket.AF_INET if flow.version == 4 else socket.AF_INET6
        body = struct.pack("=BBH", family, 0, 0)
        body += nl.attr(_TUPLE_ORIG | 0x8000, flow.original)  # NLA_F_NESTED
        body += nl.attr(_ID, flow.id) if flow.id else b""
        messages.append(nl.Message(_DELETE, 0, body, "cut flow to port", str(flow.to[1]), nl.GONE))
    sock.batch(messages)
    return len(messages)


def open_socket() -> nl.Netlink:
    """Open a conntrack netlink socket here.

    Raises:
        KernelError: The kernel has no conntrack netlink.
    """
    try:
        return nl.Netlink(protocol=nl.NETLINK_NETFILTER)
    except OSError as err:
        raise from_errno("open", "conntrack netlink", err.errno or errno.EPROTONOSUPPORT) from None
