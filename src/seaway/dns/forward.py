"""Gets answers for names that are not ours: from the cache, or from the right servers.

Decides whom to ask and for whom; how a question travels is exchange.py's business.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from seaway.dns import wire
from seaway.dns.answer import Forward
from seaway.dns.cache import Answer, Cache, extract, failure, render
from seaway.dns.exchange import CONCLUSIVE, Pace, exchange
from seaway.dns.upstreams import Upstream, parse_upstream
from seaway.dns.wire import Query, Rcode
from seaway.errors import InvalidSpec

_Servers = tuple[Upstream, ...]
_Key = tuple[_Servers, bytes, int, int, bool, bool, bool]

SETS_REMEMBERED = 1024
"""Sets of servers whose last good one is remembered."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Questions under way at a time; more are answered with SERVFAIL at once."""

    total: int = 1024
    per_owner: int = 128


class Forwarder:
    """Asks the host's resolvers, or an owner's own ones.

    Equal questions of one owner share one flight.  That also ends loops: where a resolver we
    ask is a container that asks us again, the second round joins the first and both fail in
    time, instead of going round for ever.  Different owners never share a flight.

    Attributes:
        own: Where we listen ourselves; never asked.
    """

    def __init__(
        self,
        upstreams: Callable[[], Sequence[str]],
        *,
        pace: Pace | None = None,
        limits: Limits | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.own: set[Upstream] = set()
        self._upstreams = upstreams
        self._pace = pace or Pace()
        self._limits = limits or Limits()
        self._cache = Cache(clock)
        self._flights: dict[tuple[str, _Key, bool], asyncio.Future[Answer | None]] = {}
        self._under_way: Counter[str] = Counter()
        self._total = 0
        self._last_good: dict[_Servers, Upstream] = {}

    def cached(self, forward: Forward, *, stream: bool) -> bytes | None:
        """Return the finished answer if the cache has it; never waits."""
        held = self._cache.get(_key(forward.query, self._servers(forward)))
        if held is None:
            return None
        answer, age = held
        limit = forward.query.limit(stream=stream)
        return render(forward.query, answer, age=age, limit=limit)

    async def resolve(self, forward: Forward, *, stream: bool) -> bytes:
        """Return the finished answer, SERVFAIL when nobody gave one.

        Args:
            forward: The question and whose it is.
            stream: The asker is on TCP, so the answer may be of any size.
        """
        if hit := self.cached(forward, stream=stream):
            return hit
        servers = self._servers(forward)
        if not servers or self._full(forward.owner):
            return wire.empty_reply(forward.query, Rcode.SERVFAIL)
        self._total += 1
        self._under_way[forward.owner] += 1
        try:
            answer = await self._fly(forward, servers, stream=stream)
        finally:
            self._total -= 1
            self._under_way[forward.owner] -= 1
            if not self._under_way[forward.owner]:
                del self._under_way[forward.owner]
        if answer is None:
            return wire.empty_reply(forward.query, Rcode.SERVFAIL)
        return render(forward.query, answer, age=0, limit=forward.query.limit(stream=stream))

    def _full(self, owner: str) -> bool:
        limits = self._limits
        return self._total >= limits.total or self._under_way[owner] >= limits.per_owner

    async def _fly(self, forward: Forward, servers: _Servers, *, stream: bool) -> Answer | None:
        """Ask, or wait for this owner's equal question that is under way."""
        key = _key(forward.query, servers)
        flight_key = (forward.owner, key, stream)
        if flight := self._flights.get(flight_key):
            return await asyncio.shield(flight)
        flight = self._flights[flight_key] = asyncio.get_running_loop().create_future()
        answer = None
        try:
            answer = await self._ask(forward.query, servers, stream=stream)
        finally:
            del self._flights[flight_key]
            flight.set_result(answer)
        if answer is not None:
            self._cache.put(key, answer)
        return answer

    async def _ask(self, query: Query, servers: _Servers, *, stream: bool) -> Answer | None:
        best = self._last_good.get(servers)
        order = sorted(servers, key=lambda server: server != best)
        found = await exchange(query, order, self._pace, stream=stream)
        if found is None:
            return None
        server, reply = found
        if reply.rcode not in CONCLUSIVE:
            return failure(reply.rcode)
        if len(self._last_good) >= SETS_REMEMBERED:
            self._last_good.clear()
        self._last_good[servers] = server
        return extract(reply)

    def _servers(self, forward: Forward) -> _Servers:
        texts = forward.upstreams or self._upstreams()
        servers = _parse(tuple(texts))
        return tuple(server for server in servers if server not in self.own)


def _key(query: Query, servers: _Servers) -> _Key:
    """Return what makes two questions have the same answer."""
    return (
        servers,
        query.name,
        query.qtype,
        query.qclass,
        query.edns is not None,
        query.edns is not None and query.edns.dnssec_ok,
        bool(query.flags & wire.FLAG_CHECKING_DISABLED),
    )


@lru_cache(maxsize=256)
def _parse(texts: tuple[str, ...]) -> _Servers:
    """Read the servers that can be read; what is left of a bad list is better than none."""
    servers = []
    for text in texts:
        try:
            servers.append(parse_upstream(text))
        except InvalidSpec:
            continue
    return tuple(dict.fromkeys(servers))
