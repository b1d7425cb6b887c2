"""Puts one question to several servers until one answers, over UDP and, where needed, TCP.

Holds sockets for the length of one question; keeps nothing.

Source: RFC 5452 (what makes a forged answer unlikely), RFC 7766 (TCP).
"""

from __future__ import annotations

import asyncio
import secrets
import socket
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from types import TracebackType
from typing import Self

from seaway.dns import wire
from seaway.dns.upstreams import Upstream
from seaway.dns.wire import Query, Rcode, Reply

CONCLUSIVE = (Rcode.NOERROR, Rcode.NXDOMAIN)
"""Codes that settle a question; any other one means that the server could not help."""

_UDP_REPLY_MAX = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds.  A client gives up after 5, so *total* stays below that."""

    patience: float = 1.0  # for one server, before the next one is asked too
    total: float = 4.4  # for one question


async def exchange(
    query: Query, servers: Sequence[Upstream], pace: Pace, *, stream: bool
) -> tuple[Upstream, Reply] | None:
    """Ask *servers* in order, and again from the first, until one answers.

    A server that refuses, fails or cannot be reached is not asked again; a silent one is, in
    its turn, and its late answer is still taken.

    Args:
        query: Goes out with a random id from a random port, another pair for each server.
        servers: At least one.
        pace: When to go on, and when to give up.
        stream: Take the whole answer over TCP when it does not fit UDP.

    Returns:
        Who answered what, an error code if every server had only that to say; or None.
    """
    with _Race(query) as race:
        return await race.run(deque(servers), pace, stream=stream)


class _Race:
    """One question on its way to several servers."""

    def __init__(self, query: Query) -> None:
        self._query = query
        self._loop = asyncio.get_running_loop()
        self._sockets: dict[Upstream, tuple[socket.socket, int]] = {}
        self._news: asyncio.Queue[tuple[Upstream, Reply | None]] = asyncio.Queue()
        self._failure: tuple[Upstream, Reply] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for sock, _ in self._sockets.values():
            self._loop.remove_reader(sock)
            sock.close()

    async def run(
        self, servers: deque[Upstream], pace: Pace, *, stream: bool
    ) -> tuple[Upstream, Reply] | None:
        end = self._loop.time() + pace.total
        while servers and (now := self._loop.time()) < end:
            server = servers[0]
            servers.rotate(-1)
            if not self._send(server):
                servers.remove(server)
                continue
            won = await self._wait(server, servers, min(now + pace.patience, end))
            if won and stream and won[1].flags & wire.FLAG_TRUNCATED:
                won = await self._retry_over_tcp(won[0], servers, end)
            if won:
                return won
        return self._failure

    def _send(self, server: Upstream) -> bool:
        """Send the question; False when there is no way there."""
        try:
            if server not in self._sockets:
                self._sockets[server] = self._connect(server)
            sock, ident = self._sockets[server]
            sock.send(wire.ask(self._query, ident))
        except OSError:
            return False
        return True

    def _connect(self, server: Upstream) -> tuple[socket.socket, int]:
        """Return a socket for *server* and the id to use on it.

        Connected, so the kernel picks a random port, hands us nothing from elsewhere, and
        reports an unreachable server as an error.
        """
        sock = socket.socket(_family(server), socket.SOCK_DGRAM)
        sock.setblocking(False)
        try:
            sock.connect(_sockaddr(server))
        except OSError:
            sock.close()
            raise
        ident = secrets.randbits(16)
        self._loop.add_reader(sock, self._receive, sock, server, ident)
        return sock, ident

    def _receive(self, sock: socket.socket, server: Upstream, ident: int) -> None:
        try:
            reply = wire.parse_reply(sock.recv(_UDP_REPLY_MAX))
        except BlockingIOError:
            return
        except OSError:
            self._news.put_nowait((server, None))
            return
        if reply is not None and _answers(reply, self._query, ident):
            self._news.put_nowait((server, reply))

    async def _wait(
        self, asked: Upstream, servers: deque[Upstream], until: float
    ) -> tuple[Upstream, Reply] | None:
        """Return a useful answer from anyone; None once *asked* has failed or time is up."""
        while asked in servers:
            try:
                async with asyncio.timeout_at(until):
                    server, reply = await self._news.get()
            except TimeoutError:
                return None
            if reply is not None and reply.rcode in CONCLUSIVE:
                return server, reply
            self._give_up(server, servers, reply)
        return None

    def _give_up(self, server: Upstream, servers: deque[Upstream], reply: Reply | None) -> None:
        if server in servers:
            servers.remove(server)
        if reply is not None:
            self._failure = server, reply

    async def _retry_over_tcp(
        self, server: Upstream, servers: deque[Upstream], until: float
    ) -> tuple[Upstream, Reply] | None:
        reply = await _over_tcp(self._query, server, until)
        if reply is not None and reply.rcode in CONCLUSIVE:
            return server, reply
        self._give_up(server, servers, reply)
        return None


async def _over_tcp(query: Query, server: Upstream, until: float) -> Reply | None:
    """Ask *server* on a connection of its own; None when that brings no answer in time."""
    ident = secrets.randbits(16)
    message = wire.ask(query, ident)
    try:
        async with asyncio.timeout_at(until):
            reader, writer = await asyncio.open_connection(*_sockaddr(server)[:2])
            try:
                writer.write(len(message).to_bytes(2, "big") + message)
                size = int.from_bytes(await reader.readexactly(2), "big")
                reply = wire.parse_reply(await reader.readexactly(size))
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    return reply if reply is not None and _answers(reply, query, ident) else None


def _answers(reply: Reply, query: Query, ident: int) -> bool:
    """Tell whether *reply* is to our question; a failing server may leave the question out."""
    if reply.ident != ident or reply.flags & wire.OPCODE_MASK:
        return False
    if not reply.question:
        return reply.rcode not in CONCLUSIVE
    return wire.same_question(reply.question, query.question)


def _family(server: Upstream) -> socket.AddressFamily:
    return socket.AF_INET6 if server.address.version == 6 else socket.AF_INET


def _sockaddr(server: Upstream) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return what connect(2) wants.

    Raises:
        OSError: The interface named in a link-local address is not there.
    """
    address = server.address
    if isinstance(address, IPv6Address) and address.scope_id:
        bare = str(address).partition("%")[0]
        return bare, server.port, 0, socket.if_nametoindex(address.scope_id)
    return str(address), server.port
