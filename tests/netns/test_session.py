"""What hosts agree on through a real etcd: who has what, what is done alone, what is told later."""

from __future__ import annotations

import asyncio
import itertools
import json
import urllib.request
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from seaway.agent import sandboxes
from seaway.agent.state import State
from seaway.cluster.pki import serial_text
from seaway.errors import Conflict, Exhausted, InvalidSpec, NotFound, SeawayError, StoreError
from seaway.ipam.blocks import lendable
from seaway.model.cluster import Block, Claim, Cluster
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.etcd_wire import Compacted, Erase, Unsure, Write
from tests.support.cluster import client, cluster, everything, found_cluster, settled, until
from tests.support.etcd import etcds, run
from tests.support.overlay import CLUSTER

ROUNDS = 12


@pytest.fixture(scope="module")
def url():
    """Where an etcd of one member answers."""
    with etcds() as (member,):
        yield member.url


async def outcomes(*works):
    """Do all at the same instant; return what came of each, errors included."""
    return await asyncio.gather(*works, return_exceptions=True)


def winners(found):
    """Check that what did not succeed was refused in one line; return what succeeded."""
    for one in found:
        if isinstance(one, BaseException):
            assert isinstance(one, Conflict | NotFound | StoreError | Exhausted), repr(one)
            assert "\n" not in str(one)
    return [one for one in found if not isinstance(one, BaseException)]


def shared(records):
    """Everything of the store that is not a copy of one host's own."""
    return {key: kv for key, kv in records.items() if keys.kind(key) != "local"}


def local(records):
    """The copies of what hosts have alone."""
    return {key: kv.value for key, kv in records.items() if keys.kind(key) == "local"}


def copies(node):
    """What the store should have of what a host has alone."""
    return {keys.local(node.record.id, k): v for k, v in node.core.state.records().items()}


# -- who has what -------------------------------------------------------------------------------


def test_a_name_an_address_and_a_network_s_name_have_one_holder(url):
    """Two hosts want the same at the same instant: one has it, the other is told who."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            for n in range(ROUNDS):
                found = await outcomes(
                    one.run("same", "blue", ip=f"10.9.0.{20 + n}"),
                    two.run("other", "blue", ip=f"10.9.0.{20 + n}"),
                )
                (won,) = winners(found)
                (why,) = (str(f) for f in found if isinstance(f, Exception))
                host = "host1" if won.name == "same" else "host2"
                assert f"address 10.9.0.{20 + n} is held by {won.name} on {host}" in why
                await (one if won.name == "same" else two).remove(won.name)

                found = await outcomes(one.run("web", "blue"), two.run("Web", "blue"))
                (won,) = winners(found)
                (why,) = (str(f) for f in found if isinstance(f, Exception))
                host = "host1" if won.name == "web" else "host2"
                assert f"has a container {won.name} already on {host}: choose another" in why
                await (one if won.name == "web" else two).remove(won.name)

                found = await outcomes(
                    one.network(f"n{n}", f"10.{100 + n}.0.0/24"),
                    two.network(f"n{n}", f"10.{200 + n}.0.0/24"),
                )
                assert 1 == len(winners(found))

    run(steps())


def test_overlapping_subnets_are_made_once(url):
    """Whichever host is first; both succeed when they do not overlap, without a retry of theirs."""

    async def steps():
        async with cluster(url, "host1", "host2", "host3") as (one, two, three):
            for n in range(ROUNDS):
                found = await outcomes(
                    one.network(f"a{n}", f"10.{n}.0.0/16"),
                    two.network(f"b{n}", f"10.{n}.7.0/24"),
                    three.network(f"c{n}", f"11.{n}.0.0/24"),
                )
                names = {network.name for network in winners(found)}
                assert f"c{n}" in names
                assert 2 == len(names)
                (why,) = (str(f) for f in found if isinstance(f, Exception))
                assert "overlaps" in why or "in use" in why or "taken" in why, why
            chosen = await outcomes(
                *(node.network("x" + node.record.name, "") for node in (one, two, three))
            )
            assert 3 == len({n.subnets[0].cidr for n in winners(chosen)})

    run(steps())


def test_a_block_has_one_owner(url):
    """Two hosts whose users choose addresses in one block that nobody owns: both get theirs."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            for _ in range(ROUNDS):
                await one.network("blue")
                found = await outcomes(
                    one.run("web", "blue", ip="10.9.0.70"), two.run("db", "blue", ip="10.9.0.71")
                )
                assert 2 == len(winners(found)), found
                await until(lambda: "db" in one.names() and "web" in two.names())
                for by in (one, two):
                    owned = [by.blocks("blue", of) for of in (one, two)]
                    assert ["10.9.0.64/28"] in owned
                    assert ["10.9.0.70/32"] in owned or ["10.9.0.71/32"] in owned
                await outcomes(one.remove("web"), two.remove("db"))
                await one.remove_network("blue")

    run(steps())


