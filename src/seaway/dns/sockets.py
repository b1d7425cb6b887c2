"""Makes the sockets a DNS server listens on.

Kernel: socket, bind, listen; CAP_NET_BIND_SERVICE for port 53.

Source: ip(7) IP_FREEBIND, udp(7).
"""

from __future__ import annotations

import errno
import socket

from seaway.dns.upstreams import Upstream
from seaway.errors import from_errno

IP_FREEBIND = 15
"""linux/in.h; bind to an address that is not there yet."""
IPV6_FREEBIND = 78
"""linux/in6.h, since Linux 4.15."""
BACKLOG = 128
"""Connections that may wait to be accepted."""
RECEIVE_BUFFER = 1 << 20
"""Bytes asked for; the kernel allows net.core.rmem_max."""

_REMEDIES = {
    errno.EADDRINUSE: "another DNS server has it; stop that one, or make it listen elsewhere",
    errno.EACCES: "not allowed; run as root or with CAP_NET_BIND_SERVICE",
}


def bind(where: Upstream) -> list[socket.socket]:
    """Return a UDP and a TCP socket on *where*, an address that need not exist yet.

    Raises:
        KernelError: The port is taken, or may not be used.
    """
    made: list[socket.socket] = []
    try:
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            family = socket.AF_INET6 if where.address.version == 6 else socket.AF_INET
            sock = socket.socket(family, kind)
            made.append(sock)
            _bind_one(sock, where)
    except OSError as err:
        for sock in made:
            sock.close()
        code = err.errno or 0
        target = f"{where.address} port {where.port}"
        raise from_errno("listen for DNS on", target, code, _REMEDIES.get(code, "")) from err
    return made


def _bind_one(sock: socket.socket, where: Upstream) -> None:
    sock.setblocking(False)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
    if sock.type == socket.SOCK_STREAM:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    else:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER)
    sock.bind((str(where.address), where.port))
    if sock.type == socket.SOCK_STREAM:
        sock.listen(BACKLOG)
