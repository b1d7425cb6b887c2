"""A cluster's hosts: how they are let in, seen, drained and removed, with a real etcd."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from ipaddress import ip_address

import msgspec
import pytest

from seaway.agent import gate, networks, nodes, stores
from seaway.agent.gate import Gate
from seaway.agent.requests import NetworkRequest
from seaway.cluster.joining import AuthorityKey, JoinRequest, Refused, Removed
from seaway.cluster.pki import serial_text
from seaway.cluster.token import parse_token, secret_hash
from seaway.errors import Conflict, Exhausted, InvalidSpec, NotFound, StoreError
from seaway.model.cluster import Cluster, HostId
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.etcd_wire import Write
from tests.support.cluster import client, cluster, everything, until
from tests.support.etcd import etcds, run
from tests.support.overlay import CLUSTER

PEER = ip_address("192.0.2.9")


@pytest.fixture(scope="module")
def url():
    """Where an etcd of one member answers."""
    with etcds() as (member,):
        yield member.url


def request(name, identity="9", **more):
    """What a host that wants in says."""
    given = {"csr": "", "addresses": (str(PEER),), "identity": identity * 64}
    return JoinRequest(**{"name": name} | given | more)


def hosts_in(records):
    """Every key about a host that has the name, number or record of one."""
    kinds = ("hosts", "host-names", "host-numbers")
    return {key for key in records if keys.kind(key) in kinds}


# -- letting in -----------------------------------------------------------------------------------


def test_a_host_is_let_in(url):
    """It has a name, the first number that is free, and a record; every member hears of it."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            found = await Gate(one.ship).admit(request("new", mac="02:00:00:00:00:09"), PEER)

            assert (3, "new", ("192.0.2.9",)) == (found.number, found.name, found.addresses)
            assert one.ship.cluster == decode(Cluster, found.cluster.encode())
            assert one.ship.member.etcd == found.etcd
            assert ("", "", "") == (found.etcd_ca, found.etcd_certificate, found.etcd_key)
            await until(lambda: two.ship.commons.host_called("new"))
            host = two.ship.commons.hosts[HostId(found.id)]
            assert ("9" * 64, "02:00:00:00:00:09", None) == (host.identity, host.mac, host.behind)
            assert {keys.host(host.id), keys.host_name("new"), keys.host_number(3)} <= set(
                await everything(url)
            )

    run(steps())


def test_many_at_once_have_different_numbers(url):
    """Whichever hosts let them in; of two with one name one is refused, and told what to do."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            gates = [Gate(one.ship), Gate(two.ship)]
            found = await asyncio.gather(
                *(gates[n % 2].admit(request(f"n{n}", f"{n:x}"), PEER) for n in range(12))
            )
            assert list(range(3, 15)) == sorted(a.number for a in found)
            assert 12 == len({a.id for a in found})

            for n in range(6):
                both = await asyncio.gather(
                    *(
                        g.admit(request(f"same{n}", i), PEER)
                        for g, i in zip(gates, "ab", strict=True)
                    ),
                    return_exceptions=True,
                )
                (refused,) = (b for b in both if isinstance(b, Exception))
                assert isinstance(refused, Conflict)
                assert f"seaway node rm same{n}" in str(refused)
                assert "--node-name" in str(refused)

    run(steps())


def test_whoever_asks_again_is_the_same_host(url):
    """The answer may have been lost on its way; another key is another host."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            first = await Gate(one.ship).admit(request("new"), PEER)
            again = await Gate(two.ship).admit(request("new"), PEER)
            assert (first.id, first.number) == (again.id, again.number)
            with pytest.raises(Conflict, match="already"):
                await Gate(two.ship).admit(request("new", "8"), PEER)
            with pytest.raises(Conflict, match="already"):
                await Gate(two.ship).admit(request("host1", "8"), PEER)
            assert 9 == len(hosts_in(await everything(url)))

    run(steps())


def test_who_is_behind_a_nat_is_known_by_where_it_seems_to_be(url):
    """Another address of the same family than it has itself; a host in a lab is not."""

    async def steps():
        async with cluster(url, "host1") as (one,):
            commons = one.ship.commons
            for n, (peer, behind) in enumerate(
                [
                    ("198.51.100.1", "198.51.100.1"),
                    ("192.0.2.9", None),
                    ("127.0.0.1", None),
                    ("2001:db8::1", None),
                ]
            ):
                found = await Gate(one.ship).admit(request(f"n{n}", f"{n}"), ip_address(peer))
                host = commons.hosts[HostId(found.id)]
                assert behind == (str(host.behind) if host.behind else None)

    run(steps())


