"""Whom the client of etcd asks, in which order, how long, and over which connections."""

from __future__ import annotations

import asyncio
import base64
import errno
import json
import socket
import ssl
import time
from contextlib import AsyncExitStack, asynccontextmanager

import httpcore
import pytest

from seaway.errors import StoreError
from seaway.store.etcd import Etcd, Unsure, Write
from seaway.store.etcd_http import in_words
from tests.support.etcd import run

PATIENCE = 0.4
"""Seconds for those who are not going to be answered."""


class Fake:
    """A server in a member's place.

    Attributes:
        answers: What it says to each path; it is silent about others.
        asked: Paths, in order.
        connections: How many there were.
    """

    def __init__(self, host="127.0.0.1"):
        self.host = host
        self.url = ""
        self.answers = {}
        self.asked = []
        self.connections = 0
        self._open = []

    async def serve(self, reader, writer):
        """Answer one connection's requests."""
        self.connections += 1
        self._open.append(writer)
        while True:
            try:
                head = (await reader.readuntil(b"\r\n\r\n")).lower().decode()
                await reader.readexactly(int(head.split("content-length: ")[1].split()[0]))
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            path = head.split()[1]
            self.asked.append(path)
            if path in self.answers:
                body = json.dumps(self.answers[path]).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)

    async def hang_up(self):
        """End all connections, as a server does that is restarted."""
        for writer in self._open:
            writer.close()
            await writer.wait_closed()
        self._open.clear()


@asynccontextmanager
async def fakes(*hosts):
    """Serve at each of these addresses; nobody does after that."""
    made = [Fake(host) for host in hosts]
    async with AsyncExitStack() as stack:
        for fake in made:
            server = await asyncio.start_server(fake.serve, fake.host, 0)
            stack.push_async_callback(fake.hang_up)
            stack.callback(server.close)
            fake.url = f"http://{fake.host}:{server.sockets[0].getsockname()[1]}"
        yield made


@asynccontextmanager
async def client(*urls, patience=5.0):
    """Talk to whoever is there."""
    made = Etcd(urls, None, patience)
    try:
        yield made
    finally:
        await made.aclose()


def members(*several):
    """What etcd answers about members with these URLs each."""
    listed = [{"ID": str(i), "clientURLs": urls} for i, urls in enumerate(several, 1)]
    return {"/v3/cluster/member/list": {"members": listed}}


def value(text):
    """What etcd answers to a reader."""
    return {"/v3/kv/range": {"kvs": [{"key": "YQ==", "value": base64.b64encode(text).decode()}]}}


def test_each_member_is_named_once_with_what_is_wrong():
    """Not each of its addresses, and one reason for all."""

    async def steps():
        async with AsyncExitStack() as stack:
            async with fakes(*(f"127.0.0.{i}" for i in (1, 2, 3, 4, 5, 6))) as served:
                urls = [fake.url for fake in served]
                served[0].answers = members(urls[0::3], urls[1::3], urls[2::3])
                etcd = await stack.enter_async_context(client(*urls))
                await etcd.members()
            with pytest.raises(StoreError) as caught:
                await etcd.get("a")
            expected = "(127.0.0.1, 127.0.0.2, 127.0.0.3: connection refused)"
            assert f"the cluster's store does not answer {expected}" == str(caught.value)

    run(steps())


def test_another_member_is_asked_before_another_address_of_one():
    """A member that hangs does so at all its addresses."""

    async def steps():
        hosts = ("127.0.0.1", "127.0.0.2", "127.0.0.3")
        async with AsyncExitStack() as stack:
            first, same, other = await stack.enter_async_context(fakes(*hosts))
            etcd = await stack.enter_async_context(client(first.url, patience=PATIENCE))
            first.answers = members([first.url, same.url], [other.url])
            await etcd.members()
            etcd.set_endpoints([first.url, same.url, other.url])
            other.answers = value(b"1")

            assert b"1" == (await etcd.get("a")).value
            assert [] == same.asked
            first.asked.clear()
            await etcd.get("a")
            assert [] == first.asked, "one that hung is passed over from then on"

    run(steps())


def test_all_members_together_take_twice_one_s_time():
    """However many hang."""

    async def steps():
        async with AsyncExitStack() as stack:
            served = await stack.enter_async_context(fakes(*["127.0.0.1"] * 8))
            urls = [fake.url for fake in served]
            etcd = await stack.enter_async_context(client(*urls, patience=PATIENCE))
            began = time.monotonic()
            with pytest.raises(StoreError, match="timed out"):
                await etcd.get("a")
            assert time.monotonic() - began < 4 * PATIENCE

    run(steps())


def test_a_change_is_sent_once():
    """Silence after it leaves it unsure, within one member's time."""

    async def steps():
        async with fakes("127.0.0.1", "127.0.0.2") as (silent, other):
            async with client(silent.url, other.url, patience=PATIENCE) as etcd:
                began = time.monotonic()
                with pytest.raises(Unsure, match=r"at 127\.0\.0\.1 .*\(timed out\)"):
                    await etcd.txn([], [Write("a", b"")])
                assert time.monotonic() - began < 2 * PATIENCE
                assert [] == other.asked

    run(steps())


