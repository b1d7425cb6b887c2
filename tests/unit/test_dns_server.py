"""Sockets: questions come in and answers go out, over UDP and TCP, until closed."""

import asyncio
import socket
from contextlib import asynccontextmanager
from ipaddress import ip_address

import dns.flags
import dns.rcode
import pytest

from seaway.dns import server as server_module
from seaway.dns.answer import Directory
from seaway.dns.exchange import Pace
from seaway.dns.forward import Forwarder
from seaway.dns.server import DnsServer
from seaway.dns.tcp import Conversations, TcpLimits
from seaway.errors import KernelError
from tests.support.dns import (
    LOOPBACK,
    addresses,
    answering,
    ask,
    free_port,
    member,
    read,
    silent,
    udp_client,
    upstream,
)

PACE = Pace(patience=0.1, total=0.3)


class Site:
    """A running server; 127.0.0.1 is the container "me", which also knows "web"."""

    def __init__(self, upstreams, tcp):
        self.directory = Directory()
        self.directory.put("me", [member("me", "net", "me", at=("127.0.0.1", "::1"))])
        self.directory.put("web", [member("web", "net", "web", at=("10.0.0.3",))])
        self.server = DnsServer(self.directory, Forwarder(lambda: upstreams, pace=PACE), tcp=tcp)
        self.port = free_port()

    @property
    def counts(self):
        return self.server.counters

    async def ask(self, message, source="127.0.0.1"):
        """Return the answer over UDP."""
        loop = asyncio.get_running_loop()
        with udp_client(self.port, source) as sock:
            sock.send(message)
            async with asyncio.timeout(10):
                return await loop.sock_recv(sock, 65535)

    async def ask_over_tcp(self, *messages):
        """Return the answers to *messages*, all sent at once on one connection."""
        async with asyncio.timeout(10):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                for message in messages:
                    writer.write(len(message).to_bytes(2, "big") + message)
                return [await read_framed(reader) for _ in messages]
            finally:
                writer.close()
                await writer.wait_closed()


async def read_framed(reader):
    return await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))


@asynccontextmanager
async def running(*upstreams, tcp=None, listening=True):
    """Run a server for the length of a block, then end it as the agent does."""
    site = Site(upstreams, tcp)
    if listening:
        site.server.listen(LOOPBACK, site.port)
    task = asyncio.ensure_future(site.server.run())
    await asyncio.sleep(0)  # lets run() begin
    try:
        yield site
    finally:
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


def test_names_are_answered_over_udp_and_tcp():
    """The same bytes either way."""

    async def scenario():
        async with running() as site:
            over_udp = await site.ask(ask("web", id=5))
            (over_tcp,) = await site.ask_over_tcp(ask("web", id=5))

        assert ["10.0.0.3"] == addresses(over_udp)
        assert over_udp == over_tcp
        assert (2, 2) == (site.counts.queries, site.counts.answered)

    asyncio.run(scenario())


def test_a_connection_carries_several_questions():
    """Sent at once, they are answered in order."""

    async def scenario():
        async with running() as site:
            names = ["web", "me", "web", "nosuch.net"]
            site.directory.set_subnets([])
            replies = await site.ask_over_tcp(*(ask(n, id=i) for i, n in enumerate(names)))

        assert [0, 1, 2, 3] == [read(reply).id for reply in replies]
        assert [0, 0, 0, 3] == [read(reply).rcode() for reply in replies]

    asyncio.run(scenario())


def test_a_question_may_arrive_in_pieces():
    """TCP keeps no message boundaries."""

    async def scenario():
        async with running() as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            message = ask("web")
            for byte in len(message).to_bytes(2, "big") + message:
                writer.write(bytes([byte]))
                await writer.drain()
                await asyncio.sleep(0)
            async with asyncio.timeout(10):
                reply = await read_framed(reader)
            writer.close()
            await writer.wait_closed()

        assert ["10.0.0.3"] == addresses(reply)

    asyncio.run(scenario())


