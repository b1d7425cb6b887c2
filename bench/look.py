"""Looking from inside a container: is a name answered, does an address answer?

Both are asked again and again, a millisecond apart, until they are.
"""

from __future__ import annotations

import select
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from bench.programs import Failed
from seaway.kernel import netns

_PACE = 0.001
_ECHO, _ECHO_REPLY = 8, 0  # RFC 792


class Look:
    """Sockets in a container's namespace; close() them."""

    def __init__(self, space: Path, resolver: str) -> None:
        with netns.inside(str(space)):
            self._dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            self._echo = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        for sock in (self._dns, self._echo):
            sock.setblocking(False)
        self._dns.connect((resolver, 53))
        self._number = 0

    def close(self) -> None:
        """Close the sockets."""
        self._dns.close()
        self._echo.close()

    def name(self, name: str, seconds: float) -> str:
        """Wait until *name* has an IPv4 address, and return it.

        Raises:
            Failed: It has none after *seconds*.
        """
        query = _question(name)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._number += 1
            with suppress(OSError):  # refused while nobody serves there yet
                self._dns.send(struct.pack("!H", self._number & 0xFFFF) + query)
            if address := self._answer(query[10:]):
                return address
        raise Failed(f"{name} is not answered after {seconds:g} s")

    def address(self, address: str, seconds: float) -> None:
        """Wait until *address* answers an echo request.

        Raises:
            Failed: It does not after *seconds*.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            self._number += 1
            with suppress(OSError):  # there may be no way yet
                self._echo.sendto(_echo_request(self._number), (address, 0))
            if self._echoed(address):
                return
        raise Failed(f"{address} does not answer after {seconds:g} s")

    def _answer(self, asked: bytes) -> str:
        """Return the address in an answer that comes within the pace; "" if there is none.

        Answers to what was asked before *asked* may still be coming.
        """
        end = 12 + len(asked)
        for message in _messages(self._dns):
            if message[6:8] != b"\0\0" and message[12:end] == asked:
                data = _after_name(message, end) + 10  # type, class, TTL, length
                return socket.inet_ntoa(message[data : data + 4])
        return ""

    def _echoed(self, address: str) -> bool:
        """Does *address* reply within the pace?"""
        sender = socket.inet_aton(address)
        return any(
            packet[12:16] == sender and packet[(packet[0] & 15) * 4] == _ECHO_REPLY
            for packet in _messages(self._echo)
        )


def _messages(sock: socket.socket) -> Iterator[bytes]:
    """Yield what comes within the pace."""
    paused = time.monotonic() + _PACE
    while (left := paused - time.monotonic()) > 0:
        if select.select([sock], [], [], left)[0]:
            with suppress(OSError):
                yield sock.recv(4096)


def _question(name: str) -> bytes:
    """A query for an A record, without its id (RFC 1035 section 4.1)."""
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!5H", 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!2H", 1, 1)


def _after_name(message: bytes, at: int) -> int:
    """Skip a name, which may end in a pointer (RFC 1035 section 4.1.4)."""
    while message[at] and message[at] < 0xC0:
        at += 1 + message[at]
    return at + (2 if message[at] else 1)


def _echo_request(number: int) -> bytes:
    def packed(checksum: int) -> bytes:
        return struct.pack("!2B3H", _ECHO, 0, checksum, 0x5357, number & 0xFFFF)

    words = sum(struct.unpack("!4H", packed(0)))
    return packed(~((words & 0xFFFF) + (words >> 16)) & 0xFFFF)