def test_a_network_is_used_to_its_last_address(url):
    """Three hosts fill it at once: nobody has an address twice, and nobody fails before it is full;
    then each is told that it is; what is given back in the half that a host lends, another gets."""

    async def steps():
        async with cluster(url, "host1", "host2", "host3") as nodes:
            await nodes[0].network("blue", "10.9.0.0/27")
            turns = itertools.count()

            async def fill(node):
                made = []
                while True:
                    try:
                        made.append(await node.run(f"c{next(turns)}", "blue"))
                    except Exhausted:
                        return made

            made = await asyncio.gather(*(fill(node) for node in nodes))

            for node in nodes:
                with pytest.raises(Exhausted, match=r"10\.9\.0\.0/27.*3 hosts"):
                    await node.run("none", "blue")
            held = [n.v4(s.name) for n, mine in zip(nodes, made, strict=True) for s in mine]
            assert sorted(map(ip_address, held)) == list(ip_network("10.9.0.0/27").hosts())[1:]
            assert all(made), "every host has some"
            network = nodes[0].core.state.network("blue").id
            (block, *_) = nodes[0].ship.commons.own_blocks(network, 4)
            first, last = lendable(block)
            (free, *_) = (
                s.name for s in made[0] if first <= int(nodes[0].endpoint(s.name).v4) <= last
            )
            address = nodes[0].v4(free)
            await nodes[0].remove(free)
            await nodes[2].run("last", "blue")
            assert address == nodes[2].v4("last")
            with pytest.raises(Conflict, match="held by last on host3"):
                await nodes[1].run("more", "blue", ip=address)

    run(steps())


def test_a_network_that_goes_while_somebody_joins_it(url):
    """Either it goes and the container is refused, or it stays with its container."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            outcome = set()
            for n in range(2 * ROUNDS):
                await one.network("blue")
                if n % 2:  # it has joined it before
                    await two.run("first", "blue")
                    await two.remove("first")
                gone, ran = await outcomes(one.remove_network("blue"), two.run("web", "blue"))
                winners([gone, ran])
                left = shared(await everything(url))
                there = {key for key in left if keys.kind(key) in ("blocks", "addresses", "names")}
                if isinstance(gone, Exception):
                    assert not isinstance(ran, Exception)
                    assert "web (on host2)" in str(gone) or "remove" in str(gone), gone
                    await two.remove("web")
                    await one.remove_network("blue")
                else:
                    assert isinstance(ran, Exception)
                    assert set() == there
                outcome.add(isinstance(gone, Exception))
                assert [] == list(two.core.state.endpoints)
            assert outcome

    run(steps())


def test_what_is_removed_leaves_nothing(url):
    """Containers and their network: of neither is a key left, in no host's memory either."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            before = await everything(url)
            await one.network("blue")
            await one.run("web", "blue", ip="10.9.0.70")
            await two.run("db", "blue", ip="10.9.0.71")  # borrowed
            await until(lambda: "db" in one.names() and "web" in two.names())
            with pytest.raises(Conflict, match=r"in use by db \(on host2\)"):
                await outcomes_of(one.remove("web"), one.remove_network("blue"))
            await two.remove("db")
            await until(lambda: set() == one.names())
            await one.remove_network("blue")

            left = shared(await everything(url))
            assert set(left) - {keys.NETWORK_TURN} == set(shared(before))
            for node in (one, two):
                commons = node.ship.commons
                assert not any(commons.blocks.values())
                assert not any(commons.announced.values())
                assert {} == commons.networks

    async def outcomes_of(*works):
        for work in works:
            await work

    run(steps())


# -- without the store --------------------------------------------------------------------------


