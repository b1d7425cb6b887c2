"""Routing netlink by hand: messages packed with struct, sent in one batch.

A message costs about 8 microseconds this way and 240 through a general
library, and an attach needs a dozen (docs/adr/0004).  This module knows the
wire; what to send is decided in kernel/apply.py and kernel/observe.py.

Source: rtnetlink(7), include/uapi/linux/{netlink,rtnetlink,if_link,neighbour}.h.
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from seaway.errors import from_errno
from seaway.kernel import netns

NETLINK_NETFILTER = 12  # include/uapi/linux/netlink.h; missing from the socket module
NLMSG_ERROR, NLMSG_DONE = 2, 3
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE, NLM_F_APPEND = 0x100, 0x200, 0x400, 0x800
NLM_F_DUMP_INTR = 0x10

RTM_NEWLINK, RTM_DELLINK, RTM_GETLINK = 16, 17, 18
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTM_NEWNEIGH, RTM_DELNEIGH, RTM_GETNEIGH = 28, 29, 30

IFF_UP = 0x1

_HEADER = struct.Struct("=IHHII")  # struct nlmsghdr: length, type, flags, seq, port
_RECEIVE = 1 << 18  # bytes; the kernel fills at most 32 KiB a datagram in a dump
_SO_RCVBUFFORCE = 33  # socket(7): beyond rmem_max, with CAP_NET_ADMIN
_UNREAD_MAX = 128  # requests before their answers are read: 768 bytes each in the receive buffer
_PATIENCE = 10.0  # seconds; the kernel answers at once, or has lost the answer
_SEND_MAX = 1 << 16  # bytes in one sendmsg; above it a batch is cut into several


@dataclass(frozen=True, slots=True)
class Message:
    """One request: its type, NLM_F_* flags, body, and words for an error.

    Attributes:
        tolerate: Positive errno values that count as success ("already gone").
    """

    kind: int
    flags: int
    body: bytes
    operation: str
    target: str
    tolerate: frozenset[int] = frozenset()


GONE = frozenset({errno.ENOENT, errno.ESRCH, errno.ENODEV, errno.EADDRNOTAVAIL})
"""What the kernel answers when the thing to delete is not there."""


def attr(kind: int, data: bytes) -> bytes:
    """Pack one attribute, padded to 4 bytes (struct rtattr)."""
    return struct.pack("=HH", len(data) + 4, kind) + data + b"\0" * (-len(data) % 4)


def attr_u32(kind: int, value: int) -> bytes:
    """Pack an attribute that holds one 32-bit number."""
    return struct.pack("=HHI", 8, kind, value)


def attr_text(kind: int, text: str) -> bytes:
    """Pack an attribute that holds a NUL-terminated string."""
    return attr(kind, text.encode() + b"\0")


def attrs(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Walk packed attributes, yielding (type without flag bits, payload)."""
    at = 0
    while at + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, at)
        if length < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + length]
        at += (length + 3) & ~3


