"""Which servers to ask for names that are not ours: their addresses, and the host's list of them.

Reads two small files and opens no sockets.

Source: resolv.conf(5), systemd-resolved.service(8).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from seaway.errors import InvalidSpec

DNS_PORT = 53
SERVERS_MAX = 3
"""Resolvers taken from a file; the C library reads no more (MAXNS, resolv.h)."""
RESOLVED_STUB = "127.0.0.53"
"""Where systemd-resolved listens; behind it is the list in its own file."""

_FORM = re.compile(r"\[(?P<v6>[^]]+)\](?::(?P<v6port>\d+))?|(?P<any>[^#]+)(?:#(?P<port>\d+))?")
_Stamp = tuple[int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Upstream:
    """One DNS server."""

    address: IPv4Address | IPv6Address
    port: int = DNS_PORT

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise InvalidSpec(f"DNS server port {self.port} is outside 1..65535; use {DNS_PORT}")


def parse_upstream(text: str) -> Upstream:
    """Read ``192.0.2.1``, ``2001:db8::1``, either with ``#port``, or ``[2001:db8::1]:port``.

    Raises:
        InvalidSpec: *text* is none of these; host names are not looked up.
    """
    form = _FORM.fullmatch(text)
    if form is None:
        raise InvalidSpec(f"DNS server {text!r} is not an address; write it like 192.0.2.1")
    host = form["v6"] or form["any"]
    port = form["v6port"] or form["port"] or DNS_PORT
    try:
        return Upstream(address=ip_address(host), port=int(port))
    except ValueError:
        raise InvalidSpec(
            f"DNS server {text!r} is not an address; write it like 192.0.2.1"
        ) from None


class HostResolvers:
    """The servers the host itself asks; calling it returns them as they are now.

    A file is read again only when it changed.  Where the host asks systemd-resolved's stub,
    the servers behind the stub are taken: one hop less, and no answers from the stub's
    own search for the host's local names.
    """

    def __init__(
        self,
        path: Path = Path("/etc/resolv.conf"),
        behind_stub: Path = Path("/run/systemd/resolve/resolv.conf"),
    ) -> None:
        self._path = path
        self._behind_stub = behind_stub
        self._seen: tuple[_Stamp | None, _Stamp | None] | None = None
        self._servers: list[str] = []

    def __call__(self) -> list[str]:
        """Return at most SERVERS_MAX servers, in order; none when there is no file."""
        now = (_stamp(self._path), _stamp(self._behind_stub))
        if now != self._seen:
            self._servers = self._read()
            self._seen = now
        return self._servers

    def _read(self) -> list[str]:
        servers = _nameservers(self._path)
        if servers and set(servers) == {RESOLVED_STUB}:
            return _nameservers(self._behind_stub) or servers
        return servers


def _stamp(path: Path) -> _Stamp | None:
    """Return what differs when the file differs; None when it is not there."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_mtime_ns, stat.st_ino, stat.st_size


def _nameservers(path: Path) -> list[str]:
    """Return the ``nameserver`` lines that hold an address."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []
    found = (line.split()[1:2] for line in lines if line.startswith("nameserver"))
    return [words[0] for words in found if words and _is_address(words[0])][:SERVERS_MAX]


def _is_address(text: str) -> bool:
    try:
        parse_upstream(text)
    except InvalidSpec:
        return False
    return True
