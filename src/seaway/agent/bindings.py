"""Host ports, really bound, so that a clash is an error at once and names its holder.

Packets never reach these sockets: nftables sends them on before.  A filter
drops whatever arrives in the moments when somebody has flushed our table, so
that no client is ever connected to nobody.
"""

from __future__ import annotations

import errno
import os
import random
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from seaway.errors import Conflict, Exhausted, InvalidSpec, Unsupported
from seaway.kernel.bpf import drop_all
from seaway.kernel.ports_held import holder
from seaway.model.network import Address
from seaway.model.ports import PortSpec, Protocol, PublishedPort, overlapping

_IPPROTO_SCTP = 132
_RANGE_TRIES = 50  # random starts tried for a range of free ports


@dataclass(slots=True)
class _Held:
    name: str  # whose they are, for error messages
    ports: list[PublishedPort]
    sockets: list[socket.socket]
    complete: bool = False  # False while further ports of the same request are being bound


class Bindings:
    """The ports of this host that containers publish."""

    def __init__(self, *, ipv6: bool = True) -> None:
        self._ipv6 = ipv6
        self._held: dict[str, _Held] = {}

    def bind(
        self, owner: str, name: str, specs: Iterable[PortSpec], before: Iterable[PublishedPort] = ()
    ) -> tuple[PublishedPort, ...]:
        """Bind every port of *specs* for *owner*, or none.

        Args:
            owner: Sandbox id; what it held before is let go first.
            name: What people call it.
            before: Ports it had earlier; a free choice falls on the same again.

        Raises:
            Conflict: A port is taken; says by whom.
            InvalidSpec: An address is not this host's.
        """
        self.release(owner)
        held = self._held[owner] = _Held(name, [], [])
        earlier = list(before)
        try:
            for spec in specs:
                port, sockets = self._bind(spec, _take(earlier, spec))
                held.sockets += sockets
                held.ports.append(port)
        except BaseException:
            self.release(owner)
            raise
        held.complete = True
        return tuple(held.ports)

    def release(self, owner: str) -> None:
        """Let go of the owner's ports; fine if it has none."""
        if held := self._held.pop(owner, None):
            for sock in held.sockets:
                sock.close()

    def close(self) -> None:
        """Let go of everything."""
        for owner in list(self._held):
            self.release(owner)

    def _bind(self, spec: PortSpec, again: int | None) -> tuple[PublishedPort, list[socket.socket]]:
        starts = self._starts(spec, again)
        for position, start in enumerate(starts):
            try:
                return self._bind_at(spec, start)
            except Conflict:
                if position == len(starts) - 1:
                    raise
        raise Exhausted(f"no free host port for {spec}")

    def _starts(self, spec: PortSpec, again: int | None) -> list[int]:
        first = [again] if again else []
        if candidates := spec.candidates:
            return [*(p for p in first if p in candidates), *candidates]
        if spec.count == 1:
            return [*first, 0]
        low, high = _ephemeral_range()
        return [
            *first,
            *(random.randint(low, high - spec.count) for _ in range(_RANGE_TRIES)),  # noqa: S311
        ]

    def _bind_at(self, spec: PortSpec, start: int) -> tuple[PublishedPort, list[socket.socket]]:
        sockets: list[socket.socket] = []
        try:
            for offset in range(spec.count):
                sock = self._open(spec, start + offset if start else 0)
                if sock is not None:
                    sockets.append(sock)
            found = spec.bound_at(start or _chosen(sockets, spec))
            if not sockets:
                self._check_own(found)
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return found, sockets

    def _open(self, spec: PortSpec, port: int) -> socket.socket | None:
        where = spec.host_ip
        wild = where is None
        family = socket.AF_INET
        if (wild and self._ipv6) or (where is not None and where.version == 6):
            family = socket.AF_INET6
        try:
            sock = _socket(family, spec.protocol)
        except OSError as err:
            if spec.protocol is Protocol.SCTP and err.errno == errno.EPROTONOSUPPORT:
                return None  # no SCTP in this kernel, so nobody else can hold the port either
            raise _cannot_open(err) from None
        try:
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if wild else 1)
            drop_all(sock)
            sock.bind((_text(where, family), port))
            if spec.protocol is not Protocol.UDP:
                sock.listen(1)
        except OSError as err:
            sock.close()
            raise self._refusal(spec, port, err) from None
        return sock

    def _check_own(self, wanted: PublishedPort) -> None:
        """Ports without sockets (SCTP, where the kernel has none) clash here."""
        for held in self._held.values():
            for port in held.ports:
                if overlapping(port, wanted):
                    raise _clash(wanted.protocol, wanted.host_port, held)

    def _refusal(self, spec: PortSpec, port: int, err: OSError) -> Exception:
        if err.errno == errno.EADDRINUSE:
            wanted = spec.bound_at(port)
            for held in self._held.values():
                if any(overlapping(p, wanted) for p in held.ports):
                    return _clash(spec.protocol, port, held)
            who = holder(spec.protocol, spec.host_ip, port)
            if f"(pid {os.getpid()})" in who:
                return Conflict(
                    f"host port {port}/{spec.protocol} is Seaway's own on the networks' gateways, "
                    f"for names: publish on one address, as in -p 192.0.2.1:{port}:{port}"
                )
            return Conflict(_taken(spec.protocol, port, who))
        if err.errno == errno.EADDRNOTAVAIL:
            return InvalidSpec(
                f"{spec.host_ip} is not an address of this host: 'ip address' shows those it has"
            )
        return _cannot_open(err)


def _take(earlier: list[PublishedPort], spec: PortSpec) -> int | None:
    """Take from *earlier* the host port that *spec* had; equal ones go in their order."""
    for at, port in enumerate(earlier):
        if (port.container_port, port.protocol, port.host_ip) == (
            spec.container_port,
            spec.protocol,
            spec.host_ip,
        ):
            return earlier.pop(at).host_port
    return None


def _clash(protocol: Protocol, port: int, held: _Held) -> Conflict:
    if not held.complete:
        return Conflict(f"host port {port}/{protocol} is asked for twice: keep one of the two")
    return Conflict(_taken(protocol, port, f"container {held.name}"))


def _chosen(sockets: list[socket.socket], spec: PortSpec) -> int:
    """Return the port the kernel chose for the first of *sockets*."""
    if not sockets:
        raise InvalidSpec(f"{spec.protocol} ports cannot be chosen freely here: name a host port")
    return int(sockets[0].getsockname()[1])


def _cannot_open(err: OSError) -> Exception:
    if err.errno in (errno.EMFILE, errno.ENFILE):
        return Exhausted("too many published ports for the agent's open-file limit: raise nofile")
    return Unsupported(f"cannot bind host ports: {err.strerror}")


def _socket(family: socket.AddressFamily, protocol: Protocol) -> socket.socket:
    if protocol is Protocol.UDP:
        return socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC)
    number = _IPPROTO_SCTP if protocol is Protocol.SCTP else 0
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC, number)
    # Connections of an earlier holder that are still in TIME_WAIT do not matter.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return sock


def _text(where: Address | None, family: socket.AddressFamily) -> str:
    if where is None:
        return "::" if family == socket.AF_INET6 else "0.0.0.0"  # noqa: S104
    return str(where)


def _taken(protocol: Protocol, port: int, who: str) -> str:
    return f"host port {port}/{protocol} is held by {who}: choose another or free it"


def _ephemeral_range() -> tuple[int, int]:
    """Read the host's ephemeral ports (ip(7), ip_local_port_range)."""
    low, high = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    return int(low), int(high)