def test_what_is_done_alone_is_told_later(url):
    """A host without the store runs and removes containers in its own block; others hear of it
    when it is back, and of what has gone meanwhile."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("old", "blue")
            await two.run("db", "blue")
            await until(lambda: "old" in two.names())
            await one.cut()

            made = await one.run("web", "blue")
            await one.remove("old")
            assert "10.9.0.3" == one.v4("web")
            assert {"old"} == two.names()

            await one.heal()
            await until(lambda: {"web"} == two.names())
            found = await everything(url)
            where = one.endpoint("web").network
            assert keys.address(where, ip_address("10.9.0.3")) in found
            assert keys.address(where, ip_address("10.9.0.2")) not in found
            assert keys.name(where, "old") not in found
            mine = keys.local(one.record.id, f"{keys.ROOT}/sandboxes/")
            assert [mine + made.id] == [key for key in found if key.startswith(mine)]

    run(steps())


def test_what_was_borrowed_is_given_back_later(url):
    """A container that goes while its host is alone: its address is its lender's again."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await two.run("db", "blue")
            await one.run("web", "blue", ip="10.9.0.20")
            await one.run("api", "blue", ip="10.9.0.21")
            await until(lambda: {"web", "api"} == two.names())
            assert "10.9.0.20/32" in two.blocks("blue", one)
            await one.cut()
            await one.remove("web")
            await one.heal()
            await until(lambda: two.blocks("blue", one) == ["10.9.0.21/32"] == one.blocks("blue"))
            await two.run("web", "blue", ip="10.9.0.20")

    run(steps())


def test_alone_a_host_gives_out_the_front_half_of_its_blocks(url):
    """The back half may be lent meanwhile; then it says what is missing, and changes nothing."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, _):
            await one.network("blue")
            await one.run("first", "blue")
            await one.cut()
            for n in range(6):  # 10.9.0.0/29 is the front half, .1 the gateway's, .2 first's
                if n == 5:
                    with pytest.raises(StoreError, match="out of reach") as caught:
                        await one.run(f"c{n}", "blue")
                    assert "\n" not in str(caught.value)
                else:
                    await one.run(f"c{n}", "blue")
            last = {one.v4(f"c{n}") for n in range(5)}
            assert {f"10.9.0.{n}" for n in range(3, 8)} == last
            assert 6 == len(one.core.state.sandboxes)

            await one.heal()
            await one.run("c5", "blue")
            assert "10.9.0.8" == one.v4("c5")

    run(steps())


def test_what_cannot_be_done_alone_changes_nothing(url):
    """One line each: what is missing, and that it is the store."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            blue = await one.network("blue")
            await two.network("red", "10.8.0.0/24")
            await one.run("web", "blue")
            await settled(url, lambda there: copies(one) == local(there))
            await one.cut()
            before = [
                dict(one.disk.records),
                dict(one.core.state.networks),
                dict(one.core.kernel.plans),
            ]
            stored = await everything(url)

            for work in (
                one.network("green", "10.7.0.0/24"),
                one.network("green", ""),
                one.remove_network("red"),
                one.run("db", "red"),  # nothing is known of who is there
                one.run("db", "blue", ip="10.9.0.200"),
                one.run("db", "blue", "red"),
            ):
                with pytest.raises(StoreError, match=r"out of reach|does not answer") as caught:
                    await work
                assert "\n" not in str(caught.value)
            with pytest.raises(Conflict, match="in use by web"):
                await one.remove_network("blue")
            for name, work in (
                ("green", one.network("green", "10.7.0.0/24")),
                ("red", one.remove_network("red")),
            ):
                words = f"^network {name} is the whole cluster's, .* \\(.+\\): try again when"
                with pytest.raises(StoreError, match=words):
                    await work

            after = [
                dict(one.disk.records),
                dict(one.core.state.networks),
                dict(one.core.kernel.plans),
            ]
            assert before == after
            assert not one.core.bindings.held
            assert "db" not in one.core.state.sandbox_names
            await one.heal()
            assert stored.keys() == (await everything(url)).keys()
            assert blue == one.core.state.network("blue")

    run(steps())


def test_a_store_that_answers_no_more_is_noticed_by_what_asks(url):
    """The first change that finds out is done alone, or refused; nothing hangs."""

    async def steps():
        async with cluster(url, "host1") as (one,):
            await one.network("blue")
            await one.run("web", "blue")
            one.link.cut()
            assert one.session.online
            await one.run("db", "blue")
            assert not one.session.online
            await one.heal()
            assert keys.name(one.endpoint("db").network, "db") in await everything(url)

    run(steps())


# -- coming back --------------------------------------------------------------------------------


