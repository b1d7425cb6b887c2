"""Addresses on networks of the whole cluster: whose blocks they come from, in which order."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address, ip_network
from types import SimpleNamespace

import pytest

from seaway.agent import addressing
from seaway.agent.addressing import Wants
from seaway.agent.commons import Commons
from seaway.agent.state import Change
from seaway.errors import Conflict, Exhausted, InvalidSpec, StoreError
from seaway.model.cluster import Block, HostId
from seaway.model.network import NetworkId
from seaway.store import keys
from seaway.store.codec import encode
from tests.support.core import MemoryStore, bare_core
from tests.support.model import on, sandbox, subnet
from tests.support.overlay import host, overlay

HOSTS = [host(f"host{n}", n) for n in range(1, 4)]
ME, TWO, THREE = (h.id for h in HOSTS)
BLUE = overlay("blue", 7, subnets=(subnet("10.77.7.0/26"), subnet("fd77:7::/64")))
TINY = overlay("tiny", 8, subnets=(subnet("10.77.8.0/29"),))


class Cluster:
    """This host's part in a cluster: what is claimed is set by the test."""

    def __init__(self, core):
        self.core = core
        self.commons = Commons(ME)
        self.claimed = set()
        self.answering = set()
        self.probes = SimpleNamespace(answers=self._answers)
        self.session = SimpleNamespace(
            online=True, error="gone fishing", commons=self.commons, claimed=self._claimed
        )
        self.commons.take([(keys.host(h.id), encode(h), 5) for h in HOSTS])
        self.alive(ME, TWO, THREE)
        for network in (BLUE, TINY):
            core.state.learn(network)

    async def _answers(self, host):
        return host.id in self.answering

    async def _claimed(self, _network):
        return {str(address) for address in self.claimed}

    def alive(self, *hosts):
        """These and no others."""
        self.commons.replace([keys.ALIVE], [(keys.alive(h), b"1", 5) for h in hosts])

    def owns(self, owner, *cidrs, network=BLUE):
        """Give a host blocks."""
        for cidr in map(ip_network, cidrs):
            block = Block(network=network.id, cidr=cidr, host=owner)
            self.commons.take([(keys.block(network.id, cidr), encode(block), 5)])

    def has(self, *addresses, network=BLUE):
        """Have containers here with these addresses, which are claimed then."""
        for text in addresses:
            who = sandbox(f"c{text.replace(':', '-')}")
            endpoint = replace(on(who, network, 2).endpoint, v4=ip_address(text), v6=None)
            asyncio.run(self.core.state.commit(Change(put=[who, endpoint])))
        self.claimed |= set(addresses)


@pytest.fixture
def core():
    """A member of a cluster of three."""
    found = bare_core(MemoryStore())
    found.cluster = Cluster(found)
    return found


@pytest.fixture
def cluster(core):
    """Its part in it."""
    return core.cluster


def ask(core, wanted=None, version=4, network=BLUE, wants=None):
    """Choose an address; return it and the blocks to be claimed, as text."""
    wants = wants or Wants()
    address = ip_address(wanted) if wanted else None
    found = asyncio.run(addressing.address(core, network, version, address, wants))
    return str(found), [str(b.cidr) for b in wants.claim]


def refusal(error, core, *asked, **more):
    """The one line that says why not."""
    with pytest.raises(error) as caught:
        ask(core, *asked, **more)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_own_blocks_come_first(core, cluster):
    """Whatever else is free; each address once, without asking anybody."""
    cluster.owns(ME, "10.77.7.16/28", "fd77:7::5:0/112")
    cluster.has("10.77.7.16")

    assert ("10.77.7.17", []) == ask(core)
    assert ("10.77.7.18", []) == ask(core)  # the one before may be on its way
    assert ("fd77:7::5:0", []) == ask(core, version=6)


def test_the_first_block_is_that_of_the_host_s_number(core, cluster):
    """So that hosts that begin at once begin at different ones; later the next that is free."""
    assert ("10.77.7.2", ["10.77.7.0/28"]) == ask(core)
    assert ("fd77:7::2", ["fd77:7::/112"]) == ask(core, version=6)
    cluster.commons.me = TWO
    assert ("10.77.7.16", ["10.77.7.16/28"]) == ask(core)
    cluster.owns(THREE, "10.77.7.16/28")
    core.cursors.clear()
    assert ("10.77.7.32", ["10.77.7.32/28"]) == ask(core)


def test_full_blocks_lead_to_another(core, cluster):
    """Also where somebody has borrowed the rest of them."""
    cluster.owns(ME, "10.77.7.0/28")
    cluster.has(*(f"10.77.7.{n}" for n in range(2, 15)))
    cluster.owns(TWO, "10.77.7.15/32", "10.77.7.16/28")

    assert ("10.77.7.32", ["10.77.7.32/28"]) == ask(core)


def test_then_what_living_hosts_lend(core, cluster):
    """Of the back halves of their blocks, what nobody has; then what dead hosts had."""
    cluster.owns(ME, "10.77.7.0/28")
    cluster.has(*(f"10.77.7.{n}" for n in range(2, 16)))
    cluster.owns(TWO, "10.77.7.16/28", "10.77.7.32/28")
    cluster.owns(THREE, "10.77.7.48/28")
    cluster.claimed |= {f"10.77.7.{n}" for n in (24, 25)}
    cluster.alive(ME, TWO)

    assert ("10.77.7.26", ["10.77.7.26/32"]) == ask(core)
    wants = Wants(avoid={ip_address("10.77.7.26")})
    assert ("10.77.7.27", ["10.77.7.27/32"]) == ask(core, wants=wants)
    cluster.claimed |= {f"10.77.7.{n}" for n in (*range(24, 32), *range(40, 48))}
    assert ("10.77.7.48", ["10.77.7.48/28"]) == ask(core)


