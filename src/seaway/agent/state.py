"""The desired state in memory, and the one way to change it: store first, then here."""

from __future__ import annotations

from collections.abc import Callable, Container, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from seaway.errors import Conflict, NotFound
from seaway.model.cluster import Block
from seaway.model.network import Address, Driver, Network, NetworkId
from seaway.model.sandbox import Endpoint, EndpointId, Sandbox, SandboxId
from seaway.plan.sandboxes import Attachment
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.port import Delete, Put, Store

Item = Network | Sandbox | Endpoint


def is_shared(item: Item) -> bool:
    """Is it one of those that all hosts of a cluster have in common?"""
    return isinstance(item, Network) and item.driver is Driver.OVERLAY


def key_of(item: Item) -> str:
    """Return the store key, e.g. ``/seaway/v1/endpoints/<network>/<endpoint>``."""
    if isinstance(item, Network):
        return keys.network(item.id) if is_shared(item) else f"{keys.ROOT}/networks/{item.id}"
    if isinstance(item, Sandbox):
        return f"{keys.ROOT}/sandboxes/{item.id}"
    return f"{keys.ROOT}/endpoints/{item.network}/{item.id}"


PREFIX_MIN = 3
"""Digits of an id that stand for all of it: a mistyped short name should not hit somebody else."""

_KINDS: dict[str, type[Item]] = {
    "networks": Network,
    "sandboxes": Sandbox,
    "endpoints": Endpoint,
}


@dataclass(slots=True)
class Change:
    """What one operation writes: all of it or nothing."""

    put: list[Item] = field(default_factory=list)
    delete: list[Item] = field(default_factory=list)
    claim: list[Block] = field(default_factory=list)
    release: list[Block] = field(default_factory=list)


class Shared(Protocol):
    """The part of a change that a whole cluster must agree to."""

    async def commit(self, change: Change) -> None:
        """Write what others have to know of *change*, before this host believes it.

        Raises:
            Conflict: Somebody was faster.
            StoreError: The cluster's store is out of reach, and this cannot do without.
        """
        ...

    def doubt(self) -> None:
        """Hear that what was committed did not come to be on this host."""
        ...


class _Holders(Mapping[Address, str]):
    """Looks names up only when an error wants them."""

    def __init__(self, state: State, held: Mapping[Address, EndpointId]) -> None:
        self._state = state
        self._held = held

    def __getitem__(self, address: Address) -> str:
        endpoint = self._state.endpoints.get(self._held[address])
        if endpoint is None:
            return "a container that is being made"
        return self._state.sandboxes[endpoint.sandbox].name

    def __iter__(self) -> Iterator[Address]:
        return iter(self._held)

    def __len__(self) -> int:
        return len(self._held)

    def __contains__(self, address: object) -> bool:
        return address in self._held


