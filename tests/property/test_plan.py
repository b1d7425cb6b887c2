"""Plans: what must hold for any desired state."""

from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from seaway.model.ports import overlapping
from seaway.plan.diff import diff
from seaway.plan.host import HostFacts, plan_host
from seaway.plan.networks import plan_network
from seaway.plan.resources import Element, Link, LinkAddress, Neighbour, Route
from seaway.plan.ruleset import MAPS, PLAIN_SETS, SETS, set_names
from seaway.plan.sandboxes import gateway_order, plan_sandbox
from tests.support.model import bound, macvlan, network, on, sandbox, subnet

NETWORKS = [
    network("front", 1),
    network("back", 2, internal=True),
    network("only4", 3, subnets=(subnet("10.77.3.0/24"),)),
    network("only6", 4, subnets=(subnet("fd77:4::/64"),)),
    macvlan("wire", "192.0.2.0/24", "192.0.2.1"),
]
FORMS = [
    "{0}:80",
    "{0}:53/udp",
    "127.0.0.1:{0}:80",
    "[::1]:{0}:80/sctp",
    "{0}:80,from=192.0.2.0/24",
]

hosts = st.builds(HostFacts, ipv6=st.booleans(), mtu=st.integers(1280, 9000))


@st.composite
def worlds(draw):
    """Sandboxes on some of the networks, each with addresses and ports of its own."""
    found = []
    for number in range(draw(st.integers(0, 5))):
        ports = []
        for offset in range(draw(st.integers(0, 3))):
            port = 8000 + 100 * number + 10 * offset
            ports.append(bound(draw(st.sampled_from(FORMS)).format(port)))
            if draw(st.booleans()):
                ports.append(bound(f"{port + 1}-{port + 5}:{port + 1}-{port + 5}"))
        who = sandbox(f"c{number}", published=tuple(ports), made_netns=draw(st.booleans()))
        places = draw(st.lists(st.sampled_from(NETWORKS), unique_by=lambda n: n.name, max_size=4))
        found.append(
            (
                who,
                [
                    on(who, place, 10 + number, f"eth{i}", gw_priority=draw(st.integers(-1, 1)))
                    for i, place in enumerate(places)
                ],
            )
        )
    return found


def planned(world, facts):
    """Everything a host needs for it."""
    found = [*plan_host(facts)]
    for item in NETWORKS:
        found += plan_network(item, facts)
    for who, attachments in world:
        found += plan_sandbox(who, attachments, facts)
    return found


@given(worlds(), hosts)
def test_no_two_resources_are_the_same_object(world, facts):
    """Every key stands once in a host's plan, so nothing is decided twice."""
    keys = [item.key for item in planned(world, facts)]

    assert len(set(keys)) == len(keys)


@given(worlds(), hosts)
def test_elements_fit_their_sets(world, facts):
    """Each names a set of the table, with as many parts as its type has, and data if a map."""
    for item in planned(world, facts):
        if isinstance(item, Element):
            assert item.set in set_names()
            of = PLAIN_SETS.get(item.set) or (SETS | MAPS)[item.set[:-1]][0]
            key, _, value = of.partition(" : ")
            assert key.count(" . ") + 1 == len(item.match)
            assert (value.count(" . ") + 1 if value else 0) == len(item.value)


@given(worlds(), hosts)
def test_what_is_on_a_link_has_a_link(world, facts):
    """Addresses, routes and neighbours only on links of the same plan, or on none."""
    plan = planned(world, facts)
    links = {(item.netns, item.name) for item in plan if isinstance(item, Link)}
    links |= {(item.peer_netns, item.peer_name) for item in plan if isinstance(item, Link)}

    for item in plan:
        if isinstance(item, LinkAddress | Neighbour) or (isinstance(item, Route) and item.link):
            assert (item.netns, item.link) in links


@given(worlds(), hosts, st.randoms())
def test_the_order_of_attachments_does_not_matter(world, facts, rng):
    """The same resources, whatever order endpoints come in, as after a restart."""
    for who, attachments in world:
        shuffled = random.Random(rng.random()).sample(attachments, len(attachments))

        assert set(plan_sandbox(who, attachments, facts)) == set(plan_sandbox(who, shuffled, facts))
        assert gateway_order(attachments) == gateway_order(shuffled)


def carried_out(plan, observed):
    """The world after a plan: what a kernel would do."""
    world = {item.key: item for item in observed}
    for item in plan.create:
        assert item.key not in world
        world[item.key] = item
    for old, new in plan.change:
        assert world[old.key] == old
        world[new.key] = new
    for item in plan.delete:
        del world[item.key]
    return list(world.values())


@given(worlds(), worlds(), hosts)
def test_carrying_out_a_plan_reaches_the_desired_state(before, after, facts):
    """From any world to any other in one plan; a second one is empty."""
    have, want = planned(before, facts), planned(after, facts)
    reached = carried_out(diff(want, have), have)

    assert set(want) == set(reached)
    assert not diff(want, reached)


@given(worlds(), worlds(), hosts)
def test_small_steps_lead_where_a_full_look_leads(before, after, facts):
    """Changing one sandbox after the other ends in the same as planning everything at once."""
    have = planned(before, facts)
    old = {who.name: set(plan_sandbox(who, at, facts)) for who, at in before}
    new = {who.name: set(plan_sandbox(who, at, facts)) for who, at in after}
    for name in old.keys() - new.keys():
        have = carried_out(diff((), old[name]), have)
    for name, wanted in new.items():
        have = carried_out(diff(wanted, old.get(name, ())), have)

    assert set(planned(after, facts)) == set(have)


@given(worlds())
def test_ports_of_a_world_do_not_clash(world):
    """The worlds above are ones that can be: no two ports overlap."""
    ports = [port for who, _ in world for port in who.published]

    assert [] == [(a, b) for i, a in enumerate(ports) for b in ports[i + 1 :] if overlapping(a, b)]


@given(worlds(), hosts)
def test_a_reason_changes_nothing(world, facts):
    """Reasons are for people: a plan with other words is the same plan."""
    plan = planned(world, facts)
    silent = [replace(item, reason="") for item in plan]

    assert not diff(plan, silent)