def test_a_dead_host_s_block_is_taken_over_with_what_is_lent_of_it(core, cluster):
    """What living hosts have borrowed there stays theirs; a block that is full is passed over."""
    cluster.owns(ME, "10.77.8.0/31", network=TINY)
    cluster.owns(TWO, "10.77.8.2/31", "10.77.8.4/31", network=TINY)
    cluster.owns(
        THREE, "10.77.8.6/31", "10.77.8.2/32", "10.77.8.3/32", "10.77.8.5/32", network=TINY
    )
    cluster.claimed |= {"10.77.8.2", "10.77.8.3", "10.77.8.5", "10.77.8.6"}
    cluster.alive(ME, THREE)

    assert ("10.77.8.4", ["10.77.8.4/31"]) == ask(core, network=TINY)


def test_a_host_that_only_lost_the_store_keeps_its_block(core, cluster):
    """It answers, so its containers go on: nothing of theirs is given to others."""
    cluster.owns(ME, "10.77.8.0/31", network=TINY)
    cluster.owns(TWO, "10.77.8.2/31", "10.77.8.4/31", "10.77.8.6/31", network=TINY)
    cluster.claimed |= {f"10.77.8.{n}" for n in range(1, 3)}
    cluster.alive(ME)
    cluster.answering.add(TWO)

    assert "remove containers" in refusal(Exhausted, core, network=TINY)


def test_nothing_is_left(core, cluster):
    """The range, how many have it, and what to do."""
    cluster.owns(ME, "10.77.8.0/31", network=TINY)
    cluster.owns(TWO, "10.77.8.2/31", "10.77.8.4/31", "10.77.8.6/31", network=TINY)
    cluster.claimed |= {f"10.77.8.{n}" for n in range(1, 7)}

    why = refusal(Exhausted, core, network=TINY)
    assert "10.77.8.0/29" in why
    assert "4 blocks belong to 2 hosts" in why
    assert "remove containers" in why


def test_without_the_store_only_the_front_half(core, cluster):
    """The back half may be lent meanwhile; the message says what is missing, and why."""
    cluster.owns(ME, "10.77.7.16/28")
    cluster.session.online = False
    found = []
    for _ in range(8):
        address, claims = ask(core)
        assert [] == claims
        cluster.has(address)
        found.append(address)

    assert [f"10.77.7.{n}" for n in range(16, 24)] == found
    why = refusal(StoreError, core)
    assert "gone fishing" in why
    assert "blue" in why
    assert "gone fishing" in refusal(StoreError, core, "10.77.7.24")
    assert "gone fishing" in refusal(StoreError, core, "10.77.7.2")
    cluster.session.online = True
    assert ("10.77.7.24", []) == ask(core)


def test_a_chosen_address(core, cluster):
    """In our block it is ours; in nobody's we own the block; in another's, we borrow it alone."""
    cluster.owns(ME, "10.77.7.0/28")
    cluster.owns(TWO, "10.77.7.16/28", "10.77.7.9/32")
    cluster.has("10.77.7.5")

    assert ("10.77.7.8", []) == ask(core, "10.77.7.8")
    assert ("10.77.7.40", ["10.77.7.32/28"]) == ask(core, "10.77.7.40")
    assert ("10.77.7.17", ["10.77.7.17/32"]) == ask(core, "10.77.7.17")
    assert ("fd77:7::9:1", ["fd77:7::9:0/112"]) == ask(core, "fd77:7::9:1", 6)
    assert "c10.77.7.5" in refusal(Conflict, core, "10.77.7.5")
    assert "on host2" in refusal(Conflict, core, "10.77.7.9")
    assert "gateway" in refusal(Conflict, core, "10.77.7.1")
    assert "outside" in refusal(InvalidSpec, core, "10.78.0.1")
    assert "10.77.7.63" in refusal(InvalidSpec, core, "10.77.7.63")


def test_a_chosen_address_outside_the_range(core, cluster):
    """It is owned alone: the range's blocks are for those who do not choose."""
    narrow = replace(
        BLUE,
        id=NetworkId("d" * 12),
        name="narrow",
        subnets=(subnet("10.77.9.0/24", ip_range=ip_network("10.77.9.128/25")),),
    )
    core.state.learn(narrow)

    assert ("10.77.9.7", ["10.77.9.7/32"]) == ask(core, "10.77.9.7", network=narrow)
    assert ("10.77.9.128", ["10.77.9.128/28"]) == ask(core, network=narrow)


def test_a_family_that_a_network_has_not(core):
    """Nothing is given out, unless it was asked for."""
    assert ("None", []) == ask(core, version=6, network=TINY)
    assert "no IPv6 subnet" in refusal(InvalidSpec, core, "fd00::1", version=6, network=TINY)


def test_hosts_that_are_not_known_may_own_blocks(core, cluster):
    """A record may come before its host's: it counts as one that does not live."""
    cluster.owns(ME, "10.77.8.0/31", network=TINY)
    cluster.owns(HostId("f" * 12), "10.77.8.2/31", "10.77.8.4/31", "10.77.8.6/31", network=TINY)

    assert ("10.77.8.2", ["10.77.8.2/31"]) == ask(core, network=TINY)
