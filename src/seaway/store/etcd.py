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
import ssl
import time
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import Any, Final, Protocol, TypeVar, cast
from urllib.parse import urlsplit

import httpcore
import msgspec

from seaway.errors import NotFound, StoreError
from seaway.store.etcd_http import BROKEN, NOT_SENT, Connections, in_words
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
    LeaseKeysAnswer,
    Member,
    MembersAnswer,
    RangeAnswer,
    Refused,
    Status,
    StatusAnswer,
    TxnAnswer,
    Unsure,
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
    "Write",
]

_LEASE_EXISTS: Final = "lease already exists"
_LEASE_GONE: Final = "requested lease not found"

_DEFRAGMENTING: Final = 600.0
"""Seconds, for a file of 8 GB on a slow disk."""

_ALL: Final = 2
"""How often one member's time all of them may take together to answer one request."""


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
        timeout: Seconds to wait for an answer of one member; twice that for all of them together.
    """

    def __init__(
        self, endpoints: Sequence[str], tls: ssl.SSLContext | None, timeout: float = 3.0
    ) -> None:
        self._seconds = timeout
        self._http = Connections(tls)
        self._endpoints: tuple[str, ...] = ()
        self._turn: tuple[str, ...] = ()  # whom to ask first, next, ...
        self._member_of: dict[str, int] = {}  # URL -> etcd's number, as far as it is known
        self.set_endpoints(endpoints)

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
        self._endpoints = tuple(url.rstrip("/") for url in endpoints)
        self._arrange()

    def _arrange(self) -> None:
        """Have all members asked before a second URL of one: a member that hangs, hangs at both."""
        seen: Counter[int | str] = Counter()
        rounds = []
        for url in self._endpoints:
            member = self._member_of.get(url, url)
            rounds.append((seen[member], url))
            seen[member] += 1
        current = self._turn[:1]
        self._turn = tuple(url for _, url in sorted(rounds, key=lambda one: one[0]))
        self._prefer(*current)

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
        self, prefix: str, from_revision: int, *, silence: float = 10.0
    ) -> AsyncGenerator[list[Event], None]:
        """Tell what happens under *prefix*, over a connection of its own.

        etcd could watch several prefixes over one, but only what it is asked
        in time: Go's HTTP/1.1 server may stop reading a request when it begins
        to answer, and it answers as soon as the first prefix is watched.

        It does not go on by itself after an error: ask again from the last
        event's revision + 1, which goes to another member.  Close the iterator
        (contextlib.aclosing) to end it.

        Args:
            from_revision: The first to tell of, at least 1.
            silence: Seconds without news after which the member is asked if it lives.

        Raises:
            Compacted: etcd has forgotten *from_revision*.
            StoreError: The connection or the member's leader was lost.

        Source:
            Go, net/http, ResponseController.EnableFullDuplex.
        """
        state = WatchState()
        async with (
            self._streaming("/v3/watch", watch_request(prefix, from_revision)) as opened,
            aclosing(self._lines(*opened, silence)) as coming,
        ):
            async for lines in coming:
                if events := state.take(lines):
                    yield events

    @asynccontextmanager
    async def _streaming(
        self, path: str, body: bytes
    ) -> AsyncIterator[tuple[str, httpcore.Response]]:
        """Open a stream at the first member that lets us."""
        failures = []
        for url, seconds in self._in_turn():
            async with AsyncExitStack() as stack:
                try:
                    async with asyncio.timeout(seconds):
                        response = await stack.enter_async_context(
                            self._http.stream(url, path, body, seconds)
                        )
                        refused = await response.aread() if response.status != 200 else b""
                except BROKEN as err:
                    failures.append((url, in_words(err)))
                    continue
                if response.status != 200:
                    failures.append((url, refusal(response.status, refused).words))
                    continue
                self._prefer(url)
                yield url, response
                return
        raise self._nobody(failures)

    async def _lines(
        self, url: str, response: httpcore.Response, silence: float
    ) -> AsyncGenerator[list[bytes], None]:
        """Yield whole lines as they come, however long; end only with an error."""
        rest: list[bytes] = []
        try:
            async with aclosing(
                cast(AsyncGenerator[bytes, None], response.aiter_stream())
            ) as chunks:
                while True:
                    chunk = await self._next(url, chunks, silence)
                    head, newline, tail = chunk.rpartition(b"\n")
                    if newline:
                        yield b"".join((*rest, head)).split(b"\n")
                        rest = []
                    rest.append(tail)
        except (*BROKEN, StopAsyncIteration) as err:
            self._pass_over(url)
            why = (
                "it closed the connection" if isinstance(err, StopAsyncIteration) else in_words(err)
            )
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

    async def keys_of(self, lease: int) -> frozenset[str]:
        """List what lives and dies with a lease; nothing does if it has gone."""
        request = {"ID": lease, "keys": True}
        answer = await self._ask("/v3/lease/timetolive", request, LeaseKeysAnswer)
        return frozenset(key.decode() for key in answer.keys)

    async def lease_age(self, lease: int) -> tuple[int, int]:
        """Say when a lease was kept alive last, and when it ends.

        Returns:
            Seconds since and until, rounded up and down; (0, 0) if it has gone.
        """
        answer = await self._ask("/v3/lease/timetolive", {"ID": lease}, LeaseKeysAnswer)
        return (answer.granted - answer.ttl, answer.ttl) if answer.ttl > 0 else (0, 0)

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
        self._member_of = {url: one.id for one in answer.members for url in one.client_urls}
        self._arrange()
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
        content = await self._maintain(url, "status", self._seconds)
        return self._read(url, content, StatusAnswer).status()

    async def defragment(self, endpoint: str) -> None:
        """Have one member write its file anew; it may answer nobody for minutes meanwhile.

        Raises:
            StoreError: It did not, or is not done yet.
        """
        await self._maintain(endpoint.rstrip("/"), "defragment", _DEFRAGMENTING)

    async def disarm(self, member: int, alarm: str) -> None:
        """End an alarm of a member's, such as NOSPACE; it comes back if its cause is there."""
        request = {"action": "DEACTIVATE", "memberID": member, "alarm": alarm}
        await self._ask("/v3/maintenance/alarm", request, Answer)

    async def _maintain(self, url: str, what: str, seconds: float) -> bytes:
        try:
            status, content = await self._http.post(
                url, f"/v3/maintenance/{what}", b"{}", seconds, leader=False
            )
        except BROKEN as err:
            raise self._nobody([(url, in_words(err))]) from err
        if status != 200:
            raise self._nobody([(url, refusal(status, content).words)])
        return content

    # --- asking -----------------------------------------------------------------------------------

    def _in_turn(self) -> Iterator[tuple[str, float]]:
        """Yield whom to ask and for how many seconds, from the one that worked last on."""
        until = time.monotonic() + _ALL * self._seconds
        for url in self._turn:
            left = until - time.monotonic()
            if left <= 0:
                return
            yield url, min(left, self._seconds)

    def _prefer(self, *urls: str) -> None:
        """Begin with this one from now on, if it is among them."""
        for url in urls:
            if url in self._turn:
                first = self._turn.index(url)
                self._turn = self._turn[first:] + self._turn[:first]

    def _pass_over(self, url: str) -> None:
        """Begin with the next one from now on."""
        if self._turn[0] == url:
            self._turn = self._turn[1:] + self._turn[:1]

    async def _ask(
        self, path: str, request: dict[str, Any], kind: type[T], *, again: bool = True
    ) -> T:
        """Ask one member after the other until one answers.

        Args:
            again: Asking twice does no harm.
        """
        body = msgspec.json.encode(request)
        failures = []
        for url, seconds in self._in_turn():
            try:
                status, content = await self._http.post(url, path, body, seconds)
            except BROKEN as err:
                why = in_words(err)
                done = not isinstance(err, NOT_SENT)
            else:
                if status == 200:
                    return self._read(url, content, kind)
                refused = refusal(status, content)
                if not refused.transient:
                    raise refused.exception()
                why = refused.words
                done = not refused.surely_not_done
            self._pass_over(url)
            failures.append((url, why))
            if done and not again:
                raise Unsure(
                    f"a change was sent to the cluster's store at {_host(url)} and no answer came "
                    f"({why}): it may have been made"
                )
        raise self._nobody(failures)

    def _read(self, url: str, content: bytes, kind: type[T]) -> T:
        try:
            return msgspec.json.decode(content, type=kind, strict=False)
        except msgspec.MsgspecError as err:
            raise StoreError(f"{url} is not etcd 3.4 or newer: {err}") from err

    def _nobody(self, failures: Sequence[tuple[str, str]]) -> StoreError:
        """Name each member once, and the reason that most of them have."""
        members = {self._member_of.get(url, url): _host(url) for url, _ in reversed(failures)}
        hosts = ", ".join(dict.fromkeys(reversed(members.values())))
        ((why, _),) = Counter(why for _, why in failures).most_common(1)
        return StoreError(f"the cluster's store does not answer ({hosts}: {why})")


def _host(url: str) -> str:
    return urlsplit(url).hostname or url