def test_who_cannot_be_let_in(url, monkeypatch):
    """A bad name, a cluster that is full, a store that is out of reach: one line each, no key."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, _):
            before = await everything(url)
            with pytest.raises(InvalidSpec, match="host name"):
                await Gate(one.ship).admit(request("no/name"), PEER)
            monkeypatch.setattr(gate, "NUMBER_MAX", 2)
            with pytest.raises(Exhausted, match="2 hosts"):
                await Gate(one.ship).admit(request("new"), PEER)
            await one.cut()
            with pytest.raises(StoreError, match="out of reach"):
                await Gate(one.ship).admit(request("new"), PEER)
            assert hosts_in(before) == hosts_in(await everything(url))

    run(steps())


def test_whose_certificate_is_renewed(url):
    """A member's, by its own key; where it seems to be is noted for one behind a NAT."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            door, me = Gate(one.ship), two.record
            moved = (ip_address("192.0.2.77"),)
            holder = await door.renew(me.id, me.identity, moved, moved[0])
            assert ("host2", moved) == (holder.name, holder.addresses)
            holder = await door.renew(me.id, me.identity, (), PEER)
            assert me.addresses == holder.addresses
            with pytest.raises(Refused, match="host2"):
                await door.renew(me.id, "f" * 64, (), PEER)
            with pytest.raises(Removed, match="join again"):
                await door.renew(HostId("f" * 12), "f" * 64, (), PEER)

            await door.admit(request("nat"), ip_address("198.51.100.1"))
            nat = one.ship.commons.host_called("nat")
            await door.renew(nat.id, nat.identity, nat.addresses, ip_address("198.51.100.2"))
            hosts = two.ship.commons.hosts  # it may hear of both at once
            await until(lambda: nat.id in hosts and str(hosts[nat.id].behind) == "198.51.100.2")

    run(steps())


