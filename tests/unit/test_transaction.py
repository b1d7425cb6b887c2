"""What a change is to the cluster's store: claims that only one can have, and all of them gone."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_network

import pytest

from seaway.agent.commons import Commons
from seaway.agent.state import Change, State
from seaway.agent.transaction import announced, concerns_others, local_records, transaction
from seaway.model.cluster import Announced, Block, Claim, HostId
from seaway.model.sandbox import Phase
from seaway.store import keys
from seaway.store.codec import decode, encode
from seaway.store.etcd_wire import At, Clash, Empty, Erase, Write
from tests.support.core import MemoryStore
from tests.support.model import network, on, sandbox
from tests.support.overlay import host, overlay

ME, LEASE = HostId(f"{1:012x}"), 77
BLUE, GREEN = overlay("blue", 7, clear=True), overlay("green", 8, clear=True)
FRONT = network("front", 1)
WEB = sandbox("Web", hostname="w", labels={"app": "shop"})
AT = on(WEB, BLUE, 2, aliases=("www",)).endpoint
BLOCK = Block(network=BLUE.id, cidr=ip_network("10.77.7.0/28"), host=ME)


@pytest.fixture
def commons():
    """Two hosts and two networks, at revision 5."""
    found = Commons(ME)
    known = [(keys.host(h.id), encode(h), 5) for h in (host("host1", 1), host("host2", 2))]
    known += [(keys.network(n.id), encode(n), 5) for n in (BLUE, GREEN)]
    found.take(known)
    return found


@pytest.fixture
def state():
    """A state that knows the networks."""
    found = State(MemoryStore())
    for one in (BLUE, GREEN):
        found.learn(one)
    asyncio.run(found.commit(Change(put=[FRONT])))
    return found


def written(found):
    """Key -> (value, lease)."""
    return {w.key: (w.value, w.lease) for w in found.writes}


def test_a_new_container_claims_what_only_one_can_have(state, commons):
    """Each address and the name must be free and go with the lease; the network must be there."""
    found = transaction(Change(put=[WEB, AT]), state, commons, LEASE)

    claims = {
        keys.address(BLUE.id, AT.v4),
        keys.address(BLUE.id, AT.v6),
        keys.name(BLUE.id, "web"),
    }
    announcement = keys.announced(BLUE.id, AT.id)
    assert {*map(At, claims), At(keys.network(BLUE.id), 5)} == set(found.compares)
    assert claims | {announcement} == written(found).keys()
    for key in claims:
        value, lease = written(found)[key]
        assert Claim(host=ME, name="Web", endpoint=AT.id) == decode(Claim, value)
        assert lease == LEASE
    value, lease = written(found)[announcement]
    assert lease == LEASE
    assert Announced(
        id=AT.id,
        network=BLUE.id,
        host=ME,
        sandbox=WEB.id,
        name="Web",
        names=("web", "www", "w"),
        v4=AT.v4,
        v6=AT.v6,
        mac=AT.mac,
        labels={"app": "shop"},
    ) == decode(Announced, value)
    assert [] == found.erases


def test_a_container_costs_a_few_keys_whatever_else_there_is(state, commons):
    """The hundredth on a network writes as much as the first."""
    sizes = set()
    for n in range(100):
        who = sandbox(f"c{n}")
        change = Change(put=[who, on(who, BLUE, 2 + n).endpoint])
        found = transaction(change, state, commons, LEASE)
        sizes.add((len(found.compares), len(found.writes), len(found.erases)))
        asyncio.run(state.commit(change))

    assert {(4, 4, 0)} == sizes


def test_what_is_this_host_s_alone_concerns_nobody(state, commons):
    """Networks and containers of its own: no transaction, and only a copy."""
    alone = sandbox("db")
    change = Change(put=[network("back", 2), alone, on(alone, FRONT, 2).endpoint])

    assert not transaction(change, state, commons, LEASE)
    assert "" == concerns_others(change)
    copied = local_records(change)
    assert 3 == len(copied)
    assert encode(alone) == copied[f"{keys.ROOT}/sandboxes/{alone.id}"]
    assert {None} == set(local_records(Change(delete=change.put)).values())
    assert {} == local_records(Change(put=[BLUE], delete=[GREEN]))


def test_a_removed_container_leaves_nothing(state, commons):
    """Every key that its making wrote is erased, whatever it has done since."""
    made = transaction(Change(put=[WEB, AT]), state, commons, LEASE)
    asyncio.run(state.commit(Change(put=[WEB, AT])))
    asyncio.run(state.commit(Change(put=[replace(WEB, phase=Phase.STOPPED)])))
    gone = transaction(Change(delete=[AT, WEB]), state, commons, LEASE)

    assert {Erase(key) for key in written(made)} == set(gone.erases)
    assert ([], []) == (gone.compares, gone.writes)


def test_what_others_have_by_now_is_not_erased(state, commons):
    """Of a container whose address was lost only what it announced; of one whose name was lost,
    all but the name."""
    asyncio.run(state.commit(Change(put=[WEB, AT])))
    commons.lost[AT.id] = "why"
    assert [Erase(keys.announced(BLUE.id, AT.id))] == transaction(
        Change(delete=[AT, WEB]), state, commons, LEASE
    ).erases

    commons.lost.clear()
    commons.unnamed[AT.id] = "why"
    found = transaction(Change(delete=[AT, WEB]), state, commons, LEASE).erases
    assert Erase(keys.name(BLUE.id, "Web")) not in found
    assert Erase(keys.address(BLUE.id, AT.v4)) in found
    assert ("www", "w") == announced(AT, WEB, commons).names


def test_a_lost_container_is_not_announced(state, commons):
    """Its address is another's: starting and stopping it tells nobody."""
    asyncio.run(state.commit(Change(put=[WEB, AT])))
    commons.lost[AT.id] = "why"

    assert not transaction(Change(put=[replace(WEB, phase=Phase.STOPPED)]), state, commons, LEASE)


