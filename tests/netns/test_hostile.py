"""Containers and neighbours that mean harm: it ends where it begins.

    outside 192.0.2.200 --- 192.0.2.1 eth0 host          a, b, c (to be attached)

What is done inside a is what any container with CAP_NET_ADMIN can do there.
"""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import contextmanager
from itertools import pairwise

import pytest

from seaway.agent.guests import Neighbours
from seaway.agent.reconcile import Pace
from seaway.kernel import observe, surroundings
from seaway.plan.sandboxes import plan_sandbox, veth_name
from tests.support import frames
from tests.support.agent import agent_on
from tests.support.core import MemoryStore, bare_core
from tests.support.model import network, on, sandbox
from tests.support.netns import cable, namespaces
from tests.support.talk import recording, tell
from tests.support.world import world

FRONT, BACK, INNER = network("front", 1), network("back", 2), network("inner", 3, internal=True)
ODD_NAME = r"""ip link add "$(printf '\377y')" type veth"""

HARM = {
    "a link name of odd bytes": (ODD_NAME, "ip link set eth0 down"),
    "no IPv6": ("sysctl -qw net.ipv6.conf.all.disable_ipv6=1",),
    "the gateway's address": ("ip address add 10.77.1.1/32 dev lo", "ip route del default"),
    "an eth0 of its own": ("ip link set eth0 name eth9", "ip link add eth0 type bridge"),
}
"""What a container does to its own namespace: something of its network has to be put right then,
and all but the first of these make that impossible."""


@contextmanager
def machines():
    """Outside, the host, and three namespaces to attach."""
    with namespaces("outside", "host", "a", "b", "c") as spaces:
        outside, host = spaces[:2]
        cable(
            *(outside, "eth0", "192.0.2.200/24,2001:db8::200/64"),
            *(host, "eth0", "192.0.2.1/24,2001:db8::1/64"),
        )
        yield spaces


@pytest.fixture
def site():
    """The machines, and a world with three networks."""
    with machines() as (outside, host, a, b, c), world(host) as it:
        it.outside, it.host, it.a, it.b, it.c = outside, host, a, b, c
        it.networks = [FRONT, BACK, INNER]
        it.settle()
        yield it


def box(space, name, publish=()):
    """A sandbox in one of the test's namespaces."""
    return sandbox(name, publish, netns=str(space.path))


def change(site, who, *attachments):
    """Want it, or that it is gone, and make it so in one small step."""
    plan = ()
    site.sandboxes.pop(who.name, None)
    if attachments:
        site.put(who, *attachments)
        plan = plan_sandbox(who, attachments, site.facts)
    asyncio.run(site.kernel.change(f"sandbox/{who.name}", plan))


def greet(site, *addresses):
    """Connect from the host to port 80."""
    for address in addresses:
        site.host.python(f"import socket; socket.create_connection(('{address}', 80), 2)")


@pytest.mark.parametrize("harm", HARM)
def test_what_one_namespace_holds_harms_no_other(site, harm):
    """Whatever it does to itself, others are attached, repaired, disconnected and removed."""
    bad, web, db = box(site.a, "bad"), box(site.b, "web", ["8080:80"]), box(site.c, "db")
    change(site, bad, on(bad, FRONT, 2))
    change(site, web, on(web, FRONT, 3))
    for line in HARM[harm]:
        site.a.shell(line)

    change(site, db, on(db, FRONT, 4), on(db, BACK, 4, "eth1"))
    site.b.run("ip link set eth0 down")
    site.host.run("ip route del 10.77.1.4")
    site.kernel.try_audit("the test")
    with site.b.serving(80, address="::"), site.c.serving(80, address="::"):
        greet(site, "10.77.1.3", "fd77:1::3", "10.77.1.4", "fd77:1::4")
        assert "192.0.2.200" in site.outside.ask("192.0.2.1", 8080)

    change(site, db, on(db, BACK, 4, "eth1"))
    site.sandboxes.pop("web")
    site.kernel.try_audit("the test")
    links, rules = site.host.run("ip -o link"), site.host.run("nft list table inet seaway")
    assert veth_name(on(db, BACK, 4).endpoint) in links
    for gone in (on(db, FRONT, 4), on(web, FRONT, 3)):
        assert veth_name(gone.endpoint) not in links + rules
    assert "8080" not in rules
    harmless = harm == next(iter(HARM))
    assert harmless == (site.kernel.error == ""), site.kernel.error
    assert harmless == (not site.todo())
    assert not site.kernel.unseen

    change(site, bad)
    site.settle()


def test_a_change_is_made_in_full_beside_a_refusal(site):
    """Somebody deletes the table while one sandbox is refused: others come and go all the same."""
    bad, web = box(site.a, "bad"), box(site.b, "web", ["8080:80"])
    change(site, bad, on(bad, FRONT, 2))
    for line in HARM["the gateway's address"]:
        site.a.shell(line)

    site.host.run("nft delete table inet seaway")
    change(site, web, on(web, FRONT, 3))
    with site.b.serving(80):
        assert "192.0.2.200" == site.outside.ask("192.0.2.1", 8080)

    site.host.run("nft delete table inet seaway")
    change(site, web)
    left = site.host.run("ip -o link") + site.host.run("nft list table inet seaway")
    assert veth_name(on(web, FRONT, 3).endpoint) not in left


