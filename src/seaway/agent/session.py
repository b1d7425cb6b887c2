"""A host's conversation with its cluster's store: what it asks for, what it hears, what it holds.

While the store is out of reach everything stays as it is.  What this host may
do alone it does, and tells the others when the store is back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Final

import structlog

from seaway.agent.commons import Commons, Touched
from seaway.agent.mirror import Mirror
from seaway.agent.state import Change, Item, State, is_shared
from seaway.agent.telling import Teller
from seaway.agent.transaction import (
    Transaction,
    concerns_others,
    local_records,
    transaction,
)
from seaway.errors import Conflict, SeawayError, StoreError
from seaway.kernel.processes import trim
from seaway.model.cluster import Claim, Cluster, Host, HostId
from seaway.model.names import digest
from seaway.model.network import Network, NetworkId
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.etcd import Etcd
from seaway.store.etcd_wire import At, Clash, Erase, Event, Write

log = structlog.get_logger()

_PATIENCE: Final = 4.0
"""Seconds that somebody who waits for a container waits for the store."""
_COPY_PAUSE: Final = 0.05
"""Seconds to let several changes of one container become one copy."""
_BACKOFF: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 3.0)
"""Seconds between attempts to reach the store; the last one is repeated."""


REMOVED: Final = "this host was removed from its cluster"


@dataclass(slots=True, kw_only=True)
class Hooks:
    """Whom the session tells.

    Attributes:
        changed: Something of the cluster is different; called before the store's next news.
        connected: The store was reached, and both sides know of each other.
        removed: This host is no member any more.
    """

    changed: Callable[[Touched], Awaitable[None]]
    connected: Callable[[], Awaitable[None]]
    removed: Callable[[], Awaitable[None]]


class Session:
    """Implements state.Shared.

    Attributes:
        online: The store answered last time.
        error: Why it does not; "" while it does.
        since: When that changed, in seconds since the epoch.
        orphans: Networks that were removed while containers here are on them.
        gone: The cluster says this host is no member any more.
    """

    def __init__(
        self, state: State, commons: Commons, etcd: Etcd, mirror: Mirror, hooks: Hooks
    ) -> None:
        self.state = state
        self.commons = commons
        self.etcd = etcd
        self._mirror = mirror
        self._hooks = hooks
        self.lease = self.lease_number(commons.me)
        self._life = 0  # revision at which the store was told last that we live
        self.online = False
        self.error = "not connected yet"
        self.since = time.time()
        self.orphans: set[NetworkId] = set()
        # A member that did not find itself there when it started was removed before.
        self.gone = commons.cluster is not None and commons.me not in commons.hosts
        self._taking_part: set[NetworkId] = set()
        self._stir = asyncio.Event()  # a request failed, or there is more to listen to
        self._under_way = 0  # changes that the store has been asked for
        self._still = asyncio.Event()  # none is
        self._still.set()
        self._to_copy: dict[str, bytes | None] = {}
        self._copying = asyncio.Event()
        self._behind = False  # something was done without the store
        self._floors: dict[str, int] = {}  # prefix -> what is known of it; before that is old
        self._listening: dict[str, asyncio.Task[None]] = {}
        self._order = asyncio.Lock()  # news is taken in one piece at a time
        self._teller = Teller(self)

    @staticmethod
    def lease_number(host: HostId) -> int:
        """Return the number of a host's lease: the same after a restart, a positive 63-bit one."""
        return int.from_bytes(digest("lease", host)[:8]) >> 1 or 1

    # -- writing ----------------------------------------------------------------------------

    async def commit(self, change: Change) -> None:
        """Make the whole cluster agree to *change*, as far as it concerns others.

        Raises:
            Conflict: Somebody was faster; says who has it.
            StoreError: The store is out of reach, and it cannot be done without.
        """
        if not self.online:
            self._require_alone(change)
            return
        try:
            wanted = transaction(change, self.state, self.commons, self.lease)
        except Clash as err:
            raise await self.explain(err) from None
        if wanted:
            self._under_way += 1
            self._still.clear()
            try:
                revision = await self.write(wanted)
            except Clash as err:
                raise await self.explain(err) from None
            except StoreError as err:
                self._lose(err)
                self._require_alone(change)
                return
            finally:
                self._under_way -= 1
                if not self._under_way:
                    self._still.set()
            await self._believe(change, revision)
        self._copy(change)

    def doubt(self) -> None:
        """Connect anew, and compare: this host has not done what the cluster agreed to."""
        self._lose(StoreError("this host could not keep what the store has: comparing both"))

    def _copy(self, change: Change) -> None:
        """Have the store get its copy of what is this host's alone, soon."""
        for key, value in local_records(change).items():
            self._to_copy[keys.local(self.commons.me, key)] = value
        self._copying.set()

    async def _copy_often(self) -> None:
        while True:
            await self._copying.wait()
            self._copying.clear()
            await asyncio.sleep(_COPY_PAUSE)
            copied, self._to_copy = self._to_copy, {}
            writes = [Write(key, value) for key, value in copied.items() if value is not None]
            await self._teller.in_pieces(writes, [Erase(k) for k, v in copied.items() if v is None])

    async def write(self, wanted: Transaction) -> int:
        """Do one transaction; returns its revision.

        Only while the store counts us as alive since we connected: what a member of etcd that
        stood still was asked for, and does later, must not undo what was done meanwhile.

        Raises:
            Clash: A key is not as it should be.
            StoreError: Out of reach.
        """
        alive = At(keys.alive(self.commons.me), self._life)
        try:
            async with asyncio.timeout(_PATIENCE):
                return await self.etcd.txn([alive, *wanted.compares], wanted.writes, wanted.erases)
        except TimeoutError:
            raise StoreError(f"the cluster's store did not answer for {_PATIENCE} s") from None
        except Clash as err:
            if err.key == alive.key:
                raise StoreError("this host was silent for too long: connecting again") from None
            raise

    def _require_alone(self, change: Change) -> None:
        self._behind = True
        if what := concerns_others(change):
            raise StoreError(
                f"{what}, and the cluster's store is out of reach ({self.error}): try again "
                "when 'seaway cluster status' says online"
            )

    async def _believe(self, change: Change, revision: int) -> None:
        """Take over at once what we wrote ourselves; the watch says it again later."""
        records: list[tuple[str, bytes | None, int]] = [
            *((keys.block(b.network, b.cidr), encode(b), revision) for b in change.claim),
            *((keys.block(b.network, b.cidr), None, revision) for b in change.release),
            *((keys.network(n.id), encode(n), revision) for n in _networks(change.put)),
            *((keys.network(n.id), None, revision) for n in _networks(change.delete)),
        ]
        if records:
            await self.take(records)

    async def explain(self, err: Clash, cure: str = "") -> Conflict:
        """Say in the user's words who was faster.

        Args:
            cure: What to do about what is taken; another can be chosen if "".
        """
        kind = keys.kind(err.key)
        what = err.key.rsplit("/", 1)[1]
        if kind == "networks":
            words = "the network has just been removed: 'seaway network ls' shows the rest"
            return Taken(words, err.key)
        if kind not in ("addresses", "names", "network-names") or err.found is None:
            return Taken("another host was faster: try again", err.key)
        claim = decode(Claim, err.found.value, newer=True)
        host = self.commons.hosts.get(claim.host)
        where = f" on {host.name}" if host else ""
        if kind == "network-names":
            return Taken(f"network {what!r} exists already: choose another name", err.key)
        if not what:  # no address at all may be claimed
            return Conflict(
                f"the network is in use by {claim.name}{where}: remove that, or disconnect it first"
            )
        if kind == "addresses":
            words = f"address {what} is held by {claim.name}{where}: {cure or 'choose another'}"
        else:
            words = f"the network has a container {claim.name} already{where}: "
            words += cure or "choose another --name"
        return Taken(words, err.key)

    @property
    def taking_part(self) -> frozenset[NetworkId]:
        """The networks whose blocks and members are known here."""
        return frozenset(self._taking_part)

    def assume(self, networks: Iterable[NetworkId]) -> None:
        """Take part in networks as before the agent's start."""
        self._taking_part |= set(networks)

    def drop(self, network: NetworkId) -> None:
        """Take part in a network no more that has gone."""
        self._taking_part.discard(network)
        prefix = keys.on(network)
        self._mirror.forget([prefix])
        if task := self._listening.pop(prefix, None):
            task.cancel()

    # -- taking part in networks -------------------------------------------------------------

    async def take_part(self, network: NetworkId) -> None:
        """Know a network's blocks and members from now on; at once if we do already.

        Raises:
            StoreError: The store is out of reach, and nothing is known of it.
        """
        if network in self._taking_part:
            return
        if not self.online:
            if network not in self.commons.blocks:
                raise StoreError(
                    f"this host has no addresses of network {self.state.networks[network].name} "
                    f"yet, and the cluster's store is out of reach ({self.error}): try again when "
                    "'seaway cluster status' says online"
                )
            self._taking_part.add(network)
            return
        async with self._order:
            self._taking_part.add(network)
            try:
                touched = await self._read(keys.on(network))
            except BaseException:
                self._taking_part.discard(network)
                raise
            self._stir.set()
        await self._hooks.changed(touched)

    async def withdraw(self, network: NetworkId) -> None:
        """Take part in a network no more."""
        self.drop(network)
        touched = self.commons.forget_network(network)
        await self._hooks.changed(touched)

    def _prefixes(self) -> list[str]:
        return [keys.SHARED, *map(keys.on, self._taking_part)]

    async def _read(self, prefix: str) -> Touched:
        """Take up everything below *prefix*."""
        kvs, self._floors[prefix] = await self.etcd.range(prefix)
        found = [(kv.key, kv.value, kv.mod_revision) for kv in kvs]
        touched = self.commons.replace([prefix], found)
        self._mirror.replace([prefix], found)
        return touched

    async def claimed(self, network: NetworkId) -> set[str]:
        """Return every address of a network that somebody has, as text.

        Raises:
            StoreError: Out of reach.
        """
        prefix = keys.addresses(network)
        kvs, _ = await self.etcd.range(prefix)
        return {kv.key.removeprefix(prefix) for kv in kvs}

    async def take(self, records: Sequence[tuple[str, bytes | None, int]]) -> None:
        """Take over what we have just written."""
        self._mirror.put(records)
        await self._hooks.changed(self.commons.take(records))

    async def freshen(self, prefix: str) -> None:
        """Read what is below *prefix* anew, for a decision that must not build on old news.

        Raises:
            StoreError: Out of reach.
        """
        if prefix == keys.NETWORK_TURN:
            turn = await self.etcd.get(prefix)
            self.commons.revisions[prefix] = turn.mod_revision if turn else 0
            prefix = keys.NETWORKS
        async with self._order:
            kvs, _ = await self.etcd.range(prefix)
            found = [(kv.key, kv.value, kv.mod_revision) for kv in kvs]
            touched = self.commons.replace([prefix], found)
        await self._hooks.changed(touched)

    # -- staying in touch ---------------------------------------------------------------------

    async def run(self) -> None:
        """Reach the store, follow it, reach it again, until cancelled."""
        attempt = 0
        while not self.gone:
            try:
                seconds = await self._find()
                await self._be_member(seconds)
            except* SeawayError as group:
                attempt = 0 if self.online else attempt
                self._lose(_first(group))
            except* Exception as group:  # what comes from afar must not end the agent
                self._lose(_first(group))
                log.exception("cluster_session_crashed")
            pause = _BACKOFF[min(attempt, len(_BACKOFF) - 1)]
            attempt += 1
            await asyncio.sleep(pause * random.uniform(0.8, 1.2))  # noqa: S311 - not a secret
        self._lose(StoreError(REMOVED))

    def _lose(self, err: BaseException) -> None:
        self.error = str(err)
        self._stir.set()
        if self.online:
            self.online, self.since = False, time.time()
            log.warning("store_lost", error=self.error)

    async def _find(self) -> int:
        """Find our cluster there, and ourselves in it; return the seconds of our lease."""
        record = await self.etcd.get(keys.CLUSTER)
        known = self.commons.cluster
        if record is None:
            raise StoreError("the store there is empty: it is not this cluster's")
        found = decode(Cluster, record.value, newer=True)
        if known is not None and found.id != known.id:
            raise StoreError(f"the store there is of cluster {found.id}, not of {known.id}")
        if await self.etcd.get(keys.host(self.commons.me)) is None:
            mine = self.commons.hosts.get(self.commons.me)
            if mine is not None and not _is_revoked(mine, found):
                # Nobody removed us: it is an older state of the store, from a backup.
                raise StoreError(
                    "the store does not know this host: if it was restored from a backup, "
                    "'seaway cluster leave --force' and join again"
                )
            self.gone = True
            await self._hooks.removed()
            raise StoreError(REMOVED)
        await self._hold_lease(found.lease)
        return found.lease

    async def _meet(self) -> None:
        """Bring both sides to the same."""
        done: set[str] = set()
        # Which networks there are decides which ones this host takes part in.
        while left := [prefix for prefix in self._prefixes() if prefix not in done]:
            async with self._order:
                touched = await self._read(left[0])
            await self._hooks.changed(touched)
            done.add(left[0])
        await self._still.wait()  # what changes claim must not be taken for leftovers
        self._to_copy.clear()  # all of it is compared now
        self._behind = True
        while self._behind:  # what is done meanwhile is done alone, too
            self._behind = False
            await self._teller.tell_all()
        if not self.online:
            self.online, self.since, self.error = True, time.time(), ""
            log.info("store_reached")
        await self._hooks.connected()
        trim()

    async def _hold_lease(self, seconds: int) -> None:
        if await self.etcd.keepalive(self.lease) <= 0:
            await self.etcd.grant(seconds, self.lease)
        alive = Write(keys.alive(self.commons.me), b"1", self.lease)
        self._life = await self.etcd.txn([], [alive], [])

    async def _be_member(self, seconds: int) -> None:
        """Show that we live, meet, and hear the store's news, until one of them fails.

        A large cluster takes longer to read than a lease lasts.
        """
        async with asyncio.TaskGroup() as group:
            group.create_task(self._keep_alive(seconds), name="lease")
            await self._meet()
            group.create_task(self._copy_often(), name="copies")
            self._listening = {}
            while self.online:
                self._stir.clear()
                for prefix in self._prefixes():
                    if prefix not in self._listening:
                        hearing = group.create_task(self._hear(prefix), name=prefix)
                        self._listening[prefix] = hearing
                await self._stir.wait()
            raise StoreError(self.error)

    async def _keep_alive(self, seconds: int) -> None:
        while True:
            await asyncio.sleep(seconds / 4)
            if await self.etcd.keepalive(self.lease) <= 0:
                raise StoreError("this host was silent for too long: announcing everything again")

    async def _hear(self, prefix: str) -> None:
        if prefix not in self._floors:  # taken part in while we met, or just being read
            async with self._order:
                touched = await self._read(prefix)
            await self._hooks.changed(touched)
        async with aclosing(self.etcd.watch(prefix, self._floors[prefix] + 1)) as news:
            async for events in news:
                # Taken in whole, even if the network is left meanwhile.
                await asyncio.shield(self._take_in(prefix, events))
                if self.gone:
                    raise StoreError(REMOVED)
        raise StoreError("the store ended its news: connecting again")

    async def _take_in(self, prefix: str, events: Iterable[Event]) -> None:
        async with self._order:
            news = [(e.key, e.value, e.revision) for e in events if self._is_news(prefix, e)]
            if not news or prefix not in self._prefixes():  # left meanwhile
                return
            touched = self.commons.take(news)
            self._mirror.put(news)
            self._floors[prefix] = max(at for _, _, at in news)
            own = keys.host(self.commons.me)
            self.gone |= any(key == own and value is None for key, value, _ in news)
        if self.gone:
            await self._hooks.removed()
        else:
            await self._hooks.changed(touched)

    def _is_news(self, prefix: str, event: Event) -> bool:
        """What was read or written meanwhile is newer than what a watch still has to tell."""
        known = max(self._floors[prefix], self.commons.revisions.get(event.key, 0) - 1)
        return event.revision > known


def _is_revoked(host: Host, cluster: Cluster) -> bool:
    from seaway.cluster.pki import serial_text  # noqa: PLC0415 - costs memory, and is rare

    return serial_text(host.identity) in cluster.revoked


def _networks(items: Iterable[Item]) -> list[Network]:
    return [item for item in items if isinstance(item, Network) and is_shared(item)]


def _first(group: BaseException) -> BaseException:
    """Return what it was that went wrong first."""
    while isinstance(group, BaseExceptionGroup):
        group = group.exceptions[0]
    return group


class Taken(Conflict):
    """Somebody else has what was wanted.

    Attributes:
        key: Of the claim.
    """

    def __init__(self, message: str, key: str) -> None:
        super().__init__(message)
        self.key = key
