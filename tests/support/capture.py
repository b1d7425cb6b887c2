"""What passes a link, frame by frame, and what is in it.

    with capturing(fleet.wire, "host1") as frames:
        ...
        assert not any(b"secret" in frame for frame in frames())

Source: packet(7); RFC 791 section 3.1, RFC 8200 section 3, RFC 768.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address

from tests.support.netns import Namespace
from tests.support.talk import lines

_CAPTURE = """
import socket, sys
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
s.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 24)
s.bind((sys.argv[1], 0))
print("ready", flush=True)
sys.stdin.readline()
s.setblocking(False)
try:
    while True:
        print(s.recv(65535).hex())
except BlockingIOError:
    print("end", flush=True)
"""


@contextmanager
def capturing(space: Namespace, link: str) -> Iterator[Callable[[], list[bytes]]]:
    """Take down the Ethernet frames that pass a link, both ways.

    Yields:
        A function that ends this and returns them.
    """
    process = subprocess.Popen(
        space.argv(sys.executable, "-c", _CAPTURE, link),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    heard = lines(process)

    def frames() -> list[bytes]:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        return [bytes.fromhex(line) for line in iter(heard, "end")]

    try:
        assert "ready" == heard()
        yield frames
    finally:
        process.kill()
        process.communicate()


@dataclass(frozen=True, slots=True)
class Packet:
    """The outermost IP header of a frame.

    Attributes:
        proto: Number of what is inside: 6 TCP, 17 UDP, 1 and 58 ICMP.
        port: Where UDP and TCP go to, else 0.
        length: Bytes of the IP packet.
    """

    source: str
    target: str
    proto: int
    port: int
    length: int


def packet(frame: bytes) -> Packet | None:
    """Read a frame's IP header; None if it has none.  Extension headers are not looked behind."""
    body = frame[14:]
    kind = frame[12:14]
    if kind == b"\x08\x00":
        ends, proto, head = (body[12:16], body[16:20]), body[9], (body[0] & 15) * 4
        length = int.from_bytes(body[2:4])
    elif kind == b"\x86\xdd":
        ends, proto, head = (body[8:24], body[24:40]), body[6], 40
        length = 40 + int.from_bytes(body[4:6])
    else:
        return None
    port = int.from_bytes(body[head + 2 : head + 4]) if proto in (6, 17) else 0
    source, target = (str(ip_address(end)) for end in ends)
    return Packet(source, target, proto, port, length)