def test_connections_are_kept_while_they_are_good():
    """Requests use one after the other; one that was closed meanwhile is not taken."""

    async def steps():
        async with fakes("127.0.0.1") as (fake,), client(fake.url) as etcd:
            fake.answers = {"/v3/kv/txn": {"succeeded": True}}
            for _ in range(3):
                await etcd.txn([], [Write("a", b"")])
            assert 1 == fake.connections
            await fake.hang_up()
            await etcd.txn([], [Write("a", b"")])
            assert 2 == fake.connections

    run(steps())


def test_many_requests_share_few_connections():
    """Making a connection costs more than waiting for one."""

    async def steps():
        async with fakes("127.0.0.1") as (fake,), client(fake.url) as etcd:
            fake.answers = {"/v3/kv/txn": {"succeeded": True}}
            await asyncio.gather(*(etcd.txn([], [Write("a", b"")]) for _ in range(100)))
            assert 16 == fake.connections

    run(steps())


def test_who_waits_for_a_member_that_hangs_goes_to_another():
    """Requests beyond those that it has taken surely were not sent to it."""

    async def steps():
        async with AsyncExitStack() as stack:
            hung, other = await stack.enter_async_context(fakes("127.0.0.1", "127.0.0.2"))
            etcd = await stack.enter_async_context(client(hung.url, other.url, patience=1.0))
            other.answers = {"/v3/kv/txn": {"succeeded": True}}
            writing = (etcd.txn([], [Write("a", b"")]) for _ in range(40))
            results = await asyncio.gather(*writing, return_exceptions=True)
            assert [True] * 16 + [False] * 24 == [isinstance(r, Unsure) for r in results]

    run(steps())


def test_one_that_gives_up_leaves_no_half_used_connection():
    """Its answer would be taken for the next one's."""

    async def steps():
        async with fakes("127.0.0.1") as (fake,), client(fake.url) as etcd:
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await etcd.get("a")
            fake.answers = value(b"2")
            assert b"2" == (await etcd.get("a")).value
            assert 2 == fake.connections

    run(steps())


@pytest.mark.parametrize("url", ["192.0.2.1:2379", "ftp://192.0.2.1", "http://", "http://x:y"])
def test_what_is_no_url_is_said(url):
    """A user may name an etcd of theirs."""

    async def steps():
        async with client(url) as etcd:
            with pytest.raises(StoreError, match=r"is no URL such as https://192\.0\.2\.1:2379"):
                await etcd.get("a")

    run(steps())


def because(outer, *inner):
    """An error as libraries raise it, with what made it hidden inside."""
    for error in inner:
        outer.__cause__ = error
        outer = error


REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connect call failed")
NO_ROUTE = OSError(errno.EHOSTUNREACH, "No route to host")
UNTRUSTED = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED] verify failed")
UNTRUSTED.verify_message = "certificate has expired"
ALERT = ssl.SSLError(1, "tlsv13 alert certificate required")
OLD = ssl.SSLError(1, "wrong version number")
OLD.reason = "WRONG_VERSION_NUMBER"
ALERT.reason = "TLSV13_ALERT_CERTIFICATE_REQUIRED"


@pytest.mark.parametrize(
    ("err", "causes", "words"),
    [
        (
            httpcore.ConnectError("All attempts failed"),
            [OSError("x"), REFUSED],
            "connection refused",
        ),
        (httpcore.ConnectError("All attempts failed"), [OSError("x"), NO_ROUTE], "no route"),
        (httpcore.ConnectError(), [ExceptionGroup("x", [NO_ROUTE, REFUSED])], "no route"),
        (httpcore.ConnectError(), [socket.gaierror(-2, "x")], "its name is not known"),
        (httpcore.ConnectError(), [UNTRUSTED], "certificate refused: certificate has expired"),
        (ALERT, [], "our certificate was refused: certificate required"),
        (OLD, [], "TLS failed: wrong version number"),
        (httpcore.ReadTimeout(), [TimeoutError(), ssl.SSLWantReadError()], "timed out"),
        (httpcore.ReadError(), [ssl.SSLEOFError()], "it closed the connection"),
        (httpcore.ReadTimeout(), [TimeoutError()], "timed out"),
        (httpcore.ConnectTimeout(), [], "timed out"),
        (TimeoutError(), [], "timed out"),
        (OSError(errno.ETIMEDOUT, "x"), [], "timed out"),
        (httpcore.ReadError(), [OSError(errno.ECONNRESET, "x")], "it closed the connection"),
        (httpcore.RemoteProtocolError("Server disconnected"), [], "it closed the connection"),
        (OSError(errno.EMFILE, "x"), [], "too many open files"),
        (OSError("x"), [], "x"),
    ],
)
def test_reasons_are_in_plain_words(err, causes, words):
    """However deep they are."""
    because(err, *causes)
    assert in_words(err).startswith(words)
