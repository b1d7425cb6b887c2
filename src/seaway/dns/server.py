"""Listens for DNS questions on the networks' gateway addresses and carries the answers back.

Holds the sockets and decides nothing: answer.py knows what to say, forward.py whom to ask.

Source: RFC 1035 section 4.2, RFC 7766 (DNS over TCP).
"""

from __future__ import annotations

import asyncio
import errno
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import Any

from seaway.dns.answer import Directory, Forward, as_owner
from seaway.dns.forward import Forwarder
from seaway.dns.sockets import BACKLOG, bind
from seaway.dns.tcp import MESSAGE_MAX, Conversations, TcpLimits
from seaway.dns.upstreams import DNS_PORT, Upstream
from seaway.dns.wire import Rcode

Address = IPv4Address | IPv6Address

DATAGRAMS_PER_WAKE = 64
"""Questions answered before other work of the event loop gets its turn."""
SHORTAGE_PAUSE = 1.0
"""Seconds without accepting when the process has no file descriptor left."""

_SHORTAGES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_Peer = tuple[Any, ...]
_Listening = tuple[socket.socket, str | None]
"""A socket, and who asks on it if that does not depend on the source address."""


@dataclass(slots=True, kw_only=True)
class Counters:
    """What happened since the start.  Every question ends in exactly one but *queries*."""

    queries: int = 0
    answered: int = 0  # from the directory or the cache, NXDOMAIN included
    forwarded: int = 0  # answered by another server
    failed: int = 0  # SERVFAIL, FORMERR, NOTIMP: nobody could help, or the question is broken
    refused: int = 0  # an unknown asker, or a class other than IN
    dropped: int = 0  # not a question: a fragment, or an answer


class DnsServer:
    """Answers on any number of addresses, from inside one running event loop."""

    def __init__(
        self, directory: Directory, forwarder: Forwarder, *, tcp: TcpLimits | None = None
    ) -> None:
        self.counters = Counters()
        self._directory = directory
        self._forwarder = forwarder
        self._conversations = Conversations(self._reply_on_stream, tcp or TcpLimits())
        self._sockets: dict[Upstream | str, list[_Listening]] = {}
        self._group: asyncio.TaskGroup | None = None

    def listen(self, address: Address, port: int = DNS_PORT) -> None:
        """Answer on *address*, which need not exist yet.  Asking twice is not an error.

        Raises:
            KernelError: The port is taken, or may not be used.
        """
        where = Upstream(address=address, port=port)
        if where in self._sockets:
            return
        self._start(where, [(sock, None) for sock in bind(where)])
        self._forwarder.own.add(where)

    def listen_in(self, sockets: Iterable[socket.socket], owner: str) -> None:
        """Answer on bound *sockets* that only *owner* can reach, and close them in the end.

        Args:
            sockets: UDP sockets, and TCP sockets that listen, made in the owner's namespace.
            owner: Who asks, whatever address the questions come from.
        """
        self.close_owner(owner)
        made: list[_Listening] = [(sock, as_owner(owner)) for sock in sockets]
        for sock, _ in made:
            sock.setblocking(False)
        self._start(owner, made)

    def close_address(self, address: Address, port: int = DNS_PORT) -> None:
        """Stop answering on *address*.  Unknown addresses are fine."""
        where = Upstream(address=address, port=port)
        self._stop(where)
        self._forwarder.own.discard(where)

    def close_owner(self, owner: str) -> None:
        """Close the sockets that were handed over for *owner*.  Unknown owners are fine."""
        self._stop(owner)

    async def run(self) -> None:
        """Answer until cancelled, then close every socket."""
        try:
            async with asyncio.TaskGroup() as group:
                await self._serve(group)
        finally:
            self._conversations.close()

    async def _serve(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        for sockets in self._sockets.values():
            self._watch(sockets)
        try:
            await asyncio.get_running_loop().create_future()
        finally:  # before the group ends: no question may start a task in it after that
            self._group = None
            for where in list(self._sockets):
                self._stop(where)

    def _start(self, where: Upstream | str, sockets: list[_Listening]) -> None:
        self._sockets[where] = sockets
        if self._group is not None:
            self._watch(sockets)

    def _watch(self, sockets: list[_Listening]) -> None:
        loop = asyncio.get_running_loop()
        for sock, source in sockets:
            react = self._drain if sock.type == socket.SOCK_DGRAM else self._accept
            loop.add_reader(sock, react, sock, source)

    def _stop(self, where: Upstream | str) -> None:
        for sock, _ in self._sockets.pop(where, ()):
            asyncio.get_running_loop().remove_reader(sock)
            sock.close()

    def _drain(self, sock: socket.socket, source: str | None) -> None:
        """Answer what waits on a UDP socket: the hot path, so everything is local."""
        receive, send, answer = sock.recvfrom, sock.sendto, self._directory.answer
        for _ in range(DATAGRAMS_PER_WAKE):
            try:
                message, peer = receive(MESSAGE_MAX)
            except OSError:  # nothing left, or an error report for an earlier answer
                return
            self.counters.queries += 1
            said = answer(message, source or peer[0])
            reply = said if isinstance(said, bytes) else self._hand_on(said, sock, peer)
            if reply is None:
                continue
            self._count(reply)
            try:
                send(reply, peer)
            except OSError:  # its link is gone, or it does not read
                continue

    def _hand_on(self, said: Forward | None, sock: socket.socket, peer: _Peer) -> bytes | None:
        """Return what the cache knows; else have others asked and answer *peer* later."""
        if said is None:
            self.counters.dropped += 1
            return None
        if hit := self._forwarder.cached(said, stream=False):
            return hit
        assert self._group is not None
        self._group.create_task(self._answer_later(said, sock, peer))
        return None

    async def _answer_later(self, forward: Forward, sock: socket.socket, peer: _Peer) -> None:
        reply = await self._forwarder.resolve(forward, stream=False)
        self._count(reply, forwarded=True)
        with suppress(OSError):  # closed meanwhile
            sock.sendto(reply, peer)

    def _accept(self, sock: socket.socket, source: str | None) -> None:
        for _ in range(BACKLOG):
            try:
                conn, peer = sock.accept()
            except OSError as err:
                if err.errno in _SHORTAGES:
                    self._pause(sock, source)
                return
            assert self._group is not None
            asker = source or peer[0]
            owner = self._directory.owner_of(asker)
            self._conversations.admit(self._group, conn, asker, owner)

    def _pause(self, sock: socket.socket, source: str | None) -> None:
        """Stop accepting for a while: the connection stays queued and would wake us for ever."""
        loop = asyncio.get_running_loop()
        loop.remove_reader(sock)
        loop.call_later(SHORTAGE_PAUSE, self._resume, sock, source)

    def _resume(self, sock: socket.socket, source: str | None) -> None:
        if self._group is not None and sock.fileno() >= 0:
            self._watch([(sock, source)])

    async def _reply_on_stream(self, message: bytes, source: str) -> bytes | None:
        self.counters.queries += 1
        said = self._directory.answer(message, source)
        if said is None:
            self.counters.dropped += 1
            return None
        if isinstance(said, bytes):
            self._count(said)
            return said
        hit = self._forwarder.cached(said, stream=True)
        reply = hit or await self._forwarder.resolve(said, stream=True)
        self._count(reply, forwarded=hit is None)
        return reply

    def _count(self, reply: bytes, *, forwarded: bool = False) -> None:
        code = reply[3] & 0xF
        if code in (Rcode.NOERROR, Rcode.NXDOMAIN):
            if forwarded:
                self.counters.forwarded += 1
            else:
                self.counters.answered += 1
        elif code == Rcode.REFUSED:
            self.counters.refused += 1
        else:
            self.counters.failed += 1
