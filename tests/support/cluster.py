"""Hosts of a cluster in one process: real sessions and a real etcd, no kernel.

async with cluster(etcd.url, "host1", "host2") as (one, two):
    await one.network("blue")                    # 10.9.0.0/24, in clear
    await one.run("web", "blue")
    await until(lambda: "web" in two.names())
    one.cut()                                    # from the store
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from seaway.agent import networks, sandboxes
from seaway.agent.core import Core, now
from seaway.agent.gate import host_claims
from seaway.agent.member import Member, MemberFolder
from seaway.agent.membership import Membership
from seaway.agent.requests import EndpointRequest, NetworkRequest, SandboxRequest
from seaway.agent.session import Session
from seaway.model.cluster import Cluster, Host, HostId
from seaway.model.network import Network
from seaway.model.sandbox import Endpoint, Sandbox
from seaway.store import keys
from seaway.store.codec import encode
from seaway.store.etcd import Etcd
from seaway.store.etcd_wire import Erase, Kv, Write
from tests.support.core import FakeGround, MemoryStore, bare_core
from tests.support.overlay import CLUSTER, host


class Link:
    """A host's connections to the store, which can be cut.

    Attributes:
        url: Where the store seems to be.
    """

    def __init__(self, to: str) -> None:
        parts = urlsplit(to)
        self._to = parts.hostname, parts.port
        self._server: asyncio.Server | None = None
        self._ends: set[asyncio.StreamWriter] = set()
        self._port = 0

    @property
    def url(self) -> str:
        """For the client."""
        return f"http://127.0.0.1:{self._port}"

    async def open(self) -> None:
        """Let connections through; at the port of before."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self._port = self._server.sockets[0].getsockname()[1]

    def cut(self) -> None:
        """End all connections, and refuse new ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for end in self._ends:
            end.transport.abort()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_connection(*self._to)
        self._ends |= {writer, far_writer}
        try:
            await asyncio.gather(_pump(reader, far_writer), _pump(far_reader, writer))
        except (OSError, asyncio.CancelledError):
            pass  # cut, or the test is over
        finally:
            self._ends -= {writer, far_writer}
            for end in (writer, far_writer):
                end.close()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65536):
        writer.write(data)
        await writer.drain()
    writer.close()


class Node:
    """One host: its core, its part in the cluster, and what users do there."""

    def __init__(self, store: str, record: Host, folder: Path, lease: int) -> None:
        self.link = Link(store)
        self.record = record
        self.lease = lease
        self.disk = MemoryStore()
        self.peers: list[Node] = []
        self._folder = folder
        self._running: asyncio.Task[None] | None = None
        self.core: Core
        self.ship: Membership

    @property
    def session(self) -> Session:
        """The conversation with the store."""
        return self.ship.session

    async def start(self, *, wait: bool = True) -> None:
        """Start the agent's part, with what is on the disk; wait until the store is reached."""
        if not self.link._port:
            await self.link.open()
        self.core = bare_core(self.disk)
        self.core.ground = FakeGround(*map(str, self.record.addresses))  # type: ignore[assignment]
        member = Member(
            host=self.record.id,
            cluster=CLUSTER.id,
            name=self.record.name,
            number=self.record.number,
            etcd=(self.link.url,),
            foreign=True,
        )
        self.ship = Membership(self.core, MemberFolder(self._folder), member)
        self.ship.overlay.encryption = False
        self.ship.stores.renew = _nothing  # type: ignore[method-assign]
        self.core.cluster, self.core.state.shared = self.ship, self.ship.session
        await self.ship.prepare()
        self._running = asyncio.create_task(self.session.run())
        if wait:
            await until(lambda: self.session.online)

    async def stop(self) -> None:
        """End it without a word, as a kill does; records stay until its lease ends."""
        if self._running is not None:
            self._running.cancel()
            with suppress(asyncio.CancelledError):
                await self._running
            self._running = None
            await self.ship.close()

    async def restart(self, *, wait: bool = True) -> None:
        """End it, and start it with what is on the disk."""
        await self.stop()
        await self.start(wait=wait)

    async def cut(self) -> None:
        """Keep it from the store; returns when it has noticed."""
        self.link.cut()
        await until(lambda: not self.session.online)

    async def heal(self) -> None:
        """Let it reach the store again; returns when it has."""
        await self.link.open()
        await until(lambda: self.session.online)

    # -- what users do ----------------------------------------------------------------------

    async def network(self, name: str, cidr: str = "10.9.0.0/24", **more: Any) -> Network:
        """Make a network of the cluster's, in clear, that its other hosts know by then."""
        request = NetworkRequest(
            name=name,
            driver="overlay",
            subnets=[cidr] if cidr else [],
            **{"ipv6": False, "options": {"encrypted": "false"}} | more,
        )
        made = await networks.create(self.core, request)
        await until(lambda: all(p.has(made) for p in self.peers if p.session.online))
        return made

    def has(self, network: Network) -> bool:
        """Does it know a network?"""
        return network.id in self.core.state.networks

    async def remove_network(self, name: str) -> Network:
        """Remove it; other hosts know by then."""
        gone = await networks.remove(self.core, name)
        await until(lambda: not any(p.has(gone) for p in self.peers if p.session.online))
        return gone

    async def run(self, name: str, *where: str, ip: str = "", **more: Any) -> Sandbox:
        """Run a container on networks; *ip* is its address on the first."""
        wanted = [EndpointRequest(network=network) for network in where]
        if ip:
            wanted[0].ip = ip
        request = SandboxRequest(name=name, networks=wanted, creator=os.getpid(), **more)
        made = await sandboxes.create(self.core, request)
        return await sandboxes.started(self.core, made.id)

    async def remove(self, name: str) -> None:
        """Remove a container."""
        await sandboxes.remove(self.core, name)

    # -- what there is ----------------------------------------------------------------------

    def endpoint(self, name: str) -> Endpoint:
        """The first endpoint of a container of this host."""
        return self.core.state.attachments(self.core.state.sandbox(name).id)[0].endpoint

    def v4(self, name: str) -> str:
        """Its IPv4 address."""
        return str(self.endpoint(name).v4)

    def names(self) -> set[str]:
        """Every container of other hosts that this one knows, as it answers for them."""
        return {
            found.name
            for there in self.ship.commons.announced.values()
            for found in there.values()
            if found.names
        }

    def blocks(self, network: str, host: Node | None = None) -> list[str]:
        """The blocks of a network that a host, by default this one, has as this one knows it."""
        of = (host or self).record.id
        where = self.core.state.network(network).id
        return [str(b.cidr) for b in self.ship.commons.blocks_of(of, where)]

    def lost(self) -> dict[str, str]:
        """Containers that are fenced, and why."""
        state = self.core.state
        return {
            state.sandboxes[state.endpoints[e].sandbox].name: why
            for e, why in self.ship.lost.items()
            if e in state.endpoints
        }


