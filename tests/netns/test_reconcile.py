"""Small steps and full looks, on the real kernel.

outside 192.0.2.200 --- 192.0.2.1 eth0 host          a, b (to be attached)
"""

from __future__ import annotations

import asyncio

import pytest

from seaway.agent.reconcile import Pace
from seaway.errors import KernelError
from seaway.plan.sandboxes import plan_sandbox, veth_name
from tests.support.model import macvlan, network, on, sandbox
from tests.support.netns import cable, namespaces
from tests.support.world import world

FRONT, BACK = network("front", 1), network("back", 2)
QUICK = Pace(settle=0.001, retry=0.01, resync=60)


@pytest.fixture
def site():
    """The machines, and a settled world of two networks."""
    with namespaces("outside", "host", "a", "b") as (outside, host, a, b):
        cable(outside, "eth0", "192.0.2.200/24", host, "eth0", "192.0.2.1/24")
        with world(host) as it:
            it.outside, it.host, it.a, it.b = outside, host, a, b
            it.networks = [FRONT, BACK]
            it.settle()
            yield it


def box(space, name="web", publish=("8080:80",), **more):
    """A sandbox in one of the test's namespaces."""
    return sandbox(name, publish, netns=str(space.path), **more)


def change(site, who, *attachments):
    """Want it and make it so in one small step."""
    site.put(who, *attachments)
    plan = plan_sandbox(who, attachments, site.facts)
    asyncio.run(site.kernel.change(f"sandbox/{who.name}", plan))


def test_small_steps_leave_nothing_to_do(site):
    """Attach, connect, move the default route, disconnect, detach: a full look agrees each time."""
    web = box(site.a)
    first, second = on(web, FRONT, 2), on(web, BACK, 2, "eth1")
    for attachments in (
        [first],
        [first, second],
        [on(web, FRONT, 2, gw_priority=1), second],
        [second],
        [second, first],
        [],
    ):
        change(site, web, *attachments)
        assert [] == site.todo()
    assert "swv-" not in site.host.run("ip -o link")


def test_a_step_that_changes_nothing_does_nothing(site):
    """The same again is not even sent to the kernel."""
    web = box(site.a)
    change(site, web, on(web, FRONT, 2))
    site.host.run("ip route del 10.77.1.2")

    change(site, web, on(web, FRONT, 2))

    assert ["+ route 10.77.1.2/32"] == [line.partition(" dev")[0] for line in site.todo()]
    site.settle()


def test_a_step_that_fails_is_put_right_by_the_look_it_asks_for(site):
    """What had been made before the refusal goes again."""
    web = box(site.a)
    with pytest.raises(KernelError):
        change(site, web, on(web, FRONT, 2), on(web, BACK, 2, "lo"))
    site.sandboxes.clear()
    before = site.kernel.repairs

    asyncio.run(once(site))

    assert site.kernel.repairs > before
    assert [] == site.todo()
    assert "swv-" not in site.host.run("ip -o link")
    assert "eth0" not in site.a.run("ip -o link")


def test_a_macvlan_that_fails_is_taken_back(site):
    """It is made, its address is refused, and it is gone from the namespace that is not ours."""
    wire = macvlan("wire", "2001:db8::/64", "2001:db8::1")
    web = box(site.a)
    site.a.run("sysctl -qw net.ipv6.conf.default.disable_ipv6=1")
    with pytest.raises(KernelError):
        change(site, web, on(web, wire, 77))

    assert "eth0" not in site.a.run("ip -o link")


def test_links_inside_go_before_the_state_forgets_them(site):
    """Those named, and nothing else; afterwards the step itself finds them gone, and is fine."""
    wire = macvlan("wire", "192.0.2.0/24", "192.0.2.200")
    web = box(site.a)
    change(site, web, on(web, FRONT, 2), on(web, wire, 77, "eth1"))

    site.kernel.drop_inner_links("sandbox/web", {"eth1", "eth9"})
    left = site.a.run("ip -o link")
    change(site, web, on(web, FRONT, 2))

    assert "eth0" in left
    assert "eth1" not in left
    assert [] == site.todo()


async def once(site):
    """Let the loop run until it has done what it was asked."""
    site.kernel.kick("the test")
    loop = asyncio.ensure_future(site.kernel.run(QUICK))
    async with asyncio.timeout(5):
        while site.kernel._kicked.is_set() or site.kernel.look():
            await asyncio.sleep(0.01)
    loop.cancel()


def test_a_look_that_fails_is_tried_again(site):
    """The error is kept for status(), and goes when the cause has gone."""
    wire = macvlan("wire", "192.0.2.0/24", "192.0.2.200", parent="eth7")
    web = box(site.a)
    site.put(web, on(web, wire, 77))

    async def work():
        loop = asyncio.ensure_future(site.kernel.run(QUICK))
        site.kernel.kick("the test")
        async with asyncio.timeout(5):
            while not site.kernel.error:
                await asyncio.sleep(0.01)
        assert "eth7" in site.kernel.error
        site.host.run("ip link add eth7 type veth peer name eth8")
        async with asyncio.timeout(5):
            while site.kernel.error:
                await asyncio.sleep(0.01)
        loop.cancel()

    asyncio.run(work())
    assert [] == site.todo()


def test_repairs_are_counted_and_told(site):
    """As many as there were steps, with the first of them and the reason."""
    web = box(site.a)
    change(site, web, on(web, FRONT, 2))
    before, events = site.kernel.repairs, len(site.events.since())
    veth = veth_name(on(web, FRONT, 2).endpoint)
    site.host.run(f"ip link del {veth}")

    done = site.settle()

    assert len(done.lines()) == site.kernel.repairs - before
    (event,) = site.events.since()[events:]
    assert ("kernel_repaired", "the test") == (event.kind, event.facts["why"])
    assert veth in event.facts["first"]
    site.settle()
    assert events + 1 == len(site.events.since())