def test_a_host_whose_lease_ended_announces_everything_again(url):
    """Names and addresses go with the lease, blocks and the host do not; all of it comes back."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            web = await one.run("web", "blue")
            await two.run("db", "blue")
            await until(lambda: "web" in two.names() and one.record.id in two.ship.commons.alive)
            await one.cut()
            await die(url, one)
            await until(lambda: one.record.id not in two.ship.commons.alive)
            await until(lambda: set() == two.names())
            assert ["10.9.0.0/28"] == two.blocks("blue", one)
            assert "host1" in {h.name for h in two.ship.commons.hosts.values()}
            left = await everything(url)
            where = one.endpoint("web").network
            assert not {keys.address(where, one.endpoint("web").v4), keys.name(where, "web")} & set(
                left
            )

            await one.heal()
            await until(lambda: {"web"} == two.names() and one.record.id in two.ship.commons.alive)
            found = await everything(url)
            lease = one.session.lease_number(one.record.id)
            for key in (
                keys.address(where, one.endpoint("web").v4),
                keys.name(where, "web"),
                keys.announced(where, one.endpoint("web").id),
                keys.alive(one.record.id),
            ):
                assert lease == found[key].lease
            assert {} == one.lost()
            assert one.core.state.sandbox("web").id == web.id

    run(steps())


def test_a_lease_that_ends_under_a_live_session_is_held_again(url):
    """The next sign of life finds it gone."""

    async def steps():
        async with cluster(url, "host1", "host2", lease=2) as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            await until(lambda: "web" in two.names())
            await die(url, one)
            await until(lambda: "web" not in two.names())
            await until(lambda: "web" in two.names())

    run(steps())


def test_what_somebody_else_has_by_now_is_lost(url):
    """An address that was given to another while its host was dead: the old container is fenced
    until the new one has gone, also over a restart; its removal takes nothing from the new one."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue", ip="10.9.0.5")
            await one.run("api", "blue")
            await two.run("db", "blue")
            await until(lambda: "web" in two.names())
            await one.cut()
            await die(url, one)
            await until(lambda: set() == two.names())
            thief = await two.run("thief", "blue", ip="10.9.0.5")
            assert "10.9.0.5/32" in two.blocks("blue")

            await one.heal()
            for _ in range(2):
                assert ["web"] == list(one.lost())
                why = one.lost()["web"]
                assert "10.9.0.5 is held by thief on host2: remove this container" in why
                web = one.core.state.sandbox("web")
                assert why == one.core.failures[web.id]
                await until(lambda: {"api"} == two.names())
                assert not one.core.plans()[f"sandbox/{web.id}"] or "10.9.0.5" not in str(
                    one.core.plans()[f"sandbox/{web.id}"]
                )
                assert "10.9.0.2" in str(
                    one.core.plans()[f"sandbox/{one.core.state.sandbox('api').id}"]
                )
                await one.restart()

            taken = keys.address(one.core.state.network("blue").id, ip_address("10.9.0.5"))
            await stop_and_start(one, "web")
            assert {"api"} == two.names(), "a fenced container is announced to nobody"
            await one.remove("web")
            assert "thief" in (await everything(url))[taken].value.decode()
            assert thief.id == two.core.state.sandbox("thief").id
            assert {"thief", "db"} == one.names()

    run(steps())


async def die(url, node):
    """Have its lease end."""
    async with client(url) as etcd:
        await etcd.revoke(node.session.lease_number(node.record.id))


async def stop_and_start(node, name):
    """As a user does."""
    await sandboxes.stopped(node.core, name)
    await sandboxes.up(node.core, name)
    await sandboxes.started(node.core, name)


def test_what_was_lost_is_given_back(url):
    """Once the other has gone, the next connection gives it back."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            await one.cut()
            await die(url, one)
            await until(lambda: one.record.id not in two.ship.commons.alive)
            await two.run("thief", "blue", ip="10.9.0.2")
            await one.heal()
            assert ["web"] == list(one.lost())
            web = one.core.state.sandbox("web")
            assert "10.9.0.2" not in str(one.core.kernel.plans.get(f"sandbox/{web.id}", ""))

            await two.remove("thief")
            await one.cut()
            await one.heal()
            assert {} == one.lost()
            assert web.id not in one.core.failures
            assert "10.9.0.2" in str(one.core.kernel.plans[f"sandbox/{web.id}"])
            await until(lambda: {"web"} == two.names())

    run(steps())


def test_an_mtu_that_fits_no_way_between_hosts(url):
    """It is refused when the network is made, and the largest that fits is said."""

    async def steps():
        async with cluster(url, "host1") as (one,):
            with pytest.raises(InvalidSpec, match="this network 1500 at most"):
                await one.network("wide", options={"encrypted": "false", "mtu": "1501"})
            await one.network("wide", options={"encrypted": "false", "mtu": "1500"})

    run(steps())


def test_a_name_that_somebody_else_has_by_now(url):
    """Made while its host was alone, a container keeps its address and its other names; the name
    stays the other's, also when this one goes."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("first", "blue")
            await two.run("web", "blue")
            await until(lambda: {"first"} == two.names())
            await one.cut()
            await one.run("Web", "blue", hostname="other")
            await one.heal()
            web = one.core.state.sandbox("Web")
            assert "a container web already on host2" in one.core.failures[web.id]
            assert {} == one.lost()
            where = one.endpoint("Web").network

            def told():
                announced = two.ship.commons.announced.get(where, {})
                return {name for found in announced.values() for name in found.names}

            await until(lambda: "other" in told())
            assert "web" not in told()
            await one.remove("Web")
            await until(lambda: {"first"} == told())
            claim = (await everything(url))[keys.name(where, "web")]
            assert two.record.id == decode(Claim, claim.value).host

    run(steps())


def test_a_network_that_went_while_a_host_was_away(url):
    """Its containers are told what happened, and can be removed; nothing of it comes back."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            blue = await two.network("blue")
            await one.run("web", "blue")
            await one.cut()
            await die(url, one)
            await until(lambda: one.record.id not in two.ship.commons.alive)
            await two.remove_network("blue")

            await one.heal()
            assert "removed" in one.lost()["web"]
            assert "removed" in one.core.failures[one.core.state.sandbox("web").id]
            await one.remove("web")
            await settled(url, lambda there: not [key for key in there if blue.id in key])
            assert [] == list(one.core.state.endpoints)
            await one.restart()
            assert not one.core.state.has_network("blue")

    run(steps())


def test_a_removed_host_knows_it(url):
    """Told by the store while it listens, or when it comes back; it asks no more."""

    async def steps():
        for away in (False, True):
            async with cluster(url, "host1", "host2") as (one, _):
                await one.network("blue")
                if away:
                    await one.cut()
                async with client(url) as etcd:
                    found = await etcd.get(keys.CLUSTER)
                    revoked = (serial_text(one.record.identity),)
                    unwanted = replace(decode(Cluster, found.value), revoked=revoked)
                    writes = [Write(keys.CLUSTER, encode(unwanted))]
                    await etcd.txn([], writes, [Erase(keys.host(one.record.id))])
                if away:
                    await one.link.open()
                await until(lambda: one.session.gone and not one.session.online)
                await asyncio.wait_for(asyncio.shield(one._running), 5)
                assert "removed" in one.session.error
                assert one.core.state.has_network("blue")

    run(steps())


def test_a_store_from_a_backup_removes_nobody(url):
    """A host that it does not know yet stays as it is, says so, and goes on when it is known."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, _):
            await one.network("blue")
            await one.run("web", "blue")
            await one.cut()
            async with client(url) as etcd:
                found = await etcd.get(keys.host(one.record.id))
                await etcd.txn([], [], [Erase(found.key)])
                await one.link.open()
                await until(lambda: "restored from a backup" in one.session.error)
                assert not one.session.gone
                assert one.core.state.sandbox("web")
                await etcd.txn([], [Write(found.key, found.value)], [])
            await until(lambda: one.session.online)

    run(steps())


# -- news -----------------------------------------------------------------------------------------


def test_news_are_heard_over_any_number_of_interruptions(url):
    """Whatever happened while a watch was away, both hosts know the same in the end."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await two.run("db", "blue")
            expected = set()
            for n in range(8):
                if n % 2:
                    two.link.cut()
                await one.run(f"c{n}", "blue")
                expected.add(f"c{n}")
                if n % 3 == 2:
                    await one.remove(f"c{n - 1}")
                    expected.discard(f"c{n - 1}")
                if n % 2:
                    await two.link.open()
            await until(lambda: expected == two.names())
            assert one.blocks("blue") == two.blocks("blue", one)

    run(steps())


def test_old_news_do_not_undo_what_was_read(url):
    """A watch that tells late of what a decision has read anew since, or of what we wrote since."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            blue = await one.network("blue")
            await one.run("web", "blue")
            commons, session = one.ship.commons, one.session
            hold, news = asyncio.Event(), []
            taken_in = session._take_in

            async def late(prefix, events):
                news.append(prefix)
                await hold.wait()
                await taken_in(prefix, events)
                seen.append(
                    ([str(b) for b in commons.blocks[blue.id]], commons.hosts[two.record.id])
                )

            seen = []
            session._take_in = late
            drained = replace(commons.hosts[two.record.id], drained=True)
            block = Block(network=blue.id, cidr=ip_network("10.9.0.64/28"), host=two.record.id)
            key = keys.block(blue.id, block.cidr)
            async with client(url) as etcd:
                await etcd.txn([], [Write(key, encode(block))], [])
                await etcd.txn(
                    [], [Write(keys.host(drained.id), encode(replace(drained, version="x")))], []
                )
                await until(lambda: len(news) >= 2)
                mine = replace(block, host=one.record.id)
                await etcd.txn([], [Write(key, encode(mine))], [])
                await etcd.txn([], [Write(keys.host(drained.id), encode(drained))], [])
            await session.freshen(keys.blocks(blue.id))
            await session.freshen(keys.HOSTS)
            assert mine == commons.blocks[blue.id][block.cidr]
            hold.set()
            await until(lambda: len(seen) >= 2)
            await one.run("db", "blue")
            await until(lambda: len(seen) >= 3)

            assert all(host == drained for _, host in seen)
            assert mine == commons.blocks[blue.id][block.cidr]
            assert {"10.9.0.64/28", "10.9.0.0/28"} == set(one.blocks("blue"))

    run(steps())


def compact(url, revision):
    """Have etcd forget what was before a revision."""
    body = json.dumps({"revision": revision, "physical": True}).encode()
    with urllib.request.urlopen(f"{url}/v3/kv/compaction", body, timeout=5) as answer:
        assert answer.status == 200


def test_history_that_was_compacted_is_read_anew(url):
    """A watch that starts too far in the past: everything is read, nothing is missed."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await two.run("db", "blue")
            await until(lambda: not two.session._listening or two.session.online)
            watch, failed = two.session.etcd.watch, []

            def compacted(prefixes, revision):
                if failed:
                    return watch(prefixes, revision)

                async def fails():
                    failed.append(revision)
                    raise Compacted(revision + 7)
                    yield

                return fails()

            two.session.etcd.watch = compacted
            await two.cut()
            await one.run("web", "blue")
            await one.remove("web")
            await one.run("api", "blue")
            async with client(url) as etcd:
                _, revision = await etcd.range("/none")
            compact(url, revision)
            await two.link.open()
            await until(lambda: failed and two.session.online and {"api"} == two.names())
            await one.run("more", "blue")
            await until(lambda: {"api", "more"} == two.names())

    run(steps())


def test_a_network_that_was_left_is_not_heard_of(url):
    """What a watch still tells of it changes nothing, and joining again knows everything."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            blue = await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            await until(lambda: {"web"} == two.names())
            await two.remove("db")
            session = two.session
            hold, held = asyncio.Event(), asyncio.Event()
            taken_in = session._take_in

            async def late(prefix, events):
                held.set()
                await hold.wait()
                await taken_in(prefix, events)

            session._take_in = late
            await one.run("api", "blue")
            await held.wait()
            await two.ship.let_go(blue.id)
            hold.set()
            session._take_in = taken_in
            await until(lambda: not two.session._order.locked())
            await asyncio.sleep(0.02)
            assert blue.id not in session.taking_part
            assert not two.ship.commons.announced.get(blue.id)
            assert not two.ship.commons.blocks.get(blue.id)
            assert f"network/{blue.id}" not in two.core.kernel.plans

            await two.run("db", "blue")
            await until(lambda: {"web", "api"} == two.names())

    run(steps())