async def _nothing() -> None:
    """Its certificate is nobody's matter here."""


async def until(holds: Callable[[], object], seconds: float = 10) -> None:
    """Wait until *holds()* is true."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it does not come to that"
        await asyncio.sleep(0.005)


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Etcd]:
    """A client of the store's own."""
    etcd = Etcd([url], None)
    try:
        yield etcd
    finally:
        await etcd.aclose()


async def everything(url: str) -> dict[str, Kv]:
    """All that is in the store."""
    async with client(url) as etcd:
        found, _ = await etcd.range(f"{keys.ROOT}/")
        return {kv.key: kv for kv in found}


async def settled(url: str, holds: Callable[[dict[str, Kv]], object], seconds: float = 5) -> None:
    """Wait until *holds* is true of everything in the store: copies of hosts' own come late."""
    deadline = time.monotonic() + seconds
    while not holds(found := await everything(url)):
        assert time.monotonic() < deadline, sorted(found)
        await asyncio.sleep(0.01)


async def found_cluster(url: str, hosts: Sequence[Host], lease: int = 20) -> Cluster:
    """Have the store hold a cluster of *hosts* and nothing else."""
    made = replace(CLUSTER, lease=lease, created=now())
    async with client(url) as etcd:
        for one in hosts:
            await etcd.revoke(Session.lease_number(one.id))
        first = {keys.CLUSTER: encode(made)}
        for one in hosts:
            first |= dict(host_claims(one))
        await etcd.txn([], [], [Erase(f"{keys.ROOT}/", prefix=True)])
        await etcd.txn([], [Write(key, value) for key, value in first.items()], [])
    return made


@asynccontextmanager
async def cluster(url: str, *names: str, lease: int = 20) -> AsyncIterator[list[Node]]:
    """A cluster of hosts that have reached the store, which is emptied first."""
    hosts = [
        replace(
            host(name, n),
            id=HostId(f"{n:012x}"),
            addresses=(ip_address(f"192.0.2.{n}"),),
            identity=f"{n:064x}",
        )
        for n, name in enumerate(names, 1)
    ]
    await found_cluster(url, hosts, lease)
    with tempfile.TemporaryDirectory() as folder:
        nodes = [Node(url, one, Path(folder) / one.name, lease) for one in hosts]
        for node in nodes:
            node.peers = [other for other in nodes if other is not node]
        try:
            async with asyncio.TaskGroup() as group:
                for node in nodes:
                    group.create_task(node.start())
            yield nodes
        finally:
            for node in nodes:
                await node.stop()
                node.link.cut()