def test_ipv6_works():
    """A gateway has an address of each family."""

    async def scenario():
        async with running(listening=False) as site:
            site.server.listen(ip_address("::1"), site.port)
            loop = asyncio.get_running_loop()
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
                sock.setblocking(False)
                sock.connect(("::1", site.port))
                sock.send(ask("web"))
                async with asyncio.timeout(10):
                    assert ["10.0.0.3"] == addresses(await loop.sock_recv(sock, 512))

    asyncio.run(scenario())


@pytest.mark.parametrize("address", ["192.0.2.1", "2001:db8::1"])
def test_an_address_may_come_later(address):
    """Listening does not depend on the bridge being there first."""

    async def scenario():
        async with running(listening=False) as site:
            site.server.listen(ip_address(address), site.port)
            site.server.listen(ip_address(address), site.port)
            site.server.close_address(ip_address(address), site.port)
            site.server.close_address(ip_address(address), site.port)

    asyncio.run(scenario())


def test_a_taken_port_is_explained():
    """The error says where and what to do, and nothing stays open."""

    async def scenario():
        async with running() as site:
            second = DnsServer(Directory(), Forwarder(list))
            with pytest.raises(KernelError, match=r"127\.0\.0\.1 port \d+: another DNS server"):
                second.listen(LOOPBACK, site.port)

    asyncio.run(scenario())


def test_a_closed_address_is_free_again():
    """Another server may have it at once."""

    async def scenario():
        async with running() as site:
            site.server.close_address(LOOPBACK, site.port)
            with pytest.raises(ConnectionRefusedError):
                await site.ask(ask("web"))
            site.server.listen(LOOPBACK, site.port)

            assert ["10.0.0.3"] == addresses(await site.ask(ask("web")))

    asyncio.run(scenario())


def handed_over(port):
    """Return a UDP and a TCP socket as the agent makes them in a container's namespace."""
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    udp.bind(("127.0.0.1", port))
    tcp = socket.create_server(("127.0.0.1", port))
    return [udp, tcp]


def test_sockets_of_an_owner_answer_as_to_that_owner():
    """Whatever address asks: inside the namespace it is 127.0.0.1 for everyone."""

    async def scenario():
        async with running(listening=False) as site:
            site.directory.put("me", [member("me", "net", "me", at=("10.0.0.2",))])
            site.server.listen_in(handed_over(site.port), owner="me")
            assert ["10.0.0.3"] == addresses(await site.ask(ask("web"), source="127.0.0.9"))
            assert ["10.0.0.3"] == addresses(*await site.ask_over_tcp(ask("web")))

            site.directory.remove("me")
            assert dns.rcode.REFUSED == read(await site.ask(ask("web"))).rcode()
            site.server.close_owner("me")
            site.server.close_owner("me")
            socket.create_server(("127.0.0.1", site.port)).close()

    asyncio.run(scenario())


def test_listening_before_running_is_fine():
    """The agent opens the gateways first and starts its services then."""

    async def scenario():
        site = Site([], None)
        site.server.listen(LOOPBACK, site.port)
        task = asyncio.ensure_future(site.server.run())
        assert ["10.0.0.3"] == addresses(await site.ask(ask("web")))
        task.cancel()

    asyncio.run(scenario())


def test_other_names_come_from_upstream_and_then_from_the_cache():
    """Over UDP and TCP; the counters tell them apart."""

    async def scenario():
        async with upstream(answering("60 A 192.0.2.1")) as up, running(up.text) as site:
            for _ in range(2):
                assert ["192.0.2.1"] == addresses(await site.ask(ask("www.example")))
            assert ["192.0.2.1"] == addresses(*await site.ask_over_tcp(ask("www.example")))
            assert ["192.0.2.1"] == addresses(*await site.ask_over_tcp(ask("b.example")))

        assert 2 == len(up.asked)
        assert (4, 2, 2) == (site.counts.queries, site.counts.answered, site.counts.forwarded)

    asyncio.run(scenario())