class Netlink:
    """A netlink socket, of the routing family unless told otherwise, in one namespace.

    Not for concurrent use: a call sends and reads its own answers.
    """

    def __init__(self, path: str = "", protocol: int = socket.NETLINK_ROUTE) -> None:
        with netns.inside(path):
            self._sock = socket.socket(
                socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol
            )
        self._sock.bind((0, 0))
        self._sock.settimeout(_PATIENCE)
        _enlarge(self._sock, 1 << 20)
        self.port: int = self._sock.getsockname()[0]
        self._seq = 0

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def batch(self, messages: Iterable[Message]) -> None:
        """Send *messages* together and wait for every acknowledgement.

        All are tried even when one fails; the kernel has no transaction here.

        Raises:
            KernelError: The first refusal that its message does not tolerate.
        """
        waiting: dict[int, Message] = {}
        failed: list[tuple[Message, int]] = []
        out = bytearray()
        for message in messages:
            if len(waiting) >= _UNREAD_MAX or len(out) + len(message.body) > _SEND_MAX:
                self._flush(out, waiting, failed)
            self._seq += 1
            waiting[self._seq] = message
            flags = message.flags | NLM_F_REQUEST | NLM_F_ACK
            out += _HEADER.pack(16 + len(message.body), message.kind, flags, self._seq, 0)
            out += message.body
        self._flush(out, waiting, failed)
        if failed:
            message, code = failed[0]
            raise from_errno(message.operation, message.target, code)

    def _flush(
        self, out: bytearray, waiting: dict[int, Message], failed: list[tuple[Message, int]]
    ) -> None:
        if out:
            self._send(out)
            out.clear()
        while waiting:
            for kind, _, seq, body in self._receive():
                message = waiting.pop(seq, None) if kind == NLMSG_ERROR else None
                if message is None:
                    continue
                code: int = -struct.unpack_from("=i", body)[0]
                if code and code not in message.tolerate:
                    failed.append((message, code))

    def dump(self, kind: int, body: bytes) -> Iterator[bytes]:
        """Yield the body of every object of a dump, e.g. RTM_GETLINK.

        A dump that the kernel marks as interrupted by a change is repeated, so
        what is yielded is one consistent picture.

        Raises:
            KernelError: The dump was refused, or kept being interrupted.
        """
        for _ in range(10):
            found, whole = self._dump_once(kind, body)
            if whole:
                yield from found
                return
        raise from_errno("dump", f"netlink type {kind}", errno.EAGAIN)

    def ask(self, kind: int, bodies: Sequence[bytes]) -> list[bytes | None]:
        """Send questions that have one answer each, e.g. RTM_GETROUTE for an address, together.

        Returns:
            The answers' bodies, in order; None where the kernel has none.
        """
        answers: list[bytes | None] = [None] * len(bodies)
        for at in range(0, len(bodies), _UNREAD_MAX):
            waiting: dict[int, int] = {}
            out = bytearray()
            for n, body in enumerate(bodies[at : at + _UNREAD_MAX], at):
                self._seq += 1
                waiting[self._seq] = n
                out += _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST, self._seq, 0) + body
            self._send(out)
            while waiting:
                for got, _, seq, payload in self._receive():
                    if seq in waiting:
                        answers[waiting.pop(seq)] = None if got == NLMSG_ERROR else payload
        return answers

    def _dump_once(self, kind: int, body: bytes) -> tuple[list[bytes], bool]:
        self._seq += 1
        header = _HEADER.pack(16 + len(body), kind, NLM_F_REQUEST | NLM_F_DUMP, self._seq, 0)
        self._send(header + body)
        found: list[bytes] = []
        whole = True
        while True:
            for got, flags, seq, payload in self._receive():
                if seq != self._seq:
                    continue
                whole = whole and not flags & NLM_F_DUMP_INTR
                if got == NLMSG_DONE:
                    return found, whole
                if got == NLMSG_ERROR:
                    code = -struct.unpack_from("=i", payload)[0]
                    raise from_errno("dump", f"netlink type {kind}", code)
                found.append(payload)

    def _send(self, data: bytes | bytearray) -> None:
        try:
            self._sock.send(data)
        except OSError as err:
            raise from_errno("send to", "netlink", err.errno or errno.EIO) from None

    def _receive(self) -> Iterator[tuple[int, int, int, bytes]]:
        try:
            return split(self._sock.recv(_RECEIVE))
        except OSError as err:
            # ENOBUFS: answers were lost.  A time-out, which has no number, likewise.
            raise from_errno("hear from", "netlink", err.errno or errno.ETIMEDOUT) from None


def split(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Cut a datagram into messages: (type, flags, sequence number, body)."""
    at = 0
    while at + 16 <= len(data):
        length, kind, flags, seq, _port = _HEADER.unpack_from(data, at)
        if length < 16:
            return
        yield kind, flags, seq, data[at + 16 : at + length]
        at += (length + 3) & ~3


def _enlarge(sock: socket.socket, size: int) -> None:
    """Make the receive buffer hold *size* bytes, beyond rmem_max where we may."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
    except PermissionError:  # in a user namespace
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


def subscribe(family: int, groups: Iterable[int]) -> socket.socket:
    """Open a non-blocking socket that hears the kernel's announcements.

    Args:
        family: NETLINK_ROUTE (0) or NETLINK_NETFILTER (12).
        groups: Multicast group numbers, e.g. RTNLGRP_LINK.
    """
    sock = socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK, family
    )
    sock.bind((0, 0))
    # One transaction of ours can announce thousands of elements before we read the first.
    _enlarge(sock, 1 << 25)
    for group in groups:
        sock.setsockopt(270, 1, group)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP: netlink(7)
    return sock