def test_a_network_joined_while_the_watch_breaks_is_heard_of(url):
    """However the two fall together: afterwards the host hears of it."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            for n in range(4):
                await one.network(f"n{n}", f"10.9.{n}.0/24")
                await one.run(f"c{n}", f"n{n}")
                breaking = asyncio.create_task(broken(two, n * 0.001))
                with_it = await outcomes(two.run(f"d{n}", f"n{n}"))
                await breaking
                await until(lambda: two.session.online)
                while isinstance(with_it[0], StoreError):
                    await until(lambda: two.session.online)
                    with_it = await outcomes(two.run(f"d{n}", f"n{n}"))
                wanted = {f"c{m}" for m in range(n + 1)}
                await until(lambda wanted=wanted: wanted == two.names())

    async def broken(node, after):
        await asyncio.sleep(after)
        node.link.cut()
        await node.link.open()

    run(steps())


# -- the wrong store ------------------------------------------------------------------------------


async def emptied(url):
    """As after an accident."""
    async with client(url) as etcd:
        await etcd.txn([], [], [Erase("/seaway/", prefix=True)])


async def anothers(url):
    """Of another cluster."""
    await found_cluster(url, [])
    async with client(url) as etcd:
        await etcd.txn([], [Write(keys.CLUSTER, encode(replace(CLUSTER, id="e" * 12)))], [])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [(emptied, "empty"), (anothers, "of cluster eeeeeeeeeeee, not of cccccccccccc")],
)
def test_a_store_that_is_not_ours_is_refused(url, spoil, words):
    """An empty one or one of another cluster: nothing here is deleted and nothing there is
    written, also not after a restart; all goes on when the right one is back."""

    async def steps():
        async with cluster(url, "host1") as (one,):
            await one.network("blue")
            await one.run("web", "blue")
            await one.cut()
            saved = await everything(url)
            await spoil(url)
            await one.link.open()
            await refused(one)
            await one.restart(wait=False)
            await refused(one)
            await one.run("more", "blue")  # alone

            await emptied(url)
            async with client(url) as etcd:
                await etcd.txn([], [Write(key, kv.value) for key, kv in saved.items()], [])
            await until(lambda: one.session.online)
            assert {} == one.lost()
            names = {k.rsplit("/", 1)[1] for k in await everything(url) if "/names/" in k}
            assert {"web", "more"} == names

    async def refused(one):
        there, disk = await everything(url), dict(one.disk.records)
        await until(lambda: words in one.session.error)
        assert not one.session.online
        assert there == await everything(url)
        assert disk == one.disk.records
        assert "web" in one.core.state.sandbox_names
        assert one.core.state.has_network("blue")
        assert ["10.9.0.0/28"] == one.blocks("blue")
        assert "10.9.0.2" in str(one.core.plans())

    run(steps())


# -- between two stores ---------------------------------------------------------------------------


class Killed(BaseException):
    """The process is gone."""


def killed(_self, _change):
    """In this moment."""
    raise Killed


def test_killed_while_it_joins_a_network(url, monkeypatch):
    """A claim on a network that it has no container on is given back as well."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            with monkeypatch.context() as patch:
                patch.setattr(State, "_write", killed)
                with pytest.raises(Killed):
                    await one.run("web", "blue", ip="10.9.0.5")
            await one.restart()

            await two.run("web", "blue", ip="10.9.0.5")
            assert ["10.9.0.5/32"] == two.blocks("blue")

    run(steps())


@pytest.mark.parametrize("damage", ["gone", "spoilt"])
def test_a_copy_that_was_lost_is_made_anew(url, damage):
    """What a host knew of its cluster is a copy: without it, it takes part as before."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            await until(lambda: {"db"} == one.names() and {"web"} == two.names())
            await one.stop()
            mirror = one.ship.folder.mirror
            if damage == "gone":
                mirror.unlink()
            else:
                mirror.write_bytes(b"no database" * 1000)
            before = shared(await everything(url))
            await one.start(wait=False)
            assert one.core.plans()["host"]
            await until(lambda: one.session.online and {"db"} == one.names())

            assert {} == one.lost()
            found = shared(await everything(url))
            assert {k: v.value for k, v in before.items()} == {k: v.value for k, v in found.items()}
            assert ["10.9.0.0/28"] == one.blocks("blue")
            web, blue = one.core.state.sandbox("web"), one.core.state.network("blue")
            assert "10.9.0.2" in str(one.core.plans()[f"sandbox/{web.id}"])
            assert one.core.plans()[f"network/{blue.id}"]
            await two.run("more", "blue")
            await until(lambda: {"db", "more"} == one.names())

    run(steps())


@pytest.mark.parametrize("what", ["run", "remove", "borrow", "stop"])
def test_killed_between_the_stores(url, monkeypatch, what):
    """etcd has the change and this host's own store has not: after the restart both say what the
    host's own says, and no address, name or copy is left that nobody has."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            await until(lambda: {"web"} == two.names() and {"db"} == one.names())
            await settled(url, lambda there: copies(one) | copies(two) == local(there))
            before, disk = await everything(url), dict(one.disk.records)

            with monkeypatch.context() as patch:
                patch.setattr(State, "_write", killed)
                work = {
                    "run": lambda: one.run("more", "blue"),
                    "remove": lambda: one.remove("web"),
                    "borrow": lambda: one.run("more", "blue", ip="10.9.0.20"),
                    "stop": lambda: stop_and_start(one, "web"),
                }[what]
                with pytest.raises(Killed):
                    await work()
            assert what == "stop" or (await everything(url)).keys() != before.keys()
            await one.restart()

            assert disk == one.disk.records
            await settled(url, lambda there: copies(one) | copies(two) == local(there))
            found = await everything(url)
            # A block is kept, borrowed or not, until the host lets go of the network.
            assert found.keys() - before.keys() <= {k for k in found if "/blocks/" in k}
            assert before.keys() <= found.keys()
            assert {k: v.value for k, v in before.items() if "/on/" in k} == {
                k: found[k].value for k in before if "/on/" in k
            }
            await until(lambda: {"web"} == two.names())
            await one.run("more", "blue")

    run(steps())