def test_a_member_that_is_not_known_yet_is_not_called_removed(url):
    """It has joined elsewhere meanwhile: looked for in the store, and if that is out of reach,
    nothing is said, since who is told that it was removed takes everything down."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            taken_in, hold = one.session._take_in, asyncio.Event()

            async def deaf(prefix, events):
                await hold.wait()
                await taken_in(prefix, events)

            one.session._take_in = deaf
            await Gate(two.ship).admit(request("new"), PEER)
            new = two.ship.commons.host_called("new")
            assert one.ship.commons.host_called("new") is None
            assert "new" == (await Gate(one.ship).renew(new.id, new.identity, (), PEER)).name
            hold.set()

            await one.cut()
            await Gate(two.ship).admit(request("newer", "7"), PEER)
            newer = two.ship.commons.host_called("newer")
            with pytest.raises(StoreError, match="out of reach"):
                await Gate(one.ship).renew(newer.id, newer.identity, (), PEER)

    run(steps())


def test_the_authority_s_key_is_on_three_hosts(url, monkeypatch):
    """Where the store is somebody else's: so that the first host may die.  Those that have it are
    asked for it and for certificates; the fourth has it as soon as one of the three is dead, and
    no longer than that."""

    async def steps():
        async with cluster(url, "host1", "host2", "host3", "host4") as hosts:
            ships = [host.ship for host in hosts]
            files = [ship.folder.credentials for ship in ships]
            files[0].create_authority(CLUSTER.id)
            asked = []

            async def fetch(servers, credentials):
                (me,) = (s.me for s in ships if s.folder.credentials is credentials)
                asked.append([server.address for server in servers])
                if not await Gate(ships[0]).may_sign(me):
                    raise Refused("it gets no authority's key")
                authority = files[0].authority()
                return AuthorityKey(certificate=authority.certificate, key=authority.key)

            monkeypatch.setattr(stores.join_client, "fetch_authority", fetch)
            monkeypatch.setattr(stores, "_PACE", 0.05)
            await until(lambda: all(len(ship.commons.alive) == 4 for ship in ships))
            with pytest.raises(Refused):
                await ships[3].stores._fetch_authority()
            asked.clear()
            async with asyncio.TaskGroup() as group:
                running = [group.create_task(s.stores._decide_often()) for s in ships]
                await until(lambda: [True] * 3 + [False] == [f.can_sign for f in files])
                assert {"192.0.2.1"} == {addresses[0] for addresses in asked}
                assert ["192.0.2.2", "192.0.2.3"] == [s.address for s in Gate(ships[0]).signers()]
                assert "192.0.2.1" == ships[3].stores.servers()[0].address
                ships[0].commons.alive.discard(ships[1].me)
                ships[3].commons.alive.discard(ships[1].me)
                await until(lambda: files[3].can_sign)
                ships[3].commons.alive.add(ships[1].me)
                await until(lambda: not files[3].can_sign)
                ships[0].commons.alive.discard(ships[0].me)
                await ships[0].stores._share_authority()
                assert files[0].can_sign
                for task in running:
                    task.cancel()

    run(steps())


# -- seeing ---------------------------------------------------------------------------------------


def test_hosts_and_what_is_on_them(url):
    """By name: state, containers (each once, however many networks), blocks, endpoints."""

    async def steps():
        async with cluster(url, "host1", "host2", "host3") as (one, two, three):
            await until(lambda: len(one.ship.commons.alive) == 3)
            await one.network("blue")
            await one.network("red", "10.8.0.0/24")
            await one.run("web", "blue", "red")
            await two.run("db", "blue")
            await three.stop()
            await die(url, three)
            await until(lambda: three.record.id not in one.ship.commons.alive)
            await until(lambda: {"db"} == one.names())
            await nodes.drain(one.ship, "host2", undo=False)

            seen = await nodes.nodes_view(one.ship)
            assert [
                ("host1", "ready", 1, True),
                ("host2", "drained", 1, False),
                ("host3", "down", 0, False),
            ] == [(n["name"], n["status"], n["containers"], n["self"]) for n in seen]
            found = await nodes.node_view(two.ship, "host1")
            assert [
                {"network": "blue", "container": "web", "ipv4": "10.9.0.2", "ipv6": ""},
                {"network": "red", "container": "web", "ipv4": "10.8.0.2", "ipv6": ""},
            ] == found["endpoints"]
            assert [{"network": "blue", "block": "10.9.0.0/28"}] == found["blocks"]
            assert found == await nodes.node_view(two.ship, one.record.id)
            assert 2 == nodes.glance(one.ship)["hosts"]["alive"]
            with pytest.raises(NotFound, match="node ls"):
                await nodes.node_view(one.ship, "host")

    run(steps())


async def die(url, node):
    """Have its lease end."""
    async with client(url) as etcd:
        await etcd.revoke(node.session.lease_number(node.record.id))


def test_hosts_are_seen_without_the_store(url):
    """As they were known last; and that it is out of reach is a problem."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, _):
            assert [] == nodes.problems(one.ship)
            await one.cut()
            seen = await nodes.nodes_view(one.ship)
            assert ["host1", "host2"] == [n["name"] for n in seen]
            assert ["store"] == [p["object"] for p in nodes.problems(one.ship)]
            assert not nodes.glance(one.ship)["online"]

    run(steps())


def test_the_store_of_a_host_that_was_removed_is_no_problem(url):
    """What was asked of it last stays known for some seconds; another's silence is one."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            one.ship.stores.health = {two.record.id: None, "f" * 12: None, "": None}
            assert ["host2"] == one.ship.stores.ill()

    run(steps())


def test_a_network_that_is_hidden_by_one_s_own_is_a_problem(url):
    """Whoever means the cluster's gets the other one; not on hosts where it is not hidden."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await networks.create(two.core, NetworkRequest(name="pond", subnets=["10.7.1.0/24"]))
            assert [] == nodes.problems(two.ship)
            pond = await one.network("pond")
            (problem,) = nodes.problems(two.ship)
            assert "network" == problem["object"]
            assert "cluster's network pond cannot be used" in problem["error"]
            assert [] == nodes.problems(one.ship)
            await networks.remove(two.core, "pond")
            assert [] == nodes.problems(two.ship)
            assert pond == two.core.state.network("pond")

    run(steps())


