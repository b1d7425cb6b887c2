"""Ask other hosts to send a packet back, as ping(8) does.

Their kernels answer, so nothing has to run there; and an answer is as large as
the question, so one of full size proves both directions.

Source: RFC 792 (echo), RFC 4443 section 4.1; ip(7) and ipv6(7) for the socket options.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import struct
import time
from dataclasses import dataclass
from typing import Final

from seaway.errors import from_errno
from seaway.model.network import Address

_HEADER: Final = struct.Struct("!BBHHH")  # type, code, checksum, identifier, sequence number
_ASK: Final = {4: 8, 6: 128}
_ANSWER: Final = {4: 0, 6: 129}
_IP_HEADER: Final = {4: 20, 6: 40}
_MTU_DISCOVER: Final = {4: (socket.IPPROTO_IP, 10), 6: (socket.IPPROTO_IPV6, 23)}
_DO: Final = 2  # IP_PMTUDISC_DO: never cut, and believe what routers say about the way
_IP_PKTINFO: Final = 8
_IPV6_PKTINFO: Final = 50
_BUFFER: Final = 1 << 20
_TOO_LARGE: Final = frozenset({errno.EMSGSIZE})


@dataclass(frozen=True, slots=True, kw_only=True)
class Echoed:
    """What became of one question.

    Attributes:
        seconds: Until the answer; None if there was none.
        too_large: This host knows that a packet of that size does not fit the way.
        error: Why it could not be sent; "".
    """

    seconds: float | None = None
    too_large: bool = False
    error: str = ""


class Echo:
    """Sockets for one IP version, in the namespace they are made in.

    Raises:
        KernelError: Not permitted (CAP_NET_RAW).
    """

    def __init__(self, version: int) -> None:
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        protocol = socket.IPPROTO_ICMP if version == 4 else socket.IPPROTO_ICMPV6
        try:
            self._sock = socket.socket(family, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
        except OSError as err:
            raise from_errno("open", "a socket for echo requests", err.errno or 0) from None
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        self._sock.setsockopt(*_MTU_DISCOVER[version], _DO)
        self._version = version
        self._identifier = int.from_bytes(os.urandom(2))
        self._number = 0
        self._waiting: dict[int, asyncio.Future[float]] = {}
        asyncio.get_running_loop().add_reader(self._sock, self._read)

    def close(self) -> None:
        """Let go of the socket."""
        asyncio.get_running_loop().remove_reader(self._sock)
        self._sock.close()

    async def ask(self, to: Address, size: int, *, link: str = "", seconds: float = 1.0) -> Echoed:
        """Send one packet and wait for it to come back.

        Args:
            size: Bytes of the whole IP packet, there and back.
            link: Leave by this link, whatever the routes say.
        """
        self._number = (self._number + 1) & 0xFFFF
        number, loop = self._number, asyncio.get_running_loop()
        future = self._waiting[number] = loop.create_future()
        began = time.perf_counter()
        try:
            self._sock.sendmsg([self._packet(number, size)], self._by(link), 0, (str(to), 0))
            async with asyncio.timeout(seconds):
                return Echoed(seconds=await future - began)
        except TimeoutError:
            return Echoed()
        except OSError as err:
            return Echoed(too_large=err.errno in _TOO_LARGE, error=err.strerror or str(err))
        finally:
            self._waiting.pop(number, None)

    def _by(self, link: str) -> list[tuple[int, int, bytes]]:
        """Choose the link for one packet.  The socket is not bound to it: the answer may come by
        another, since the same host can be at the end of several tunnels."""
        if not link:
            return []
        index = socket.if_nametoindex(link)
        if self._version == 4:  # struct in_pktinfo, ip(7)
            return [(socket.IPPROTO_IP, _IP_PKTINFO, struct.pack("=i8x", index))]
        return [(socket.IPPROTO_IPV6, _IPV6_PKTINFO, struct.pack("=16xi", index))]

    def _packet(self, number: int, size: int) -> bytes:
        body = bytes(max(0, size - _IP_HEADER[self._version] - _HEADER.size))
        head = _HEADER.pack(_ASK[self._version], 0, 0, self._identifier, number)
        if self._version == 6:
            return head + body  # the kernel knows the addresses, and adds the checksum
        total = _checksum(head + body)
        return _HEADER.pack(_ASK[4], 0, total, self._identifier, number) + body

    def _read(self) -> None:
        while True:
            try:
                data, _ = self._sock.recvfrom(1 << 16)
            except OSError:
                return  # nothing more, or a router's complaint about a packet of ours
            at = (data[0] & 15) * 4 if self._version == 4 else 0
            if len(data) < at + _HEADER.size:
                continue
            kind, _, _, identifier, number = _HEADER.unpack_from(data, at)
            future = self._waiting.get(number)
            mine = kind == _ANSWER[self._version] and identifier == self._identifier
            if mine and future is not None and not future.done():
                future.set_result(time.perf_counter())


def _checksum(data: bytes) -> int:
    """Compute the Internet checksum (RFC 1071)."""
    data += b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF
