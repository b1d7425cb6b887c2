"""DNS for tests: questions and answers made by another library, and upstream servers that obey."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

from seaway.dns.answer import Member

LOOPBACK = ip_address("127.0.0.1")

Behaviour = Callable[[dns.message.Message, bool], bytes | None]
"""Makes an answer to one message; the flag says that it came over TCP."""


def ask(name: str, rtype: str = "A", **options: object) -> bytes:
    """Return a question in wire form, written by dnspython."""
    return dns.message.make_query(name, rtype, **options).to_wire()


def read(reply: object) -> dns.message.Message:
    """Let dnspython check and read our answer."""
    assert isinstance(reply, bytes), reply
    return dns.message.from_wire(reply)


def addresses(reply: object) -> list[str]:
    """Return the addresses in an answer, in order."""
    found = read(reply).answer
    return [record.address for rrset in found for record in rrset]


def member(owner: str, network: str, *names: str, at: tuple[str, ...] = ()) -> Member:
    """Return *owner*'s attachment to *network* with addresses *at*, from which it also asks."""
    held = [ip_address(text) for text in at]
    return Member(
        owner=owner,
        network=network,
        names=names,
        v4=tuple(address for address in held if address.version == 4),
        v6=tuple(address for address in held if address.version == 6),
        asks_from=tuple(held),
    )


def answering(*records: str, rcode: int = 0, authority: str = "") -> Behaviour:
    """Answer every question with "TTL TYPE DATA" records; *authority* is another such line."""

    def behave(query: dns.message.Message, over_tcp: bool) -> bytes:
        reply = dns.message.make_response(query)
        reply.set_rcode(rcode)
        reply.flags |= dns.flags.RA
        for line in records:
            ttl, rtype, data = line.split(None, 2)
            reply.answer.append(
                dns.rrset.from_text(query.question[0].name, int(ttl), "IN", rtype, data)
            )
        if authority:
            ttl, rtype, data = authority.split(None, 2)
            reply.authority.append(dns.rrset.from_text("example.", int(ttl), "IN", rtype, data))
        whole = reply.to_wire(max_size=65535)
        if over_tcp or len(whole) <= 512:
            return whole
        reply.answer.clear()
        reply.flags |= dns.flags.TC
        return reply.to_wire()

    return behave


def silent(query: dns.message.Message, over_tcp: bool) -> None:
    """Answer nothing."""


@dataclass
class Server:
    """An upstream server.  ``asked`` and ``peers`` grow with every message it gets."""

    behave: Behaviour
    port: int = 0
    asked: list[dns.message.Message] = field(default_factory=list)
    peers: list[tuple[str, int]] = field(default_factory=list)
    over_tcp: list[bool] = field(default_factory=list)
    transport: asyncio.DatagramTransport | None = None

    @property
    def text(self) -> str:
        """Return where it is, as resolv.conf cannot say it."""
        return f"127.0.0.1#{self.port}"

    def send(self, message: bytes, peer: tuple[str, int]) -> None:
        """Send *message* unasked, from this server's address."""
        assert self.transport is not None
        self.transport.sendto(message, peer)

    def reply(self, message: bytes, peer: tuple[str, int], *, over_tcp: bool) -> bytes | None:
        query = dns.message.from_wire(message)
        self.asked.append(query)
        self.peers.append(peer)
        self.over_tcp.append(over_tcp)
        return self.behave(query, over_tcp)


class _Udp(asyncio.DatagramProtocol):
    def __init__(self, server: Server) -> None:
        self.server = server

    def connection_made(self, transport: asyncio.DatagramTransport) -> None:
        self.server.transport = transport

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        reply = self.server.reply(data, addr, over_tcp=False)
        if reply is not None:
            self.server.send(reply, addr)


@asynccontextmanager
async def upstream(behave: Behaviour, host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Run a DNS server on a loopback port of its own, UDP and TCP."""
    server = Server(behave)
    loop = asyncio.get_running_loop()

    async def converse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        peer = writer.get_extra_info("peername")
        reply = server.reply(await reader.readexactly(size), peer, over_tcp=True)
        if reply is not None:
            writer.write(len(reply).to_bytes(2, "big") + reply)
        writer.close()
        await writer.wait_closed()

    server.port = free_port()
    udp, _ = await loop.create_datagram_endpoint(
        lambda: _Udp(server), local_addr=(host, server.port)
    )
    tcp = await asyncio.start_server(converse, host, server.port)
    try:
        yield server
    finally:
        udp.close()
        tcp.close()
        await tcp.wait_closed()


def free_port() -> int:
    """Return a port that is free for UDP and TCP on the loopback address."""
    while True:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            udp.bind(("127.0.0.1", 0))
            port = int(udp.getsockname()[1])
            try:
                tcp.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@contextmanager
def udp_client(port: int, source: str = "127.0.0.1") -> Iterator[socket.socket]:
    """A socket that asks 127.0.0.1 *port* from *source*; use it with the event loop."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind((source, 0))
        sock.connect(("127.0.0.1", port))
        sock.setblocking(False)
        yield sock
