"""Making, joining and leaving a cluster on somebody else's etcd: what is left of each attempt."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from seaway.agent import networks
from seaway.agent.cluster import ClusterService
from seaway.agent.member import MemberFolder
from seaway.agent.requests import InitRequest, JoinClusterRequest, NetworkRequest
from seaway.cluster.token import make_token
from seaway.errors import Conflict, InvalidSpec, SeawayError, StoreError
from seaway.store import keys
from seaway.store.codec import encode
from seaway.store.etcd_wire import Erase, Write
from tests.support.cluster import client, everything
from tests.support.core import FakeGround, MemoryStore, bare_core
from tests.support.etcd import etcds, free_ports, run
from tests.support.overlay import CLUSTER


@pytest.fixture(scope="module")
def url():
    """Where an etcd of one member answers."""
    with etcds() as (member,):
        yield member.url


@asynccontextmanager
async def service(folder, name="host1"):
    """An agent's part that makes, joins and leaves clusters."""
    core = bare_core(MemoryStore())
    core.ground = FakeGround("192.0.2.1")
    found = ClusterService(core, MemberFolder(folder), name)
    running = asyncio.create_task(found.run())
    try:
        yield core, found
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def nothing_left(core, folder):
    """Is it as if nothing had been tried?"""
    return core.cluster is None and core.state.shared is None and not list(folder.iterdir())


def test_joining_that_fails_leaves_nothing(tmp_path):
    """Nobody listens there, or the token is none: no key, no folder, no membership; and trying
    again is possible."""

    async def steps():
        (port,) = free_ports(1)
        token = str(make_token("f" * 64))
        async with service(tmp_path) as (core, found):
            for _ in range(2):
                with pytest.raises(SeawayError) as caught:
                    await found.join(
                        JoinClusterRequest(token=token, address="127.0.0.1", port=port)
                    )
                assert "\n" not in str(caught.value)
                assert nothing_left(core, tmp_path)
            with pytest.raises(InvalidSpec, match="token"):
                await found.join(JoinClusterRequest(token="x", address="127.0.0.1"))
            assert nothing_left(core, tmp_path)
            with pytest.raises(Conflict, match="in no cluster"):
                await found.leave(force=False)

    run(steps())


def test_making_a_cluster_that_fails_leaves_nothing_in_the_etcd(url, tmp_path, monkeypatch):
    """Nobody could join what is left of it, and the next attempt would be told to."""

    async def steps():
        async with client(url) as etcd:
            await etcd.txn([], [], [Erase("/seaway/", prefix=True)])
        async with service(tmp_path) as (core, found):
            begin = found._begin

            async def fail():
                await begin()
                raise StoreError("the cluster's store is out of reach")

            with monkeypatch.context() as patch:
                patch.setattr(found, "_begin", fail)
                with pytest.raises(StoreError, match="out of reach"):
                    await found.init(InitRequest(etcd=[url]))
            assert nothing_left(core, tmp_path)
            assert not {keys.kind(key) for key in await everything(url)} - {"alive"}
            await found.init(InitRequest(etcd=[url]))
            assert core.cluster.session.online
            await found.leave(force=True)

    run(steps())


def test_the_last_host_s_leave_erases_its_own_cluster_only(url, tmp_path):
    """An etcd of somebody else's may have been given to another cluster meanwhile."""

    async def steps():
        async with client(url) as etcd, service(tmp_path) as (_, found):
            await etcd.txn([], [], [Erase("/seaway/", prefix=True)])
            await found.init(InitRequest(etcd=[url]))
            await etcd.txn([], [Write(keys.CLUSTER, encode(CLUSTER))], [])
            await found.leave(force=True)
            assert {keys.CLUSTER, keys.TOKEN} <= set(await everything(url))
            await etcd.txn([], [], [Erase("/seaway/", prefix=True)])

            await found.init(InitRequest(etcd=[url]))
            await found.leave(force=True)
            assert not {keys.kind(key) for key in await everything(url)} - {"alive"}

    run(steps())


def test_a_cluster_on_somebody_else_s_etcd(url, tmp_path):
    """It is made once; a second is refused and leaves nothing; with its end the etcd has no
    record of hosts, and this host keeps what is its own."""

    async def steps():
        first, second = tmp_path / "1", tmp_path / "2"
        first.mkdir()
        second.mkdir()
        async with client(url) as etcd:
            await etcd.txn([], [], [Erase("/seaway/", prefix=True)])
        async with service(first) as (core, found):
            await networks.create(core, NetworkRequest(name="own", subnets=["10.77.1.0/24"]))
            ship = await found.init(InitRequest(etcd=[url]))
            assert ship.session.online
            assert core.cluster is ship
            assert ship.session is core.state.shared
            with pytest.raises(Conflict, match="already"):
                await found.init(InitRequest(etcd=[url]))
            assert core.cluster is ship

            async with service(second, "host2") as (other, late):
                with pytest.raises(Conflict, match="seaway cluster join"):
                    await late.init(InitRequest(etcd=[url]))
                assert nothing_left(other, second)

            await found.leave(force=True)
            assert nothing_left(core, first)
            assert core.state.has_network("own")
            assert ["cluster_made", "cluster_left"] == [
                e.kind for e in core.events._ring if "cluster" in e.kind
            ]
            left = {keys.kind(key) for key in await everything(url)}
            assert not left & {"hosts", "host-names", "host-numbers", "alive", "local"}

    run(steps())