def test_members_of_networks_are_seen_everywhere(url):
    """Those of other hosts too, also on networks that a host takes no part in."""

    async def steps():
        async with cluster(url, "host1", "host2", "host3") as (one, two, three):
            blue = await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue")
            view = [{"id": blue.id, "driver": blue.driver, "containers": {"web": {"id": "x"}}}]
            await nodes.add_members(one.ship, view)
            (there,) = view
            assert {"web": "host1", "db": "host2"} == {
                name: member["host"] for name, member in there["containers"].items()
            }
            view = [{"id": blue.id, "driver": blue.driver, "containers": {}}]
            await nodes.add_members(three.ship, view)
            assert {"web", "db"} == set(view[0]["containers"])
            assert "10.9.0.2" == view[0]["containers"]["web"]["ipv4"]

    run(steps())


def test_no_member_has_no_hosts(url):
    """One line that says how to become one."""

    async def steps():
        async with cluster(url, "host1") as (one,):
            assert one.ship is nodes.require_member(one.core)
            one.core.cluster = None
            with pytest.raises(NotFound, match="seaway cluster init"):
                nodes.require_member(one.core)
            one.core.cluster = one.ship

    run(steps())


# -- draining and removing ------------------------------------------------------------------------


def test_a_drained_host_takes_nothing_new(url):
    """What runs there stays; what would be new is told where else it could run."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await two.run("db", "blue")
            assert (await nodes.drain(one.ship, "host2", undo=False)).drained
            assert (await nodes.drain(one.ship, "host2", undo=False)).drained  # twice is fine
            await until(lambda: two.ship.commons.host.drained)
            with pytest.raises(Conflict, match="node drain --undo host2"):
                await two.run("web", "blue")
            assert "db" in two.core.state.sandbox_names
            await nodes.drain(one.ship, "host2", undo=True)
            await until(lambda: not two.ship.commons.host.drained)
            await two.run("web", "blue")

    run(steps())


def test_nobody_s_change_is_lost(url):
    """Hosts that change one record in the same moment: both changes are in it."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            for n in range(6):
                two.ship.overlay.settled = n + 1
                await asyncio.gather(
                    nodes.drain(one.ship, "host2", undo=bool(n % 2)), two.ship.tell_host()
                )
                kv = (await everything(url))[keys.host(two.record.id)]
                found = decode(type(two.record), kv.value)
                assert (n % 2 == 0, n + 1) == (found.drained, found.settled)

                def serial(text):
                    return lambda c: replace(c, revoked=(*c.revoked, text))

                await asyncio.gather(
                    nodes.change_cluster(one.ship, serial(f"a{n}")),
                    nodes.change_cluster(two.ship, serial(f"b{n}")),
                )
            revoked = decode(Cluster, (await everything(url))[keys.CLUSTER].value).revoked
            assert {f"{x}{n}" for n in range(6) for x in "ab"} == set(revoked)

    run(steps())


def test_a_host_that_is_needed_is_not_removed(url):
    """Itself, one that lives with containers, one that lives and was not drained: what to do."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await two.run("db", "blue")
            await until(lambda: two.record.id in one.ship.commons.alive)
            before = await everything(url)
            for name, words in (
                ("host1", "seaway cluster leave"),
                ("host2", "runs db: stop those"),
            ):
                with pytest.raises(Conflict, match=words) as caught:
                    await nodes.remove(one.ship, name, force=False)
                assert "\n" not in str(caught.value)
            await two.remove("db")
            with pytest.raises(Conflict, match="drain it"):
                await nodes.remove(one.ship, "host2", force=False)
            with pytest.raises(NotFound, match="node ls"):
                await nodes.remove(one.ship, "host9", force=True)
            assert hosts_in(before) == hosts_in(await everything(url))

            await nodes.drain(one.ship, "host2", undo=False)
            await nodes.remove(one.ship, "host2", force=False)
            assert {"host1"} == {h.name for h in one.ship.commons.hosts.values()}

    run(steps())


def test_a_host_that_has_just_fallen_silent_is_not_called_alive(url):
    """It counts as alive until its lease ends: how long that takes is said."""

    async def steps():
        async with cluster(url, "host1", "host2", lease=5) as (one, two):
            await until(lambda: two.record.id in one.ship.commons.alive)
            with pytest.raises(Conflict, match="is alive: "):
                await nodes.remove(one.ship, "host2", force=False)
            await two.stop()
            said = ""
            while "silent" not in said:
                with pytest.raises(Conflict) as caught:
                    await nodes.remove(one.ship, "host2", force=False)
                said = str(caught.value)
                await asyncio.sleep(0.05)
            assert "host2 has been silent for 3 s, and counts as alive for 2 s more" in said
            await until(lambda: two.record.id not in one.ship.commons.alive)
            await nodes.remove(one.ship, "host2", force=False)

    run(steps())


@pytest.mark.parametrize("alive", [True, False])
def test_a_removed_host_leaves_nothing(url, alive):
    """Of no kind of key; its certificate is worth nothing, its name, number and addresses are
    free; containers of others stay as they are."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await one.network("blue")
            await one.run("web", "blue")
            await two.run("db", "blue", ip="10.9.0.20")
            await two.run("far", "blue", ip="10.9.0.3")
            await until(lambda: {"db", "far"} == one.names() and {"web"} == two.names())
            if not alive:
                await two.stop()
                await die(url, two)
                await until(lambda: two.record.id not in one.ship.commons.alive)
            await nodes.remove(one.ship, "host2", force=alive)

            await until(lambda: set() == one.names() and not one.blocks("blue", two))
            left = await everything(url)
            assert not [
                k
                for k, kv in left.items()
                if two.record.id in k + kv.value.decode() and keys.kind(k) != "cluster"
            ]
            cluster_now = decode(Cluster, left[keys.CLUSTER].value)
            assert (serial_text(two.record.identity),) == cluster_now.revoked
            await until(lambda: one.ship.cluster == cluster_now)
            if alive:
                await until(lambda: two.session.gone)
                assert "db" in two.core.state.sandbox_names
            await one.run("db", "blue", ip="10.9.0.20")
            again = await Gate(one.ship).admit(request("host2"), PEER)
            assert 2 == again.number

    run(steps())