def test_a_stopped_container_keeps_its_claims_and_loses_its_names(state, commons):
    """It is announced without names, and claims nothing anew."""
    asyncio.run(state.commit(Change(put=[WEB, AT])))
    found = transaction(Change(put=[replace(WEB, phase=Phase.STOPPED)]), state, commons, LEASE)

    assert [] == found.compares
    (write,) = found.writes
    assert () == decode(Announced, write.value).names


def test_networks_come_with_the_container(state, commons):
    """Every network of a container hears of a change to it, each once."""
    asyncio.run(state.commit(Change(put=[WEB, AT])))
    more = on(WEB, GREEN, 2, "eth1").endpoint
    found = transaction(Change(put=[more, replace(WEB, hostname="new")]), state, commons, LEASE)

    assert {keys.announced(BLUE.id, AT.id), keys.announced(GREEN.id, more.id)} <= written(
        found
    ).keys()
    assert len(found.writes) == len(written(found)) == 5
    left = transaction(Change(delete=[AT]), state, commons, LEASE)
    assert not any(GREEN.id in erase.key for erase in left.erases)


def test_a_network_that_went_meanwhile(state, commons):
    """Nothing is written for a container on it, as if it went in the next moment."""
    state.unlearn(BLUE.id)
    with pytest.raises(Clash) as caught:
        transaction(Change(put=[WEB, AT]), state, commons, LEASE)
    assert keys.network(BLUE.id) == caught.value.key


def test_a_block_is_claimed_as_it_is_known(state, commons):
    """A new one must not exist, a dead host's must not have changed; no lease ends it."""
    key = keys.block(BLUE.id, BLOCK.cidr)
    new = transaction(Change(claim=[BLOCK]), state, commons, LEASE)
    commons.take([(key, encode(replace(BLOCK, host=HostId(f"{2:012x}"))), 9)])
    taken = transaction(Change(claim=[BLOCK]), state, commons, LEASE)

    assert [At(key, 0), At(keys.network(BLUE.id), 5)] == new.compares
    assert [At(key, 9), At(keys.network(BLUE.id), 5)] == taken.compares
    assert [Write(key, encode(BLOCK))] == new.writes == taken.writes
    assert [Erase(key)] == transaction(Change(release=[BLOCK]), state, commons, LEASE).erases
    assert "10.77.7.0/28" in concerns_others(Change(claim=[BLOCK]))


def test_a_network_is_made_by_one_at_a_time(state, commons):
    """Its name and id must be free, and nobody may have made one since subnets were chosen."""
    red = overlay("red", 9)
    commons.revisions[keys.NETWORK_TURN] = 4
    found = transaction(Change(put=[red]), state, commons, LEASE)

    assert {
        At(keys.network(red.id)),
        At(keys.network_name("red")),
        At(keys.NETWORK_TURN, 4),
    } == set(found.compares)
    assert {keys.network(red.id), keys.network_name("red"), keys.NETWORK_TURN} == set(
        written(found)
    )
    assert {0} == {lease for _, lease in written(found).values()}
    assert "red is the whole cluster's" in concerns_others(Change(put=[red]))


def test_a_network_goes_when_nobody_has_an_address(state, commons):
    """And then with all that was about it."""
    found = transaction(Change(delete=[BLUE]), state, commons, LEASE)

    assert [Empty(keys.addresses(BLUE.id))] == found.compares
    assert [] == found.writes
    gone = [
        *(keys.network(BLUE.id), keys.network_name("blue"), keys.block(BLUE.id, BLOCK.cidr)),
        *(keys.announced(BLUE.id, AT.id), keys.name(BLUE.id, "web")),
    ]
    for key in gone:
        assert any(key.startswith(e.key) if e.prefix else key == e.key for e in found.erases), key
    other = keys.block(GREEN.id, BLOCK.cidr)
    assert not any(other.startswith(e.key) for e in found.erases)
    assert "blue" in concerns_others(Change(delete=[BLUE]))
