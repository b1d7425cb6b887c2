"""Hosts that are not set as a fresh one is: containers work all the same, or are told why not.

    outside 192.0.2.200 --- 192.0.2.1 eth0 host          a, b (to be attached)
            2001:db8::200   2001:db8::1

The agent of the last tests is a process of its own in the host's namespace.
"""

from __future__ import annotations

import asyncio

import pytest

from seaway.agent.guests import Neighbours
from seaway.errors import Conflict, InvalidSpec
from seaway.kernel import surroundings
from seaway.plan.sandboxes import plan_sandbox, veth_name
from tests.support.agent import agent_on
from tests.support.core import MemoryStore, bare_core
from tests.support.model import network, on, sandbox, subnet
from tests.support.netns import cable, namespaces, wait_until
from tests.support.world import world

FRONT = network("front", 1)
NO_IPV6 = {
    "on links there are": "net.ipv6.conf.all.disable_ipv6=1",
    "on links to come": "net.ipv6.conf.default.disable_ipv6=1",
}


@pytest.fixture
def machines():
    """Outside, which answers on port 80; the host; two namespaces to attach."""
    with namespaces("outside", "host", "a", "b") as spaces:
        outside, host = spaces[:2]
        cable(
            *(outside, "eth0", "192.0.2.200/24,2001:db8::200/64"),
            *(host, "eth0", "192.0.2.1/24,2001:db8::1/64"),
        )
        host.run("ip route add default via 192.0.2.200")
        with outside.serving(80), outside.serving(81, address="::"):
            yield spaces


def box(space, name="web", publish=("8080:80",)):
    """A sandbox in one of the test's namespaces."""
    return sandbox(name, publish, netns=str(space.path))


def settled(machines, *networks):
    """Attach a to *networks*, on a host as it is found."""
    _, host, a, _ = machines
    with world(host) as it:
        it.facts = surroundings.facts(it.applier.netlink)
        it.networks = networks
        web = box(a)
        it.put(web, *(on(web, where, 2, f"eth{n}") for n, where in enumerate(networks)))
        it.settle()
    return it


def test_a_network_of_small_packets(machines):
    """Below what IPv6 needs a network has IPv4 alone, and works: both ways, and with members."""
    outside, _, a, _ = machines
    small = network("small", 3, subnets=(subnet("10.77.3.0/24"),), options={"mtu": "1000"})

    settled(machines, small)

    assert "mtu 1000 " in a.run("ip -o link show eth0")
    assert "192.0.2.1" == a.ask("192.0.2.200", 80)
    with a.serving(80):
        assert "192.0.2.200" == outside.ask("192.0.2.1", 8080)


def test_a_network_of_small_packets_beside_another(machines):
    """Each link has its own size, and IPv6 where it fits."""
    _, _, a, _ = machines
    small = network("small", 3, subnets=(subnet("10.77.3.0/24"),), options={"mtu": "1000"})

    settled(machines, FRONT, small)

    assert "2001:db8::1" == a.ask("2001:db8::200", 81)


def test_small_packets_and_ipv6_are_refused():
    """With what to do about it."""
    with pytest.raises(InvalidSpec, match=r"mtu of 1280: raise it or add --ipv6=false"):
        network("small", 3, options={"mtu": "1279"})


@pytest.mark.parametrize("where", NO_IPV6)
def test_a_host_without_ipv6(machines, where):
    """Networks of both families are IPv4 networks there, and nothing of IPv6 is even tried."""
    outside, host, a, _ = machines
    host.run(f"sysctl -qw {NO_IPV6[where]}")

    assert not settled(machines, FRONT).facts.ipv6

    assert "fd77:" not in a.run("ip -6 -o address show dev eth0") + host.run("ip -6 -o address")
    assert "" == a.run("ip -6 route show proto 86") + host.run("ip -6 route show proto 86")
    assert "192.0.2.1" == a.ask("192.0.2.200", 80)
    with a.serving(80):
        assert "192.0.2.200" == outside.ask("192.0.2.1", 8080)


def test_new_links_that_do_not_forward(machines):
    """Hardening guides turn forwarding off for links to come; ours forward all the same."""
    outside, host, a, _ = machines
    for line in ("ipv4.ip_forward=1", "ipv6.conf.all.forwarding=1"):
        host.run(f"sysctl -qw net.{line}")
    for line in ("ipv4.conf.default.forwarding=0", "ipv6.conf.default.forwarding=0"):
        host.run(f"sysctl -qw net.{line}")

    settled(machines, FRONT)

    assert "192.0.2.1" == a.ask("192.0.2.200", 80)
    assert "2001:db8::1" == a.ask("2001:db8::200", 81)
    with a.serving(80):
        assert "192.0.2.200" == outside.ask("192.0.2.1", 8080)