class State:
    """Everything that was asked for on this host.

    Attributes:
        networks, sandboxes, endpoints: By id.  Networks of the whole cluster are among them.
        shared: Who has to agree to a change first; None on a host by itself.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._revisions: dict[str, int] = {}
        self.shared: Shared | None = None
        self.networks: dict[NetworkId, Network] = {}
        self.sandboxes: dict[SandboxId, Sandbox] = {}
        self.endpoints: dict[EndpointId, Endpoint] = {}
        self._network_names: dict[str, NetworkId] = {}
        self._sandbox_names: dict[str, SandboxId] = {}
        self._of_sandbox: dict[SandboxId, dict[EndpointId, None]] = {}
        self._of_network: dict[NetworkId, dict[EndpointId, None]] = {}
        self._held: dict[NetworkId, dict[Address, EndpointId]] = {}
        for record in store.load():
            kind = _KINDS.get(record.key.split("/")[3])
            if kind is not None:
                self._revisions[record.key] = record.revision
                self._put(decode(kind, record.value))

    # -- asking ---------------------------------------------------------------------------

    def network(self, name: str) -> Network:
        """Find a network by id, name, or the start of its id.

        Raises:
            NotFound: There is none, or more than one begins so.
        """
        if found := self.networks.get(NetworkId(name)):
            return found
        if found := self.networks.get(self._network_names.get(name, NetworkId(""))):
            return found
        hits = [n for i, n in self.networks.items() if i.startswith(name)]
        if len(name) >= PREFIX_MIN and len(hits) == 1:
            return hits[0]
        raise NotFound(f"no network called {name!r}: 'seaway network ls' shows those there are")

    def finds_network(self, name: str) -> bool:
        """Does network() find one?"""
        try:
            self.network(name)
        except NotFound:
            return False
        return True

    def has_network(self, name: str) -> bool:
        """Is a network called exactly so?"""
        return name in self._network_names

    def sandbox(self, name: str) -> Sandbox:
        """Find a sandbox by id, name, container id, or the start of one.

        Raises:
            NotFound: There is none, or more than one begins so.
        """
        if found := self.sandboxes.get(SandboxId(name)):  # callers inside know ids: no searching
            return found
        if found := self.sandboxes.get(self._sandbox_names.get(name, SandboxId(""))):
            return found
        hits = [
            s
            for i, s in self.sandboxes.items()
            if i.startswith(name) or s.container.startswith(name)
        ]
        if len(name) >= PREFIX_MIN and len(hits) == 1:
            return hits[0]
        raise NotFound(f"no container called {name!r}: 'seaway ps -a' shows those there are")

    @property
    def sandbox_names(self) -> Container[str]:
        """Every name that is taken."""
        return self._sandbox_names

    def attachments(self, sandbox: SandboxId) -> tuple[Attachment, ...]:
        """Return a sandbox's endpoints with their networks, in the order of their interfaces.

        The order in which they were made would not survive a restart.  What is known
        of a cluster may have been lost, and with it a network: such an endpoint is left out.
        """
        found = [e for e in self.endpoints_of(sandbox) if e.network in self.networks]
        found.sort(key=lambda e: (len(e.ifname), e.ifname))  # eth9 before eth10
        return tuple(Attachment(endpoint=e, network=self.networks[e.network]) for e in found)

    def endpoints_of(self, sandbox: SandboxId) -> list[Endpoint]:
        """List a sandbox's endpoints, also those whose network is not known."""
        return [self.endpoints[i] for i in self._of_sandbox.get(sandbox, ())]

    def members(self, network: NetworkId) -> Iterator[Endpoint]:
        """Yield the endpoints on a network."""
        return (self.endpoints[i] for i in self._of_network.get(network, ()))

    def holders(self, network: NetworkId) -> Mapping[Address, str]:
        """Map every address taken on a network to its holder's name; a view, made in no time."""
        return _Holders(self, self._held.get(network, {}))

    # -- changing -------------------------------------------------------------------------

    async def commit(self, change: Change) -> None:
        """Write *change* to the stores, and only then here.

        Raises:
            Conflict: Another writer was faster.
            StoreError: A store is away or full; nothing has changed.
        """
        with self._reserved(change.put):
            if self.shared is not None:
                await self.shared.commit(change)
            try:
                self._write(change)
            except BaseException:
                if self.shared is not None:
                    self.shared.doubt()
                raise

    def _write(self, change: Change) -> None:
        """Networks of the whole cluster are in its own store, and not in this host's."""
        gone = [item for item in change.delete if not is_shared(item)]
        puts = {key_of(item): item for item in change.put if not is_shared(item)}
        writes: list[Put | Delete] = [Delete(key_of(item)) for item in gone]
        writes += [Put(k, encode(v), self._revisions.get(k, 0)) for k, v in puts.items()]
        if writes:
            revision = self._store.commit(writes)
            self._revisions.update(dict.fromkeys(puts, revision))
        for item in change.delete:
            self._revisions.pop(key_of(item), None)
            self._drop(item)
        for item in change.put:
            self._put(item)

    def learn(self, network: Network) -> None:
        """Take up a network that the cluster has."""
        self._put(network)

    def unlearn(self, network: NetworkId) -> None:
        """Forget a network that the cluster has no more.  Endpoints of ours on it stay."""
        if found := self.networks.get(network):
            self._drop(found)

    async def forget_endpoint(self, endpoint: Endpoint) -> None:
        """Forget an endpoint whose network has gone."""
        await self.commit(Change(delete=[endpoint]))

    def records(self) -> dict[str, bytes]:
        """Return everything that is this host's alone, by key, as it is stored."""
        own: list[Item] = [n for n in self.networks.values() if not is_shared(n)]
        own += [*self.sandboxes.values(), *self.endpoints.values()]
        return {key_of(item): encode(item) for item in own}

    @contextmanager
    def _reserved(self, items: list[Item]) -> Iterator[None]:
        """Keep names and addresses from others while the stores are asked.

        Raises:
            Conflict: One is taken, or somebody else is about to take it.
        """
        undo: list[Callable[[], object]] = []
        try:
            for item in items:
                self._reserve(item, undo)
            yield
        except BaseException:
            for step in undo:
                step()
            raise

    def _reserve(self, item: Item, undo: list[Callable[[], object]]) -> None:
        if isinstance(item, Endpoint):
            held = self._held.setdefault(item.network, {})
            for address in item.addresses:
                if held.setdefault(address, item.id) != item.id:
                    raise Conflict(f"address {address} has just been taken: try again")
                if item.id not in self.endpoints:
                    undo.append(lambda a=address, h=held: h.pop(a, None))  # type: ignore[misc]
            return
        names: dict[str, SandboxId] | dict[str, NetworkId] = (
            self._sandbox_names if isinstance(item, Sandbox) else self._network_names
        )
        if item.name not in names:
            undo.append(lambda: names.pop(item.name, None))
        if names.setdefault(item.name, item.id) != item.id:  # type: ignore[arg-type]
            raise Conflict(f"the name {item.name!r} has just been taken: choose another")

    def _put(self, item: Item) -> None:
        if isinstance(item, Network):
            self.networks[item.id] = item
            self._network_names.setdefault(item.name, item.id)
        elif isinstance(item, Sandbox):
            self.sandboxes[item.id] = item
            self._sandbox_names[item.name] = item.id
        else:
            if old := self.endpoints.get(item.id):
                self._drop(old)
            self.endpoints[item.id] = item
            self._of_sandbox.setdefault(item.sandbox, {})[item.id] = None
            self._of_network.setdefault(item.network, {})[item.id] = None
            held = self._held.setdefault(item.network, {})
            held.update(dict.fromkeys(item.addresses, item.id))

    def _drop(self, item: Item) -> None:
        if isinstance(item, Network):
            self.networks.pop(item.id, None)
            if self._network_names.get(item.name) == item.id:
                del self._network_names[item.name]
                for other in self.networks.values():  # the cluster's, that this one hid
                    if other.name == item.name:
                        self._network_names[item.name] = other.id
        elif isinstance(item, Sandbox):
            self.sandboxes.pop(item.id, None)
            self._sandbox_names.pop(item.name, None)
            self._of_sandbox.pop(item.id, None)
        elif old := self.endpoints.pop(item.id, None):
            self._of_sandbox.get(old.sandbox, {}).pop(old.id, None)
            self._of_network.get(old.network, {}).pop(old.id, None)
            for address in old.addresses:
                self._held.get(old.network, {}).pop(address, None)

    def require_free_name(self, name: str) -> None:
        """Raise Conflict if a container is called *name* already."""
        if name in self._sandbox_names:
            raise Conflict(
                f"the name {name!r} is taken: remove that container or choose another --name"
            )
