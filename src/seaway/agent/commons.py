"""What the hosts of a cluster have in common, as far as this host knows it.

Fed with records from the cluster's store, or from the copy that this host
keeps of them; says what each of them changes.  No I/O.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from ipaddress import ip_network

from seaway.errors import StoreError
from seaway.model.cluster import Announced, Block, Cluster, Host, HostId
from seaway.model.network import Network, NetworkId, Prefix
from seaway.model.sandbox import EndpointId
from seaway.store import keys
from seaway.store.codec import decode


@dataclass(slots=True)
class Touched:
    """What some records changed.

    Attributes:
        members: Some host's own record.
        hosts: Those that came, went, or are reached or own blocks otherwise than before.
        lives: Those that came to life or fell silent.
        networks: New value by id; None for one that has gone.
        announced, withdrawn: Endpoints of other hosts.
    """

    cluster: bool = False
    members: bool = False
    hosts: set[HostId] = field(default_factory=set)
    lives: set[HostId] = field(default_factory=set)
    networks: dict[NetworkId, Network | None] = field(default_factory=dict)
    announced: dict[EndpointId, Announced] = field(default_factory=dict)
    withdrawn: set[EndpointId] = field(default_factory=set)


class Commons:
    """The cluster's records in memory.

    Attributes:
        me: This host's id.
        blocks, announced: By network; only of those that this host takes part in.
        revisions: Of the records that this host may want to change.
        unreadable: Records that a newer Seaway has written, or a fault: why.
        lost: Endpoints of ours whose address somebody else has by now: why.
        unnamed: Endpoints of ours whose container's name somebody else has on their network:
            why.  That happens to those which were made while the store was out of reach.
    """

    def __init__(self, me: HostId) -> None:
        self.me = me
        self.cluster: Cluster | None = None
        self.hosts: dict[HostId, Host] = {}
        self.alive: set[HostId] = set()
        self.networks: dict[NetworkId, Network] = {}
        self.blocks: dict[NetworkId, dict[Prefix, Block]] = {}
        self.announced: dict[NetworkId, dict[EndpointId, Announced]] = {}
        self.revisions: dict[str, int] = {}
        self.unreadable: dict[str, str] = {}
        self.lost: dict[EndpointId, str] = {}
        self.unnamed: dict[EndpointId, str] = {}
        self._owned: dict[HostId, dict[NetworkId, dict[Prefix, Block]]] = {}

    @property
    def host(self) -> Host:
        """This host's own record."""
        return self.hosts[self.me]

    def owned(self, host: HostId) -> dict[NetworkId, dict[Prefix, Block]]:
        """Return a host's blocks by network."""
        return self._owned.get(host, {})

    def blocks_of(self, host: HostId, network: NetworkId) -> list[Block]:
        """List the blocks of a network that *host* owns, in order."""
        mine = self.owned(host).get(network, {}).values()
        return sorted(mine, key=lambda b: (b.cidr.version, int(b.cidr.network_address)))

    @property
    def owners(self) -> set[HostId]:
        """Every host with a block on a network that we take part in."""
        return {host for host, networks in self._owned.items() if any(networks.values())}

    def own_blocks(self, network: NetworkId, version: int) -> dict[Prefix, Block]:
        """Return this host's blocks of one family."""
        mine = self.blocks_of(self.me, network)
        return {b.cidr: b for b in mine if b.cidr.version == version}

    def host_called(self, name: str) -> Host | None:
        """Find a host by its name or id."""
        if found := self.hosts.get(HostId(name)):
            return found
        return next((h for h in self.hosts.values() if h.name == name), None)

    # -- taking records in ------------------------------------------------------------------

    def take(
        self, records: Iterable[tuple[str, bytes | None, int]], touched: Touched | None = None
    ) -> Touched:
        """Take up records: (key, value or None for one that has gone, revision)."""
        touched = touched or Touched()
        for key, value, revision in records:
            try:
                self._take_one(key, value, revision, touched)
                self.unreadable.pop(key, None)
            except StoreError as err:  # one that cannot be read must not hide all others
                self.unreadable[key] = str(err)
        return touched

    def _take_one(self, key: str, value: bytes | None, revision: int, touched: Touched) -> None:
        kind = keys.kind(key)
        if kind == "announced":
            self._announced(key, value, touched)
        elif kind == "blocks":
            self._block(key, value, revision, touched)
        elif kind == "hosts":
            self._host(key, value, revision, touched)
        elif kind == "alive":
            self._alive(HostId(key.removeprefix(keys.ALIVE)), value, touched)
        elif kind == "networks":
            self._network(key, value, revision, touched)
        elif kind == "cluster" and value is not None:
            self._note(key, revision)
            fresh = decode(Cluster, value, newer=True)
            touched.cluster |= fresh != self.cluster
            self.cluster = fresh

    def replace(
        self, prefixes: Iterable[str], records: Iterable[tuple[str, bytes, int]]
    ) -> Touched:
        """Take up everything there is below *prefixes*: what is not among *records* has gone."""
        there = list(records)
        named = {key for key, _, _ in there}
        gone = [(key, None, 0) for p in prefixes for key in self._known(p) if key not in named]
        return self.take([*gone, *there])

    def forget_network(self, network: NetworkId) -> Touched:
        """Take part in a network no more: forget its blocks and who is on it."""
        touched = Touched()
        for block in self.blocks.pop(network, {}).values():
            touched.hosts.add(block.host)
            self._owned.get(block.host, {}).pop(network, None)
            self.revisions.pop(keys.block(network, block.cidr), None)
        touched.withdrawn.update(self.announced.pop(network, {}))
        return touched

    def _known(self, prefix: str) -> Iterator[str]:
        shared = (
            *map(keys.host, self.hosts),
            *map(keys.alive, self.alive),
            *map(keys.network, self.networks),
        )
        yield from (key for key in shared if key.startswith(prefix))
        for network in self.blocks.keys() | self.announced.keys():
            if not keys.on(network).startswith(prefix) and not prefix.startswith(keys.on(network)):
                continue
            there = (
                *(keys.block(network, cidr) for cidr in self.blocks.get(network, ())),
                *(keys.announced(network, e) for e in self.announced.get(network, ())),
            )
            yield from (key for key in there if key.startswith(prefix))

    def _note(self, key: str, revision: int) -> None:
        if revision:
            self.revisions[key] = revision
        else:
            self.revisions.pop(key, None)

    def _host(self, key: str, value: bytes | None, revision: int, touched: Touched) -> None:
        identity = HostId(key.removeprefix(keys.HOSTS))
        self._note(key, revision if value is not None else 0)
        before = self.hosts.get(identity)
        if value is None:
            if identity != self.me:  # what we were last is what we go on as, by ourselves
                self.hosts.pop(identity, None)
        else:
            self.hosts[HostId(sys.intern(identity))] = decode(Host, value, newer=True)
        if before != self.hosts.get(identity):
            touched.members = True
            touched.hosts.add(identity)

    def _alive(self, identity: HostId, value: bytes | None, touched: Touched) -> None:
        if (value is not None) == (identity in self.alive):
            return
        (self.alive.add if value is not None else self.alive.discard)(identity)
        touched.lives.add(identity)

    def _network(self, key: str, value: bytes | None, revision: int, touched: Touched) -> None:
        identity = NetworkId(key.removeprefix(keys.NETWORKS))
        self._note(key, revision if value is not None else 0)
        fresh = None if value is None else decode(Network, value, newer=True)
        if fresh == self.networks.get(identity):
            return
        if fresh is None:
            self.networks.pop(identity, None)
        else:
            self.networks[identity] = fresh
        touched.networks[identity] = fresh

    def _block(self, key: str, value: bytes | None, revision: int, touched: Touched) -> None:
        network, tail = keys.network_of(key)
        cidr = ip_network(tail.replace("-", "/"))
        self._note(key, revision if value is not None else 0)
        there = self.blocks.setdefault(network, {})
        before = there.get(cidr)
        fresh = None if value is None else decode(Block, value, newer=True)
        if before == fresh:
            return
        if before is not None:
            self._owned[before.host][network].pop(cidr, None)
        if fresh is None:
            there.pop(cidr, None)
        else:
            there[cidr] = fresh
            self._owned.setdefault(fresh.host, {}).setdefault(network, {})[cidr] = fresh
        touched.hosts.update(b.host for b in (before, fresh) if b is not None)

    def _announced(self, key: str, value: bytes | None, touched: Touched) -> None:
        network, tail = keys.network_of(key)
        identity, there = EndpointId(tail), self.announced.setdefault(network, {})
        if value is None:
            if there.pop(identity, None):
                touched.announced.pop(identity, None)
                touched.withdrawn.add(identity)
            return
        fresh = decode(Announced, value, newer=True)
        if fresh.host != self.me and fresh != there.get(identity):
            there[fresh.id] = fresh  # the same text, which is kept once then
            touched.withdrawn.discard(identity)
            touched.announced[identity] = fresh
