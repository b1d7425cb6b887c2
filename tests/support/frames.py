"""Ethernet frames that no honest program would send, for tests of what is dropped.

Source: RFC 791, 768, 9293, 8200 section 8.1 (checksums), 4861 section 4.2, 826.
"""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Iterable
from ipaddress import ip_address

from tests.support.netns import Namespace

_SEND = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
s.bind((sys.argv[1], 0))
for frame in sys.argv[2:]:
    s.send(bytes.fromhex(frame))
"""
_UDP, _TCP, _ICMP6 = 17, 6, 58
_SYN = 0x5002  # header of 5 words, SYN
_ALL_NODES, _ALL_NODES_MAC = "ff02::1", "33:33:00:00:00:01"


def send(space: Namespace, link: str, frames: Iterable[bytes]) -> None:
    """Put *frames* on *link* of *space* as they are."""
    space.run([sys.executable, "-c", _SEND, link, *(frame.hex() for frame in frames)])


def mac_of(space: Namespace, link: str) -> str:
    """Read the MAC address of a link."""
    # not from /sys, which shows the links of the namespace it was mounted in
    (found,) = json.loads(space.run(f"ip -j link show dev {link}"))
    return str(found["address"])


def udp(macs: tuple[str, str], source: str, target: str, port: int, data: bytes = b"!") -> bytes:
    """Make a datagram from *source* port 4000; *macs* are its sender's and its receiver's."""
    head = struct.pack("!HHHH", 4000, port, 8 + len(data), 0)
    return _packet(macs, (source, target), _UDP, head + data, 6)


def syn(macs: tuple[str, str], source: str, target: str, port: int) -> bytes:
    """Make the first segment of a TCP connection from *source* port 4000."""
    segment = struct.pack("!HHIIHHHH", 4000, port, 1, 0, _SYN, 65535, 0, 0)
    return _packet(macs, (source, target), _TCP, segment, 16)


def advertisement(mac: str, source: str, prefix: str) -> bytes:
    """Make a router advertisement: "I am a router, and make yourself an address in *prefix*/64"."""
    option = struct.pack("!BBBBIII", 3, 4, 64, 0xC0, 86400, 14400, 0) + ip_address(prefix).packed
    body = struct.pack("!BBHBBHII", 134, 0, 0, 64, 0, 1800, 0, 0) + option
    return _packet((mac, _ALL_NODES_MAC), (source, _ALL_NODES), _ICMP6, body, 2)


def _packet(
    macs: tuple[str, str], ends: tuple[str, str], proto: int, body: bytes, sum_at: int
) -> bytes:
    source, target = map(ip_address, ends)
    pseudo = source.packed + target.packed + struct.pack("!II", len(body), proto)
    body = body[:sum_at] + _checksum(pseudo + body) + body[sum_at + 2 :]
    if source.version == 6:
        head = struct.pack("!IHBB", 6 << 28, len(body), proto, 255)
        kind = 0x86DD
    else:
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, proto, 0)
        head = head[:10] + _checksum(head + source.packed + target.packed)
        kind = 0x0800
    sender, receiver = (bytes.fromhex(mac.replace(":", "")) for mac in macs)
    ethernet = receiver + sender + struct.pack("!H", kind)
    return ethernet + head + source.packed + target.packed + body


def _checksum(data: bytes) -> bytes:
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)
