"""An agent's core without a kernel: the state is real, what would be applied is remembered.

core = bare_core(MemoryStore())
asyncio.run(networks.create(core, NetworkRequest(name="front")))
assert "network/..." in core.kernel.plans
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from seaway.agent.core import Core
from seaway.agent.events import Events
from seaway.agent.names import Names
from seaway.agent.state import State
from seaway.dns.answer import Directory
from seaway.errors import Conflict, KernelError, StoreError
from seaway.ipam.pools import Taken, site_prefix
from seaway.model.network import Address
from seaway.model.ports import PortSpec, PublishedPort, overlapping
from seaway.plan.carriers import UnderlayPath
from seaway.plan.host import HostFacts
from seaway.plan.resources import Resource
from seaway.store.port import Delete, Put, Record


class MemoryStore:
    """Implements Store.  Setting *full* makes every commit fail, as a full disk does."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.full = False
        self._revision = 0

    def load(self) -> list[Record]:
        """Everything, sorted by key."""
        return [self.records[key] for key in sorted(self.records)]

    def commit(self, changes: Iterable[Put | Delete]) -> int:
        """All or nothing."""
        if self.full:
            raise StoreError("the store is full")
        changes = list(changes)
        fresh = dict(self.records)
        for change in changes:
            if isinstance(change, Delete):
                fresh.pop(change.key, None)
                continue
            found = fresh.get(change.key)
            if (found.revision if found else 0) != change.revision:
                raise Conflict(change.key)
            fresh[change.key] = Record(change.key, change.value, self._revision + 1)
        self._revision += 1
        self.records = fresh
        return self._revision

    def close(self) -> None:
        """Nothing to let go of."""


class FakeKernel:
    """What the reconciler is asked for.  Setting *refuse* makes the next change fail.

    Attributes:
        plans: What every object has, by its name.
    """

    def __init__(self) -> None:
        self.plans: dict[str, tuple[Resource, ...]] = {}
        self.refuse = False
        self.kicks: list[str] = []

    async def change(self, name: str, resources: tuple[Resource, ...]) -> None:
        """Remember it."""
        if self.refuse and resources:
            self.refuse = False
            raise KernelError("create link", "swv-test", 22)
        self.plans.pop(name, None)
        if resources:
            self.plans[name] = resources

    async def change_all(self, plans: Mapping[str, tuple[Resource, ...]]) -> None:
        """Remember all of them."""
        for name, resources in plans.items():
            await self.change(name, resources)

    def drop_inner_links(self, name: str, ifnames: Container[str]) -> None:
        """Nothing is there."""

    def kick(self, why: str) -> None:
        """Remember it."""
        self.kicks.append(why)


class FakeBindings:
    """Ports without sockets; a free choice counts up from 40000."""

    def __init__(self) -> None:
        self.held: dict[str, tuple[PublishedPort, ...]] = {}
        self._next = 40000

    def bind(
        self, owner: str, name: str, specs: Iterable[PortSpec], before: Iterable[PublishedPort] = ()
    ) -> tuple[PublishedPort, ...]:
        """All or none."""
        self.release(owner)
        earlier = {(p.container_port, p.protocol, p.host_ip): p.host_port for p in before}
        found: list[PublishedPort] = []
        for spec in specs:
            again = earlier.get((spec.container_port, spec.protocol, spec.host_ip))
            self._next += 0 if spec.host_first or again else 1
            port = spec.bound_at(spec.host_first or again or self._next)
            if any(overlapping(port, p) for held in self.held.values() for p in held):
                raise Conflict(f"host port {port.host_port} is held")
            found.append(port)
        if found:
            self.held[owner] = tuple(found)
        return tuple(found)

    def release(self, owner: str) -> None:
        """Fine if it has none."""
        self.held.pop(owner, None)


class FakeServer:
    """A name server that only remembers where it listens."""

    def __init__(self) -> None:
        self.addresses: set[Address] = set()

    def listen(self, address: Address) -> None:
        """From now on."""
        self.addresses.add(address)

    def close_address(self, address: Address) -> None:
        """No more."""
        self.addresses.discard(address)

    def close_owner(self, owner: str) -> None:
        """No more."""


class FakeGround:
    """A host with one link, on which every other host is a neighbour.

    Attributes:
        addresses: Its own, in the order of preference.
    """

    def __init__(self, *addresses: str) -> None:
        self.addresses = tuple(map(ip_address, addresses))

    def close(self) -> None:
        """Nothing to let go of."""

    def paths(self, addresses: Iterable[Address]) -> dict[Address, UnderlayPath]:
        """Straight to those that it has an address of the same family for."""
        own = {a.version: a for a in self.addresses}
        return {
            address: UnderlayPath(
                to=address, link="eth0", source=own[address.version], mtu=1500, on_link=True
            )
            for address in addresses
            if address.version in own
        }

    def default_addresses(self) -> tuple[Address, ...]:
        """All it has."""
        return self.addresses

    def mac(self, addresses: Iterable[Address]) -> str:
        """Of the one link."""
        return "02:00:00:00:00:01" if set(addresses) & set(self.addresses) else ""

    def mtu(self, addresses: Iterable[Address]) -> int:
        """Of the one link."""
        return 1500 if set(addresses) & set(self.addresses) else 0


def bare_core(store: Any, run_dir: Path = Path("/nonexistent")) -> Core:
    """A core on *store*; ``core.kernel``, ``core.bindings`` are fakes of this module."""
    server: Any = FakeServer()
    kernel: Any = FakeKernel()
    bindings: Any = FakeBindings()
    ground: Any = FakeGround()
    return Core(
        state=State(store),
        kernel=kernel,
        bindings=bindings,
        names=Names(Directory(), server),
        events=Events(),
        host=HostFacts(),
        site=site_prefix(bytes(range(5))),
        run_dir=run_dir,
        taken=list[Taken],
        ground=ground,
    )
