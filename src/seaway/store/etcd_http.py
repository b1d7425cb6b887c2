"""HTTP connections to etcd's members: kept, and each used by one request at a time.

HTTP and TLS are httpcore's.  Its pool, which closes nothing that we would
keep, and httpx around that would make a request three times as dear: they look
at every connection's socket again and again, and build and copy what is the
same each time.  A stream has a connection of its own, of which there may be
any number.
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from functools import lru_cache
from typing import Final

from httpcore import (
    URL,
    AsyncHTTPConnection,
    ConnectError,
    ConnectTimeout,
    NetworkError,
    PoolTimeout,
    ProtocolError,
    Request,
    Response,
    TimeoutException,
    UnsupportedProtocol,
)

BROKEN: Final = (NetworkError, TimeoutException, ProtocolError, UnsupportedProtocol, OSError)
"""What a request may fail with. httpcore lets an ssl.SSLError, which is an OSError, through when
the other side says after the handshake that it does not like our certificate."""

NOT_SENT: Final = (ConnectError, ConnectTimeout, PoolTimeout, UnsupportedProtocol)
"""Those after which the other side surely knows nothing of the request."""

_CONNECT: Final = 1.0
"""Seconds: hosts of a cluster are near each other, and there are other members to ask."""

_AT_ONCE: Final = 16
"""Requests that one member gets at the same time, and so connections that are kept: more would
spend their time on making them. Streams are not counted."""
_KEPT_FOR: Final = 60.0
"""Seconds."""

_SOCKET: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9000),
)
"""A silent watch whose host has gone is noticed after 9 s (tcp(7))."""

_WITH_LEADER: Final = (b"grpc-metadata-hasleader", b"true")
"""Makes a member without a leader refuse at once and end its watches (rpctypes, md.go), so that a
member that is cut off from the others is left for one that is not."""

_NO_FAILURE: Final = (ssl.SSLWantReadError, ssl.SSLWantWriteError, ssl.SSLZeroReturnError)
"""How ssl says that it has to wait, or that the other side hung up."""

_NO_ROUTE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EADDRNOTAVAIL})
_CLOSED: Final = frozenset({errno.ECONNRESET, errno.EPIPE})


class Connections:
    """Connections to any number of members.

    Args:
        tls: What new connections use, as it is then; None: no TLS.
    """

    def __init__(self, tls: ssl.SSLContext | None) -> None:
        self._tls = tls
        self._idle: dict[str, list[AsyncHTTPConnection]] = {}
        self._slots: dict[str, asyncio.Semaphore] = {}
        self._closed = False

    async def aclose(self) -> None:
        """Close those that nobody uses now, and the others as soon as they are not."""
        self._closed = True
        idle, self._idle = self._idle, {}
        for connections in idle.values():
            for connection in connections:
                await connection.aclose()

    async def post(
        self, url: str, path: str, body: bytes, seconds: float, *, leader: bool = True
    ) -> tuple[int, bytes]:
        """Ask one member.

        Args:
            url: Its scheme, address and port.
            seconds: How long it may be silent; half of that it may be busy with earlier requests.
            leader: It shall refuse if it has no leader.

        Returns:
            Status and content of its answer.

        Raises:
            BROKEN: There was no answer.
        """
        async with self._slot(url, seconds / 2):
            connection = await self._take(url)
            try:
                request = _request(url, path, body, seconds, leader=leader)
                response = await connection.handle_async_request(request)
                try:
                    return response.status, await response.aread()
                finally:
                    await response.aclose()
            finally:
                await self._give_back(url, connection)

    @asynccontextmanager
    async def stream(
        self, url: str, path: str, body: bytes, seconds: float
    ) -> AsyncGenerator[Response, None]:
        """Ask one member for an answer that does not end; wait for its beginning.

        Args:
            seconds: To wait for the connection and for taking the request; the answer may be
                silent for as long as it likes.

        Raises:
            BROKEN: There was no answer.
        """
        connection = self._connect(url)
        try:
            request = _request(url, path, body, seconds)
            request.extensions["timeout"]["read"] = None
            response = await connection.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            await connection.aclose()

    @asynccontextmanager
    async def _slot(self, url: str, seconds: float) -> AsyncGenerator[None, None]:
        """Wait for one's turn at a member."""
        slots = self._slots.setdefault(url, asyncio.Semaphore(_AT_ONCE))
        try:
            async with asyncio.timeout(seconds):
                await slots.acquire()
        except TimeoutError:
            raise PoolTimeout from None
        try:
            yield
        finally:
            slots.release()

    def _connect(self, url: str) -> AsyncHTTPConnection:
        """Make a connection that connects with its first request."""
        return AsyncHTTPConnection(
            _target(url, "").origin,
            ssl_context=self._tls,
            keepalive_expiry=_KEPT_FOR,
            socket_options=_SOCKET,
        )

    async def _take(self, url: str) -> AsyncHTTPConnection:
        idle = self._idle.get(url)
        while idle:
            connection = idle.pop()
            if not connection.has_expired():  # nor was closed by the other side
                return connection
            await connection.aclose()
        return self._connect(url)

    async def _give_back(self, url: str, connection: AsyncHTTPConnection) -> None:
        if connection.is_available() and not self._closed:
            self._idle.setdefault(url, []).append(connection)
        else:
            await connection.aclose()


