"""What a real etcd is asked for by two at once, and what it does later than anybody wants it."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

import pytest

from seaway.agent.gate import Gate
from seaway.cluster.joining import Admission, JoinRequest
from seaway.errors import Conflict
from seaway.store import keys
from seaway.store.etcd_wire import Clash, Unsure
from tests.support.cluster import client, cluster, everything, until
from tests.support.etcd import etcds, run

ROUNDS = 20


@pytest.fixture(scope="module")
def url():
    """Where an etcd of one member answers."""
    with etcds() as (member,):
        yield member.url


def request(name: str, number: int) -> JoinRequest:
    """What the join server hands to the gate."""
    return JoinRequest(name=name, csr="", addresses=(f"192.0.2.{number}",), identity=str(number))


def test_of_two_hosts_with_one_name_one_is_let_in(url):
    """Two ask at two doors at the same instant; those with other names get other numbers."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            gates = [Gate(node.ship) for node in (one, two)]
            for n in range(ROUNDS):
                asked = [request(f"new{n}", 100 + n), request(f"new{n}", 200 + n)]
                peers = [ip_address(r.addresses[0]) for r in asked]
                found = await asyncio.gather(
                    *(g.admit(r, p) for g, r, p in zip(gates, asked, peers, strict=True)),
                    return_exceptions=True,
                )
                (won,) = [f for f in found if isinstance(f, Admission)]
                (why,) = [f for f in found if not isinstance(f, Admission)]
                assert isinstance(why, Conflict), repr(why)
                assert f"a host called 'new{n}' is in the cluster already" in str(why)
                assert 3 + n == won.number

            asked = [request("left", 150), request("right", 151)]
            found = await asyncio.gather(
                *(g.admit(r, ip_address(r.addresses[0])) for g, r in zip(gates, asked, strict=True))
            )
            assert {ROUNDS + 3, ROUNDS + 4} == {admission.number for admission in found}

    run(steps())


def test_what_a_store_does_too_late_is_void(url):
    """A member stands still with a request; meanwhile the host connects to another, does it there
    and undoes it.  When the first goes on, nothing comes of it."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            etcd, late = one.session.etcd, []
            txn = etcd.txn

            async def still(*asked):
                if not late:
                    late.append(asked)
                    raise Unsure("the answer never came")
                return await txn(*asked)

            etcd.txn = still
            await one.run("api", "blue")
            await until(lambda: one.session.online)
            await until(lambda: {"web", "api"} == two.names())
            await one.remove("api")

            async with client(url) as other:
                with pytest.raises(Clash) as caught:
                    await other.txn(*late[0])
            assert keys.alive(one.record.id) == caught.value.key
            held = [k for k, kv in (await everything(url)).items() if b"api" in kv.value]
            assert [] == [k for k in held if keys.kind(k) != "local"]

    run(steps())