def test_a_slow_upstream_holds_nobody_else_up():
    """Own names answer while other questions wait, and those end in SERVFAIL."""

    async def scenario():
        async with upstream(silent) as up, running(up.text) as site:
            waiting = asyncio.ensure_future(site.ask(ask("www.example")))
            async with asyncio.timeout(10):
                while not up.asked:
                    await asyncio.sleep(0.01)
            assert ["10.0.0.3"] == addresses(await site.ask(ask("web")))
            assert not waiting.done()

            assert dns.rcode.SERVFAIL == read(await waiting).rcode()
            assert 1 == site.counts.failed

    asyncio.run(scenario())


def test_a_long_answer_is_truncated_over_udp_and_whole_over_tcp():
    """TC sends the client to TCP, where everything fits."""

    async def scenario():
        long = answering(*(f"60 A 192.0.2.{n}" for n in range(100)))
        async with upstream(long) as up, running(up.text) as site:
            short = await site.ask(ask("www.example"))
            (whole,) = await site.ask_over_tcp(ask("www.example"))

        assert read(short).flags & dns.flags.TC
        assert len(short) <= 512
        assert 100 == len(addresses(whole))

    asyncio.run(scenario())


def test_bad_packets_do_no_harm():
    """Noise is dropped or answered with an error, and the next question is answered."""

    async def scenario():
        async with running() as site:
            with udp_client(site.port) as sock:
                for noise in (b"", b"x", bytes(11), b"\xff" * 5000):
                    sock.send(noise)
            assert dns.rcode.FORMERR == read(await site.ask(bytes(12))).rcode()
            assert ["10.0.0.3"] == addresses(await site.ask(ask("web")))

        assert (6, 1, 1, 4) == (
            site.counts.queries, site.counts.answered, site.counts.failed, site.counts.dropped,
        )  # fmt: skip

    asyncio.run(scenario())


def test_strangers_are_counted():
    """Refused questions have their own figure."""

    async def scenario():
        async with running() as site:
            assert dns.rcode.REFUSED == read(await site.ask(ask("web"), "127.0.0.2")).rcode()

        assert 1 == site.counts.refused

    asyncio.run(scenario())


async def ends(reader):
    """Wait until the other side closes the connection without a word."""
    async with asyncio.timeout(10):
        return await reader.read() == b""


@pytest.mark.parametrize(
    ("sent", "idle"),
    [
        (b"", 0.2),
        (b"\x00", 0.2),
        (b"\x00\x20" + bytes(3), 0.2),
        (b"\x10\x01", 60),
        (b"\x00\x00", 60),
        (b"\x00\x05hello", 60),
    ],
    ids=["silent", "half a length", "stopped midway", "too long", "empty", "no message"],
)
def test_connections_that_break_the_rules_are_closed(sent, idle):
    """Silent ones after the idle time, oversized and senseless ones at once."""

    async def scenario():
        async with running(tcp=TcpLimits(idle=idle)) as site:
            reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
            writer.write(sent)
            assert await ends(reader)
            writer.close()
            await writer.wait_closed()

    asyncio.run(scenario())


@pytest.mark.parametrize("limits", [TcpLimits(total=2), TcpLimits(per_owner=2)])
def test_connections_are_bounded(limits):
    """One too many is closed at once; when another ends there is room again."""

    async def scenario():
        async with running(tcp=limits) as site:
            open_ones = [await asyncio.open_connection("127.0.0.1", site.port) for _ in range(3)]
            assert await ends(open_ones[2][0])
            for _, writer in open_ones:
                writer.close()
                await writer.wait_closed()
            async with asyncio.timeout(10):
                while site.server._conversations._open:
                    await asyncio.sleep(0.01)

            assert ["10.0.0.3"] == addresses(*await site.ask_over_tcp(ask("web")))

    asyncio.run(scenario())
    assert (256, 32, 10.0) == (TcpLimits().total, TcpLimits().per_owner, TcpLimits().idle)


def test_ending_closes_everything():
    """Also connections that are open and questions that wait."""

    async def scenario():
        async with upstream(silent) as up:
            async with running(up.text) as site:
                reader, writer = await asyncio.open_connection("127.0.0.1", site.port)
                with udp_client(site.port) as sock:
                    sock.send(ask("www.example"))
                    async with asyncio.timeout(10):
                        while not up.asked:
                            await asyncio.sleep(0.01)
            assert await ends(reader)
            writer.close()
            await writer.wait_closed()
        socket.create_server(("127.0.0.1", site.port)).close()

    asyncio.run(scenario())


