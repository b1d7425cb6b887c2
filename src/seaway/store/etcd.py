"""A client of etcd over its JSON gateway: reading, transactions, watches, leases, members.

It knows nothing of what is stored.  Any member of etcd will do; those that do
not answer are passed over.  What a caller has to know of failures:

    StoreError     nobody answers, or refuses; nothing was changed
    |-- Unsure     a change was sent and its answer never came
    |-- Refused    etcd will not do this, with its reason
    `-- Compacted  a watch starts too far in the past
    Clash          a transaction's condition does not hold (a Conflict)
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from typing import Any, Final, Protocol, TypeVar, cast

import httpx
import msgspec

from seaway.errors import NotFound, StoreError
from seaway.store.etcd_wire import (
    Answer,
    At,
    Clash,
    Compacted,
    Compare,
    Empty,
    Erase,
    Event,
    Header,
    Holds,
    KeepaliveAnswer,
    Kv,
    LeaseAnswer,
    Member,
    MembersAnswer,
    RangeAnswer,
    Refused,
    Status,
    StatusAnswer,
    TxnAnswer,
    Unsure,
    WatchBatch,
    WatchState,
    Write,
    clash,
    prefix_end,
    range_request,
    refusal,
    txn_request,
    watch_request,
)

__all__ = [
    "At",
    "Clash",
    "Compacted",
    "Compare",
    "Empty",
    "Erase",
    "Etcd",
    "Event",
    "Holds",
    "Kv",
    "Member",
    "Refused",
    "Status",
    "Unsure",
    "WatchBatch",
    "Write",
]

_LEASE_EXISTS: Final = "lease already exists"
_LEASE_GONE: Final = "requested lease not found"

_CONNECT: Final = 1.0
"""Seconds: hosts of a cluster are near each other, and there are other members to ask."""

_HEADERS: Final = {"content-type": "application/json"}
_WITH_LEADER: Final = _HEADERS | {"grpc-metadata-hasleader": "true"}
"""Makes a member without a leader refuse at once and end its watches (rpctypes, md.go), so that a
member that is cut off from the others is left for one that is not."""

_SOCKET: Final = (
    (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
    (socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 3),
    (socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 2),
    (socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3),
    (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 9000),
)
"""A silent watch whose host has gone is noticed after 9 s (tcp(7))."""

_BROKEN: Final = (httpx.TransportError, OSError)
"""httpx lets an ssl.SSLError, which is an OSError, through when the other side says after the
handshake that it does not like our certificate."""

_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)


class _Answer(Protocol):
    @property
    def header(self) -> Header: ...


T = TypeVar("T", bound=_Answer)


class Etcd:
    """Talks to one etcd cluster.

    Safe for any number of tasks at once.  Connections are kept; new ones use
    the current contents of *tls*, so a renewed certificate is just loaded into it.

    Args:
        endpoints: URLs such as "https://192.0.2.1:7901", the nearest first.
        tls: None: no TLS.
        timeout: Seconds to wait for an answer of one member.

    Attributes:
        cluster_id: etcd's number for the cluster that answered last; 0 before that.
    """

    def __init__(
        self, endpoints: Sequence[str], tls: ssl.SSLContext | None, timeout: float = 3.0
    ) -> None:
        self.cluster_id = 0
        self._endpoints: tuple[str, ...] = ()
        self._first = 0
        self.set_endpoints(endpoints)
        limits = httpx.Limits(max_connections=32, max_keepalive_connections=8, keepalive_expiry=60)
        self._seconds = timeout
        self._timeout = httpx.Timeout(timeout, connect=min(_CONNECT, timeout))
        self._http = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=tls if tls is not None else False,
                trust_env=False,
                limits=limits,
                socket_options=_SOCKET,
            ),
            trust_env=False,
            timeout=self._timeout,
        )

    async def aclose(self) -> None:
        """Close all connections."""
        await self._http.aclose()

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Whom it asks, in the order it was given."""
        return self._endpoints

    def set_endpoints(self, endpoints: Sequence[str]) -> None:
        """Ask these from now on, going on with the one that worked last if it is among them."""
        if not endpoints:
            raise StoreError("no member of the cluster's store is known: join the cluster again")
        current = self._endpoints[self._first] if self._endpoints else ""
        self._endpoints = tuple(url.rstrip("/") for url in endpoints)
        self._first = self._endpoints.index(current) if current in self._endpoints else 0

    # --- keys -------------------------------------------------------------------------------------

    async def range(self, prefix: str, *, page: int = 5000) -> tuple[list[Kv], int]:
        """Read all keys that start with *prefix*, as they were at one revision.

        Args:
            prefix: "" for all keys.
            page: Keys to ask for at once.

        Returns:
            n keys in order, and that revision; a watch goes on at the next.
        """
        start, end, revision = prefix.encode() or b"\0", prefix_end(prefix), 0
        found: list[Kv] = []
        while True:
            request = range_request(start, end, page, revision)
            answer = await self._ask("/v3/kv/range", request, RangeAnswer)
            revision = revision or answer.header.revision
            found.extend(kv.kv() for kv in answer.kvs)
            if not answer.more or not answer.kvs:
                return found, revision
            start = answer.kvs[-1].key + b"\0"

    async def get(self, key: str) -> Kv | None:
        """Read one key; None if it does not exist."""
        answer = await self._ask("/v3/kv/range", {"key": key.encode()}, RangeAnswer)
        return answer.kvs[0].kv() if answer.kvs else None

    async def txn(
        self,
        compares: Sequence[Compare] = (),
        puts: Sequence[Write] = (),
        deletes: Sequence[Erase] = (),
    ) -> int:
        """Write and delete all, if all *compares* hold; else nothing.

        Args:
            compares: At most 1024, as of each of the others; 128 on an etcd of somebody else's.

        Returns:
            The revision it made.

        Raises:
            Clash: A compare does not hold; says which.
            NotFound: A lease that a write names has gone.
            Unsure: It was sent and no answer came.
            StoreError: Nobody answers, or etcd refuses; nothing was changed.
        """
        request = txn_request(compares, puts, deletes)
        try:
            answer = await self._ask("/v3/kv/txn", request, TxnAnswer, again=False)
        except Refused as err:
            if _LEASE_GONE in err.reason:
                raise NotFound("the lease has gone: grant it again") from None
            raise
        if not answer.succeeded:
            raise clash(compares, answer)
        return answer.header.revision

    # --- watching ---------------------------------------------------------------------------------

    async def watch(
        self, prefixes: Sequence[str], from_revision: int, *, silence: float = 10.0
    ) -> AsyncGenerator[WatchBatch, None]:
        """Tell what happens under any of *prefixes*, over one connection.

        It does not go on by itself after an error: ask again from the last
        batch's revision + 1, which goes to another member.  Close the iterator
        (contextlib.aclosing) to end it.

        Args:
            prefixes: Not overlapping.
            from_revision: The first to tell of, at least 1.
            silence: Seconds without news after which the member is asked if it lives.

        Raises:
            Compacted: etcd has forgotten *from_revision*.
            StoreError: The connection or the member's leader was lost.
        """
        state = WatchState(len(prefixes), from_revision)
        async with (
            self._streaming("/v3/watch", watch_request(prefixes, from_revision)) as opened,
            aclosing(self._lines(*opened, silence)) as coming,
        ):
            async for lines in coming:
                if batch := state.take(lines):
                    yield batch

    @asynccontextmanager
    async def _streaming(self, path: str, body: bytes) -> AsyncIterator[tuple[str, httpx.Response]]:
        """Open a stream at the first member that lets us."""
        timeout = httpx.Timeout(self._seconds, connect=self._timeout.connect, read=None)
        failures = []
        for url in self._in_turn():
            request = self._http.build_request(
                "POST", url + path, content=body, headers=_WITH_LEADER, timeout=timeout
            )
            try:
                async with asyncio.timeout(self._seconds):
                    response = await self._http.send(request, stream=True)
                    if response.status_code != 200:
                        await response.aread()
            except _BROKEN as err:
                failures.append(_why(url, err))
                continue
            try:
                if response.status_code == 200:
                    self._prefer(url)
                    yield url, response
                    return
                found = refusal(response.status_code, response.content)
                failures.append(f"{url}: {found.error}")
            finally:
                await response.aclose()
        raise _nobody(failures)

    async def _lines(
        self, url: str, response: httpx.Response, silence: float
    ) -> AsyncGenerator[list[bytes], None]:
        """Yield whole lines as they come, however long; end only with an error."""
        rest: list[bytes] = []
        try:
            async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_raw())) as chunks:
                while True:
                    chunk = await self._next(url, chunks, silence)
                    head, newline, tail = chunk.rpartition(b"\n")
                    if newline:
                        yield b"".join((*rest, head)).split(b"\n")
                        rest = []
                    rest.append(tail)
        except (*_BROKEN, StopAsyncIteration) as err:
            self._pass_over(url)
            why = str(err) or "the connection ended"
            raise StoreError(f"the watch of the cluster's store at {url} ended: {why}") from err
        except StoreError:
            self._pass_over(url)
            raise

    async def _next(self, url: str, chunks: AsyncIterator[bytes], silence: float) -> bytes:
        """Wait for bytes, and meanwhile make sure that who should send them lives."""
        coming = asyncio.ensure_future(anext(chunks))
        try:
            while True:
                await asyncio.wait((coming,), timeout=silence)
                if coming.done():
                    return coming.result()
                if not (await self.status(url)).leader and not coming.done():
                    raise StoreError(f"the cluster's store at {url} has lost its leader")
        finally:
            coming.cancel()
            await asyncio.wait((coming,))

    # --- leases -----------------------------------------------------------------------------------

    async def grant(self, ttl: int, lease: int) -> int:
        """Make a lease of *ttl* seconds, or keep alive the one with that number.

        Returns:
            Seconds it really has; more if etcd's elections take longer.
        """
        request = {"TTL": ttl, "ID": lease}
        for _ in range(3):  # it may end between our two questions
            try:
                return (await self._ask("/v3/lease/grant", request, LeaseAnswer)).ttl
            except Refused as err:
                if _LEASE_EXISTS not in err.reason:
                    raise
            if left := await self.keepalive(lease):
                return left
        raise StoreError("the lease is there and is not: try again")

    async def keepalive(self, lease: int) -> int:
        """Let a lease start anew.

        Returns:
            Seconds it has; 0: it has gone, with all its keys.
        """
        answer = await self._ask("/v3/lease/keepalive", {"ID": lease}, KeepaliveAnswer)
        return answer.result.ttl

    async def revoke(self, lease: int) -> None:
        """End a lease and delete its keys; fine if it has gone."""
        try:
            await self._ask("/v3/lease/revoke", {"ID": lease}, Answer)
        except Refused as err:
            if _LEASE_GONE not in err.reason:
                raise

    # --- members ----------------------------------------------------------------------------------

    async def members(self) -> tuple[Member, ...]:
        """List etcd's members, as the one that answers knows them."""
        answer = await self._ask("/v3/cluster/member/list", {}, MembersAnswer)
        return tuple(one.member() for one in answer.members)

    async def add_learner(self, peer_urls: Sequence[str]) -> tuple[Member, tuple[Member, ...]]:
        """Announce a member that is not started yet and has no vote at first.

        Returns:
            It, and all members with it.

        Raises:
            Refused: There is a learner already, or a member with these URLs.
            Unsure: No answer came; members() will tell.
        """
        request = {"peerURLs": list(peer_urls), "isLearner": True}
        answer = await self._ask("/v3/cluster/member/add", request, MembersAnswer, again=False)
        return answer.member.member(), tuple(one.member() for one in answer.members)

    async def promote(self, member: int) -> None:
        """Give a learner its vote.

        Raises:
            Refused: It has not caught up yet, or is no learner.
        """
        await self._change_member("promote", {"ID": member})

    async def remove_member(self, member: int) -> None:
        """Take a member out; it stops by itself.  Fine if it has gone.

        Raises:
            Refused: Too few others are up.
        """
        try:
            await self._change_member("remove", {"ID": member})
        except Refused as err:
            if "member not found" not in err.reason:
                raise

    async def update_member(self, member: int, peer_urls: Sequence[str]) -> None:
        """Change where the other members reach one."""
        await self._change_member("update", {"ID": member, "peerURLs": list(peer_urls)})

    async def _change_member(self, what: str, request: dict[str, Any]) -> None:
        await self._ask(f"/v3/cluster/member/{what}", request, MembersAnswer, again=False)

    async def status(self, endpoint: str) -> Status:
        """Ask one member how it is."""
        url = endpoint.rstrip("/")
        response = await self._post(url, "/v3/maintenance/status", b"{}", _HEADERS)
        if response.status_code != 200:
            raise _nobody([f"{url}: {refusal(response.status_code, response.content).error}"])
        return self._read(url, response, StatusAnswer).status()

    # --- asking -----------------------------------------------------------------------------------

    def _in_turn(self) -> tuple[str, ...]:
        """All members, from the one that worked last on."""
        return self._endpoints[self._first :] + self._endpoints[: self._first]

    def _prefer(self, url: str) -> None:
        """Begin with this one from now on."""
        if url in self._endpoints:
            self._first = self._endpoints.index(url)

    def _pass_over(self, url: str) -> None:
        """Begin with the next one from now on."""
        if self._endpoints[self._first] == url:
            self._first = (self._first + 1) % len(self._endpoints)

    async def _ask(
        self, path: str, request: dict[str, Any], kind: type[T], *, again: bool = True
    ) -> T:
        """Ask one member after the other until one answers.

        Args:
            again: Asking twice does no harm.
        """
        body = msgspec.json.encode(request)
        failures = []
        for url in self._in_turn():
            try:
                response = await self._http.post(url + path, content=body, headers=_WITH_LEADER)
            except _BROKEN as err:
                self._pass_over(url)
                failures.append(_why(url, err))
                done = not isinstance(err, _NOT_SENT)
            else:
                if response.status_code == 200:
                    return self._read(url, response, kind)
                refused = refusal(response.status_code, response.content)
                if not refused.transient:
                    raise refused.exception()
                self._pass_over(url)
                failures.append(f"{url}: {refused.error}")
                done = not refused.surely_not_done
            if done and not again:
                raise Unsure(
                    f"a change was sent to the cluster's store and no answer came "
                    f"({failures[-1]}): it may have been made"
                )
        raise _nobody(failures)

    async def _post(self, url: str, path: str, body: bytes, headers: Any) -> httpx.Response:
        try:
            return await self._http.post(url + path, content=body, headers=headers)
        except _BROKEN as err:
            raise _nobody([_why(url, err)]) from err

    def _read(self, url: str, response: httpx.Response, kind: type[T]) -> T:
        try:
            answer = msgspec.json.decode(response.content, type=kind, strict=False)
        except msgspec.MsgspecError as err:
            raise StoreError(f"{url} is not etcd 3.4 or newer: {err}") from err
        self.cluster_id = answer.header.cluster_id or self.cluster_id
        return answer


def _why(url: str, err: Exception) -> str:
    if isinstance(err, TimeoutError | httpx.TimeoutException):
        return f"{url}: no answer in time"
    if isinstance(err, httpx.ReadError | httpx.RemoteProtocolError):
        return f"{url}: it closed the connection"  # with TLS 1.3, also what it does not trust
    return f"{url}: {str(err) or type(err).__name__}"


def _nobody(failures: Sequence[str]) -> StoreError:
    return StoreError(f"the cluster's store does not answer at {'; '.join(failures)}")