def test_a_removed_host_still_knows_somebody_else_s_etcd(url):
    """Its certificate is worth nothing to us, and what that etcd asks for is not ours to change."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, _):
            gone = await nodes.remove(one.ship, "host2", force=True)
            assert "host2 still has" in nodes.what_remains(one.ship, gone)
            one.ship.member = msgspec.structs.replace(one.ship.member, foreign=False)
            assert "" == nodes.what_remains(one.ship, gone)

    run(steps())


def test_a_host_that_is_removed_writes_no_more(url):
    """What it was just about to copy into the store would stay there for ever."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await nodes.remove(one.ship, "host2", force=True)
            with suppress(StoreError):
                copy = Write(keys.local(two.record.id, "/seaway/v1/sandboxes/x"), b"")
                await two.session._teller.in_pieces([copy], [])
            assert not [key for key in await everything(url) if keys.kind(key) == "local"]

    run(steps())


# -- tokens and keys ------------------------------------------------------------------------------


def test_the_token_and_a_new_one(url):
    """It is the same until it is rotated; then the old one's secret is worth nothing."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            for node in (one, two):
                node.ship.folder.credentials.create_authority(CLUSTER.id)
            first = await nodes.token(one.ship)
            assert first["token"] == (await nodes.token(one.ship))["token"]
            assert first["token"] in first["join"]
            assert first["join"].endswith(" 192.0.2.1")
            secret = parse_token(first["token"]).secret
            assert secret_hash(secret) == Gate(one.ship).secret()

            second = await nodes.rotate_token(one.ship)
            assert second["token"] != first["token"]
            assert second["token"] == (await nodes.token(one.ship))["token"]
            fresh = secret_hash(parse_token(second["token"]).secret)
            await until(lambda: fresh == Gate(two.ship).secret())

    run(steps())


def test_keys_are_rotated_one_after_the_other(url):
    """Not while somebody is down or behind, since that would be cut off."""

    async def steps():
        async with cluster(url, "host1", "host2") as (one, two):
            await until(lambda: {one.record.id, two.record.id} == one.ship.commons.alive)
            assert 1 == await nodes.rotate_keys(one.ship)
            assert 1 == one.ship.cluster.generation
            with pytest.raises(Conflict, match="host1, host2 do not send"):
                await nodes.rotate_keys(one.ship)
            async with client(url) as etcd:
                for host in (one.record, two.record):
                    settled = replace(host, settled=1)
                    await etcd.txn([], [Write(keys.host(host.id), encode(settled))], [])
            await until(lambda: all(h.settled for h in one.ship.commons.hosts.values()))
            await two.stop()
            await die(url, two)
            await until(lambda: two.record.id not in one.ship.commons.alive)
            with pytest.raises(Conflict, match="host2 could not take part"):
                await nodes.rotate_keys(one.ship)

    run(steps())