class OutOfDescriptors:
    """A listening socket whose accept fails as if the process had no descriptor left."""

    def __init__(self, real):
        self.real = real
        self.type = real.type
        self.failures = 1

    def accept(self):
        if self.failures:
            self.failures -= 1
            raise OSError(24, "too many open files")
        return self.real.accept()

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_a_shortage_of_descriptors_pauses_accepting(monkeypatch):
    """The queued connection is served when there is room again, and the loop does not spin."""
    monkeypatch.setattr(server_module, "SHORTAGE_PAUSE", 0.1)

    async def scenario():
        async with running(listening=False) as site:
            udp, tcp = handed_over(site.port)
            short = OutOfDescriptors(tcp)
            site.server.listen_in([udp, short], owner="me")

            assert ["10.0.0.3"] == addresses(*await site.ask_over_tcp(ask("web")))
            assert 0 == short.failures

    asyncio.run(scenario())


class Unsendable:
    """A UDP socket whose first answer cannot be sent, as when the link has just gone."""

    def __init__(self, real):
        self.real = real
        self.type = real.type
        self.failures = 1

    def sendto(self, reply, peer):
        if self.failures:
            self.failures -= 1
            raise OSError(101, "network is unreachable")
        return self.real.sendto(reply, peer)

    def __getattr__(self, name):
        return getattr(self.real, name)


def test_an_answer_that_cannot_be_sent_is_lost_alone():
    """The next question is answered."""

    async def scenario():
        async with running(listening=False) as site:
            udp, tcp = handed_over(site.port)
            site.server.listen_in([Unsendable(udp), tcp], owner="me")
            with udp_client(site.port) as sock:
                sock.send(ask("web"))
                assert ["10.0.0.3"] == addresses(await site.ask(ask("web")))
                with pytest.raises(BlockingIOError):
                    sock.recv(512)

    asyncio.run(scenario())


def test_a_connection_that_was_never_served_is_closed():
    """When everything ends between its arrival and its first turn."""

    async def scenario():
        talks = Conversations(None, TcpLimits())
        ours, theirs = socket.socketpair()

        async def admit_and_end():
            async with asyncio.TaskGroup() as group:
                talks.admit(group, ours, "me", "me")
                raise ValueError

        with pytest.raises(ExceptionGroup):
            await admit_and_end()
        talks.close()

        with theirs:
            assert b"" == theirs.recv(1)

    asyncio.run(scenario())


def test_a_flood_does_not_starve_others():
    """A burst larger than one wake-up's share is answered completely."""

    async def scenario():
        async with running() as site:
            loop = asyncio.get_running_loop()
            with udp_client(site.port) as sock:
                for number in range(150):
                    sock.send(ask("web", id=number))
                async with asyncio.timeout(10):
                    ids = {read(await loop.sock_recv(sock, 512)).id for _ in range(150)}

        assert set(range(150)) == ids

    asyncio.run(scenario())


def test_a_container_s_connections_count_together():
    """From whichever of its addresses they come; another container's do not."""
    mine, others = ("127.0.0.2", "127.0.0.3"), "127.0.0.4"

    async def scenario():
        async with running(tcp=TcpLimits(per_owner=2)) as site:
            site.directory.put("many", [member("many", "net", "many", at=mine)])
            site.directory.put("other", [member("other", "net", "other", at=(others,))])
            opened = [
                await asyncio.open_connection("127.0.0.1", site.port, local_addr=(source, 0))
                for source in (*mine, mine[0], others)
            ]
            assert await ends(opened[2][0])
            for reader, writer in (*opened[:2], opened[3]):
                question = ask("web")
                writer.write(len(question).to_bytes(2, "big") + question)
                assert ["10.0.0.3"] == addresses(await read_framed(reader))
            for _, writer in opened:
                writer.close()
                await writer.wait_closed()

    asyncio.run(scenario())