def test_odd_names_on_the_host(site):
    """What has the host's network may call links there what it likes, also a bridge that leads
    out, of which we have no way to speak to nft."""
    site.host.shell(ODD_NAME)
    site.host.shell(
        r"""odd="$(printf '\377%.0s' 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15)"
        ip link add "$odd" type bridge; ip link set "$odd" up; ip route add default dev "$odd"
        ip link add 'a"*\b' type bridge; ip link set eth0 master 'a"*\b'"""
    )
    site.facts = surroundings.facts(site.applier.netlink)
    web = box(site.b, "web")
    site.put(web, on(web, FRONT, 3))
    site.settle()

    with site.b.serving(80):
        greet(site, "10.77.1.3")


def test_what_nobody_thought_of_harms_no_other(site, monkeypatch):
    """A namespace whose contents we cannot make sense of is named, and left out."""
    bad, web = box(site.a, "bad"), box(site.b, "web")
    change(site, bad, on(bad, FRONT, 2))
    change(site, web, on(web, FRONT, 3))
    look = observe.inside

    def inside(path, names):
        if path == bad.netns:
            raise ValueError("what is that?")
        return look(path, names)

    monkeypatch.setattr(observe, "inside", inside)
    site.b.run("ip link set eth0 down")
    site.settle()

    assert {bad.netns: "ValueError: what is that?"} == site.kernel.unseen
    with site.b.serving(80):
        greet(site, "10.77.1.3")


def test_a_look_that_crashes_ends_nothing(site, monkeypatch):
    """It is told like any refusal, and tried again, each time after twice as long."""
    tries = []

    async def crash():
        tries.append(time.monotonic())
        raise ValueError("what is that?")

    async def five_times():
        loop = asyncio.ensure_future(site.kernel.run(Pace(settle=0, retry=0.02, resync=60)))
        async with asyncio.timeout(5):
            while len(tries) < 5:
                await asyncio.sleep(0.01)
        assert "ValueError: what is that?" == site.kernel.error
        monkeypatch.undo()
        async with asyncio.timeout(5):
            while site.kernel.error:
                await asyncio.sleep(0.01)
        assert loop.cancel()

    monkeypatch.setattr(site.kernel, "look_aside", crash)
    site.kernel.kick("the test")
    asyncio.run(five_times())

    waits = [later - sooner for sooner, later in pairwise(tries)]
    assert all(wait >= 0.019 * 2**n for n, wait in enumerate(waits)), waits


def test_what_others_do_on_the_host_does_not_end_the_agent(monkeypatch):
    """Their firewall cannot be made sense of: told in status, until it can."""
    core = bare_core(MemoryStore())
    guests = Neighbours(core, None)

    async def crash():
        raise ValueError("what is that?")

    async def fine():
        pass

    async def come_and_go():
        monkeypatch.setattr(guests, "_look", crash)
        loop = asyncio.ensure_future(guests.run(settle=0))
        async with asyncio.timeout(5):
            while not guests.error:
                await asyncio.sleep(0.01)
        assert "ValueError: what is that?" == guests.error
        monkeypatch.setattr(guests, "_look", fine)
        guests.kick()
        async with asyncio.timeout(5):
            while guests.error:
                await asyncio.sleep(0.01)
        assert loop.cancel()

    asyncio.run(come_and_go())


def test_an_agent_starts_beside_a_refusal():
    """With one namespace of odd names and one that refuses, it starts, and knows what it has."""
    with machines() as (_, host, a, b, c), agent_on(host) as agent:
        agent.network("front", 1)
        for name, space in (("odd", a), ("bad", b), ("web", c)):
            agent.attach(name, space, "front")
        a.shell(ODD_NAME)
        agent.kill()
        for line in HARM["the gateway's address"]:
            b.shell(line)

        agent.start()
        assert not agent.status()["healthy"]
        veth = agent.get("sandboxes/web")["networks"][0]["host_interface"]
        agent.delete("sandboxes/web")

        left = host.run("ip -o link") + host.run("nft list table inet seaway")
        assert veth not in left
        agent.delete("sandboxes/bad")
        agent.delete("sandboxes/odd")
        assert [] == agent.plan()


@pytest.mark.parametrize("rp_filter", [0, 1, 2])
@pytest.mark.parametrize("where", [FRONT, INNER], ids=["front", "internal"])
def test_a_neighbour_is_no_member(site, where, rp_filter):
    """What comes from the wire under a member's address is dropped and counted, whatever the
    host's reverse path filter lets through; the member itself is heard."""
    web, db = box(site.b, "web"), box(site.c, "db")
    real, forged = on(web, where, 2).endpoint, on(db, where, 3).endpoint
    change(site, web, on(web, where, 2))
    change(site, db, on(db, where, 3))
    site.host.run(f"sysctl -qw net.ipv4.conf.eth0.rp_filter={rp_filter}")
    macs = frames.mac_of(site.outside, "eth0"), frames.mac_of(site.host, "eth0")
    counter = "drop_internal" if where.internal else "drop_isolated"
    before = dropped(site, counter)

    with recording(site.b, 9000) as heard:
        pairs = [(str(forged.v4), str(real.v4)), (str(forged.v6), str(real.v6))]
        frames.send(site.outside, "eth0", [frames.udp(macs, *pair, 9000) for pair in pairs])
        for _, target in pairs:
            tell(site.c, target, 9000, "me")
        assert [f"{source} me" for source, _ in pairs] == [heard(), heard()]

    # there is no such filter for IPv6, so that one always gets as far as our rules
    assert (1 if rp_filter == 1 else 2) == dropped(site, counter) - before


def dropped(site, counter):
    """Packets under one of our counters."""
    listing = json.loads(site.host.run(f"nft -j list counter inet seaway {counter}"))
    (found,) = (item["counter"] for item in listing["nftables"] if "counter" in item)
    return found["packets"]