def test_the_size_of_packets_follows_the_way_out(machines):
    """A new default route or MTU is noticed, once, and asks for a look that gives every link of
    ours the new size; networks with a size of their own keep it."""
    _, host, a, b = machines
    wide = network("wide", 2, options={"mtu": "1300"})
    with world(host) as it:
        it.networks = [FRONT, wide]
        web, db = box(a), box(b, "db", ())
        it.put(web, on(web, FRONT, 2))
        it.put(db, on(db, wide, 2))
        it.settle()
        core = bare_core(MemoryStore())
        core.host = surroundings.facts(it.applier.netlink)
        guests = Neighbours(core, it.applier.netlink)
        asyncio.run(guests._facts())
        assert ([], 1500) == (core.kernel.kicks, core.host.mtu)

        host.run("ip link set eth0 mtu 1400")
        asyncio.run(guests._facts())
        asyncio.run(guests._facts())
        it.facts = core.host
        it.settle()

    (why,) = core.kernel.kicks
    assert "size" in why
    (event,) = core.events.since()
    assert ("mtu_changed", "1500", "1400") == (event.kind, *event.facts.values())
    veths = veth_name(on(web, FRONT, 2).endpoint), veth_name(on(db, wide, 2).endpoint)
    for space, link, mtu in (
        (host, "swg0", 1400),
        (host, veths[0], 1400),
        (a, "eth0", 1400),
        (host, veths[1], 1300),
        (b, "eth0", 1300),
    ):
        assert f"mtu {mtu} " in space.run(f"ip -o link show {link}")


@pytest.mark.parametrize("act", ["nft delete table inet seaway", "nft flush ruleset"])
def test_a_change_right_after_somebody_deleted_our_table(machines, act):
    """Attaching and detaching succeed before anybody has repaired it, and leave nothing to do."""
    outside, host, a, _ = machines
    with world(host) as it:
        it.networks = [FRONT]
        it.settle()
        web = box(a)
        it.put(web, on(web, FRONT, 2))

        host.run(act)
        step(it, web, plan_sandbox(web, [on(web, FRONT, 2)], it.facts))
        assert [] == it.todo()
        with a.serving(80):
            assert "192.0.2.200" == outside.ask("192.0.2.1", 8080)

        it.sandboxes.clear()
        host.run(act)
        step(it, web, ())
        assert [] == it.todo()
        assert "swv-" not in host.run("ip -o link")


def test_a_change_right_after_somebody_deleted_an_element(machines):
    """To remove what is removed already is success, as far as the user is concerned."""
    _, host, a, _ = machines
    with world(host) as it:
        it.networks = [FRONT]
        it.settle()
        web = box(a)
        it.put(web, on(web, FRONT, 2))
        step(it, web, plan_sandbox(web, [on(web, FRONT, 2)], it.facts))

        host.run("nft delete element inet seaway publish_any4 { tcp . 8080 }")
        it.sandboxes.clear()
        step(it, web, ())
        assert [] == it.todo()


def step(it, who, plan):
    """One small step of the reconciler, as for a request."""
    asyncio.run(it.kernel.change(f"sandbox/{who.name}", plan))


def test_an_agent_on_such_a_host(machines):
    """All of it at once, with real ports and names; the agent's own port 53 is called its own."""
    outside, host, a, b = machines
    host.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1 net.ipv4.ip_forward=1")
    host.run("sysctl -qw net.ipv4.conf.default.forwarding=0")
    with agent_on(host) as agent:
        assert not agent.status()["ipv6"]
        agent.network("front", 1)
        agent.post("networks", {"name": "small", "ipv6": False, "options": {"mtu": "1000"}})
        agent.attach("web", a, "front", "small", publish=["8080:80"])
        with a.serving(80):
            assert "192.0.2.200" == outside.ask("192.0.2.1", 8080)
        assert "192.0.2.1" == a.ask("192.0.2.200", 80)

        for kind in ("udp", "tcp"):
            with pytest.raises(Conflict, match=rf"53/{kind} is Seaway's own .* -p 192\.0\.2\.1:53"):
                agent.attach("dns", b, "front", publish=[f"53:53/{kind}"])
        agent.attach("dns", b, "front", publish=["192.0.2.1:53:53/udp", "192.0.2.1:53:53"])
        with b.serving(53, "it", "udp"), b.serving(53, "it"):
            assert "it" == outside.ask("192.0.2.1", 53, "udp") == outside.ask("192.0.2.1", 53)

        host.run("ip link set eth0 mtu 1400")
        host.run("nft add table inet other")  # so that the agent looks at once what others do
        wait_until(lambda: "mtu 1400 " in b.run("ip -o link show eth0"))
        assert 1400 == agent.status()["mtu"]
        assert "mtu 1000 " in a.run("ip -o link show eth1")
        wait_until(lambda: not agent.plan())
        assert agent.status()["healthy"]