@lru_cache(maxsize=256)
def _target(url: str, path: str) -> URL:
    try:
        target = URL(url + path)
    except ValueError:
        target = URL("")
    if target.scheme not in (b"http", b"https") or not target.host:
        raise UnsupportedProtocol(f"{url} is no URL such as https://192.0.2.1:2379")
    return target


def _request(url: str, path: str, body: bytes, seconds: float, *, leader: bool = True) -> Request:
    headers = [
        (b"host", url.split("/")[2].encode()),
        (b"content-type", b"application/json"),
        (b"content-length", b"%d" % len(body)),
    ]
    if leader:
        headers.append(_WITH_LEADER)
    timeout = {"connect": min(_CONNECT, seconds), "read": seconds, "write": seconds}
    return Request(
        "POST",
        _target(url, path),
        headers=headers,
        content=body,
        extensions={"timeout": timeout},
    )


def in_words(err: BaseException) -> str:
    """Say why there was no answer, shortly."""
    causes = list(_causes(err))
    for cause in causes:
        if isinstance(cause, ssl.SSLError) and not isinstance(cause, _NO_FAILURE):
            return _tls_in_words(cause)
    for cause in causes:
        if isinstance(cause, TimeoutError | TimeoutException):
            return "timed out"
        if isinstance(cause, OSError) and cause.errno:
            return _errno_in_words(cause)
    if isinstance(err, NetworkError | ProtocolError):
        return "it closed the connection"  # with TLS 1.3, also what it does not trust
    return str(err) or type(err).__name__


def _causes(err: BaseException | None) -> Iterator[BaseException]:
    """Yield an error, what made it, and so on: libraries hide the one that says something."""
    while err is not None:
        yield err
        if isinstance(err, BaseExceptionGroup):
            err = err.exceptions[0]
        else:
            err = err.__cause__ or err.__context__


def _tls_in_words(err: ssl.SSLError) -> str:
    if isinstance(err, ssl.SSLCertVerificationError):
        return f"certificate refused: {err.verify_message}"
    if isinstance(err, ssl.SSLEOFError):
        return "it closed the connection"
    why = (err.reason or str(err)).replace("_", " ").lower()
    _, alert, theirs = why.partition("alert ")
    return f"our certificate was refused: {theirs}" if alert else f"TLS failed: {why}"


def _errno_in_words(err: OSError) -> str:
    if err.errno == errno.ECONNREFUSED:
        return "connection refused"
    if err.errno in _NO_ROUTE:
        return "no route"
    if err.errno in _CLOSED:
        return "it closed the connection"
    if isinstance(err, socket.gaierror):
        return "its name is not known"
    return os.strerror(err.errno or 0).lower()
