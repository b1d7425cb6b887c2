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

from seaway.errors import from_errno
from seaway.kernel import netlink as nl

_GET, _DELETE = (1 << 8) | 1, (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK; IPCTNL_MSG_CT_GET, _DELETE
_TUPLE_ORIG, _TUPLE_REPLY, _ID = 1, 2, 12  # CTA_*
_UDP = 17


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """One tracked UDP flow.

    Attributes:
        to_port: Port its first packet was sent to, before any translation.
        answered_by: Address and port that answers, after translation.
        original: The packed original tuple, which names the entry.
        id: The entry's own number, so that a newer one with the same tuple is spared.
    """

    version: int
    to_port: int
    answered_by: tuple[IPv4Address | IPv6Address, int]
    original: bytes
    id: bytes


def _tuple(data: bytes) -> tuple[bytes, int, int, int]:
    """Return (source address, protocol, source port, destination port)."""
    source, proto, sport, dport = b"", 0, 0, 0
    for kind, part in nl.attrs(data):
        inner = dict(nl.attrs(part))
        if kind == 1:  # CTA_TUPLE_IP: 1 source of IPv4, 3 of IPv6
            source = inner.get(1, inner.get(3, b""))
        elif kind == 2:  # CTA_TUPLE_PROTO
            proto = inner.get(1, b"\0")[0]
            sport = int.from_bytes(inner.get(2, b"\0\0")[:2])
            dport = int.from_bytes(inner.get(3, b"\0\0")[:2])
    return source, proto, sport, dport


def udp_flows(sock: nl.Netlink, version: int) -> Iterator[Flow]:
    """List the UDP flows of one IP version in the socket's namespace."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    for body in sock.dump(_GET, struct.pack("=BBH", family, 0, 0)):
        found = dict(nl.attrs(body[4:]))
        if _TUPLE_ORIG not in found or _TUPLE_REPLY not in found:
            continue
        _, proto, _, to_port = _tuple(found[_TUPLE_ORIG])
        if proto != _UDP:
            continue
        answerer, _, port, _ = _tuple(found[_TUPLE_REPLY])
        yield Flow(
            version=version,
            to_port=to_port,
            answered_by=(ip_address(answerer), port),
            original=found[_TUPLE_ORIG],
            id=found.get(_ID, b""),
        )


def cut(sock: nl.Netlink, flows: Iterable[Flow]) -> int:
    """Delete *flows*; one that has ended by itself is fine.  Returns how many were named."""
    messages = []
    for flow in flows:
        family = socket.AF_INET if flow.version == 4 else socket.AF_INET6
        body = struct.pack("=BBH", family, 0, 0)
        body += nl.attr(_TUPLE_ORIG | 0x8000, flow.original)  # NLA_F_NESTED
        body += nl.attr(_ID, flow.id) if flow.id else b""
        messages.append(
            nl.Message(_DELETE, 0, body, "cut flow to port", str(flow.to_port), nl.GONE)
        )
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