def test_a_full_disk_leaves_nothing_in_the_store(url):
    """Refused by this host's own store after the cluster's agreed: taken back without a restart."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            await until(lambda: {"web"} == two.names())
            one.disk.full = True
            for work in (one.run("more", "blue"), one.remove("web")):
                with pytest.raises(StoreError, match="full"):
                    await work
            one.disk.full = False
            await until(lambda: one.session.online)
            where = one.endpoint("web").network

            await settled(
                url,
                lambda there: (
                    keys.name(where, "more") not in there
                    and keys.name(where, "web") in there
                    and copies(one) | copies(two) == local(there)
                ),
            )
            assert {"web"} == two.names()
            await two.run("more", "blue")

    run(steps())


@pytest.mark.parametrize("done", [True, False])
def test_an_answer_that_never_came(url, done):
    """Nobody knows whether the store has the change: a container in our own block runs, and is
    nobody's but ours; what cannot be done alone is refused, and leaves nothing."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            etcd, once = one.session.etcd, []

            async def unsure(compares, writes, erases=()):
                if once:
                    return await txn(compares, writes, erases)
                once.append(True)
                if done:
                    await txn(compares, writes, erases)
                raise Unsure("the answer never came")

            txn = etcd.txn
            etcd.txn = unsure
            await one.run("api", "blue")
            await until(lambda: one.session.online)
            assert {} == one.lost()
            await until(lambda: {"web", "api"} == two.names())

            once.clear()
            with pytest.raises(StoreError):
                await one.run("far", "blue", ip="10.9.0.200")
            await until(lambda: one.session.online)
            found = await everything(url)
            assert not [key for key, kv in found.items() if "far" in kv.value.decode()]
            assert "far" not in one.core.state.sandbox_names

    run(steps())


def test_a_change_under_way_while_the_store_is_reached_again(url):
    """What it claimed is not taken for a leftover of an earlier life."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            etcd, hold, there = one.session.etcd, asyncio.Event(), asyncio.Event()
            txn = etcd.txn

            async def slow(compares, writes, erases=()):
                etcd.txn = txn
                found = await txn(compares, writes, erases)
                there.set()
                await hold.wait()
                return found

            etcd.txn = slow
            running = asyncio.create_task(one.run("api", "blue"))
            await there.wait()
            one.session._lose(StoreError("the test"))
            await asyncio.sleep(0.05)
            asyncio.get_running_loop().call_later(0.3, hold.set)
            await until(lambda: one.session.online)
            hold.set()
            await running
            found = await everything(url)
            where = one.endpoint("api").network
            assert {keys.name(where, "api"), keys.address(where, one.endpoint("api").v4)} <= set(
                found
            )
            await two.run("db", "blue")
            await until(lambda: {"web", "api"} == two.names())

    run(steps())


def test_records_of_the_last_version_are_ours(url):
    """After an upgrade our own claims, as the old release wrote them, are not somebody else's."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await one.stop()
            async with client(url) as etcd:
                for key, kv in (await everything(url)).items():
                    if keys.kind(key) in ("names", "addresses", "announced", "blocks"):
                        old = kv.value.replace(b'"version":2', b'"version":1')
                        await etcd.txn([], [Write(key, old, kv.lease)], [])
            await one.start()
            assert {} == one.lost()
            await two.run("db", "blue")
            await until(lambda: {"web"} == two.names())
            web = one.core.state.sandbox("web")
            assert (
                decode(type(web), one.disk.records[f"{keys.ROOT}/sandboxes/{web.id}"].value) == web
            )

    run(steps())


def test_a_thousand_containers_are_told_in_pieces(url):
    """More than one transaction may hold; and what was there already is not written again."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue", "10.9.0.0/20")
            await one.run("first", "blue")
            await one.cut()
            count = 150
            for n in range(count):
                try:
                    await one.run(f"c{n}", "blue")
                except SeawayError:
                    count = n
                    break
            assert count > 20
            await one.heal()
            await two.run("db", "blue")
            await until(lambda: count + 1 == len(two.names()))
            async with client(url) as etcd:
                _, before = await etcd.range("/none")
            await one.cut()
            await one.heal()
            async with client(url) as etcd:
                _, after = await etcd.range("/none")
            assert after - before <= 4

    run(steps())
