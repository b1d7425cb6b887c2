"""Plans between hosts: what must hold for any cluster."""

from __future__ import annotations

import re
from dataclasses import replace
from ipaddress import ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from seaway.model.cluster import Block
from seaway.plan.diff import diff
from seaway.plan.host import plan_host
from seaway.plan.networks import plan_network
from seaway.plan.overlay import (
    PrivateKey,
    Tunnels,
    plan_hosts,
    plan_peer,
    plan_tunnels,
    refusals,
    vxlan_versions,
)
from seaway.plan.resources import Element, Link, Route, RouteKind, WireGuardPeer
from seaway.plan.ruleset import MAPS, PLAIN_SETS, SETS, set_names
from seaway.plan.sandboxes import plan_sandbox
from tests.support.model import on, sandbox
from tests.support.overlay import blocks, here, host, key, overlay, paths, there

NETWORKS = [
    overlay("blue", 1),
    overlay("green", 2, clear=True),
    overlay("vxlan", 3, clear=True, carrier="vxlan"),
    overlay("direct", 4, clear=True, carrier="direct"),
    overlay("inner", 5, internal=True),
]
NATS = [None, None, ip_address("198.51.100.1"), ip_address("198.51.100.2")]


@st.composite
def members(draw, number):
    """A host with any addresses, keys and abilities."""
    both = [f"192.0.2.{number}", f"2001:db8::{number}"]
    addresses = draw(st.sampled_from([both, both[::-1], both[:1], both[1:]]))
    # at most two, one after the other: there are two ports
    generations = draw(st.sampled_from([(), (0,), (1,), (0, 1), (2,), (1, 2)]))
    return host(
        f"host{number}",
        number,
        addresses,
        keys=tuple(key(number, g) for g in generations),
        behind=draw(st.sampled_from(NATS)),
        vxlan=draw(st.booleans()),
        mac=draw(st.sampled_from(["", f"02:00:00:00:00:0{number}"])),
    )


@st.composite
def clusters(draw):
    """This host, and others with blocks on some networks, one of them perhaps a lent address."""
    me = draw(members(1))
    found = []
    for number in range(2, draw(st.integers(2, 4)) + 1):
        peer = draw(members(number))
        shared = []
        for network in draw(st.lists(st.sampled_from(NETWORKS), unique_by=lambda n: n.name)):
            own = list(blocks(network, peer))
            if draw(st.booleans()):
                lent = network.subnets[0].cidr.network_address + 16 * 5 + number
                own.append(Block(network=network.id, cidr=ip_network(lent), host=peer.id))
            shared.append((network, tuple(own)))
        more = {"on_link": draw(st.booleans()), "mtu": draw(st.integers(1280, 9000))}
        known = paths(me, peer, **more)
        if draw(st.booleans()):
            known = dict(list(known.items())[1:])
        generation = draw(st.integers(0, 2))
        found.append(there(peer, networks=tuple(shared), paths=known, generation=generation, me=me))
    facts = {"ipv6": draw(st.booleans()), "underlay_mtu": draw(st.integers(1280, 9000))}
    return here(me, **facts), found


def tunnels(us, others):
    """What an agent would have for them."""
    versions = frozenset().union(*(vxlan_versions(us, other) for other in others))
    keys = tuple(PrivateKey(key=k, path=f"/k/{k.generation}") for k in us.me.keys)
    return plan_tunnels(us, Tunnels(vxlan=versions, keys=keys, links=frozenset({"eth0"})))


def planned(us, others):
    """Everything on this host that is about networks and hosts."""
    hosts = [us.me, *(other.peer for other in others)]
    fence = plan_hosts(us.cluster, [a for h in hosts for a in h.addresses])
    found = [*plan_host(us.facts), *tunnels(us, others), *fence]
    for network in NETWORKS:
        found += plan_network(network, us.facts)
    for other in others:
        found += plan_peer(us, other)
    return found


def wanted(us, others):
    """Every block that has to have a route, with its network."""
    return [
        (network, block.cidr)
        for other in others
        for network, own in other.networks
        for block in own
        if block.cidr.version == 4 or us.facts.ipv6
    ]


def routes(us, others):
    """All routes that lead to other hosts, by destination."""
    found = {}
    for other in others:
        for item in plan_peer(us, other):
            if isinstance(item, Route) and not item.metric:
                found.setdefault(item.to, []).append(item)
    return found


@given(clusters())
def test_every_block_has_one_route(cluster):
    """A way, or "unreachable"; nothing else has one."""
    found = routes(*cluster)

    assert {cidr for _, cidr in wanted(*cluster)} == set(found)
    assert {1} >= {len(of_block) for of_block in found.values()}


@given(clusters())
def test_an_encrypted_network_goes_by_wireguard_or_nowhere(cluster):
    """And what WireGuard lets in is of encrypted networks, and tunnel addresses."""
    us, others = cluster
    found = routes(us, others)
    encrypted = {cidr for network, cidr in wanted(us, others) if network.encrypted}
    tunnel = {ip_network(other.peer.tunnel) for other in others}

    for network, cidr in wanted(us, others):
        (route,) = found[cidr]
        by_wireguard = route.link.startswith("sww-") and route.via is None
        unreachable = route.kind is RouteKind.UNREACHABLE and not route.link
        assert unreachable or by_wireguard == network.encrypted
    for other in others:
        for item in plan_peer(us, other):
            if isinstance(item, WireGuardPeer):
                assert set(item.allowed) <= encrypted | tunnel
            if isinstance(item, Element) and item.set[:-1] in ("block_of", "address_of"):
                assert ip_network(item.match[0]) not in encrypted


@given(clusters())
def test_what_is_refused_is_told(cluster):
    """Networks with unreachable blocks are those with a reason, in one line."""
    us, others = cluster
    for other in others:
        found = routes(us, [other])
        shut = {
            network.name
            for network, cidr in wanted(us, [other])
            if found[cidr][0].kind is RouteKind.UNREACHABLE
        }
        reasons = refusals(us, other)
        assert shut == set(reasons)
        assert all(re.fullmatch(r"[^\n]+: [^\n]+", reason) for reason in reasons.values())


@given(clusters())
def test_routes_lead_into_links_that_are_there_and_fit_them(cluster):
    """Each by a device of this plan or the underlay's link, with an MTU no larger than that's."""
    us, others = cluster
    links = {item.name: item.mtu for item in tunnels(us, others) if isinstance(item, Link)}
    links["eth0"] = us.facts.underlay_mtu

    for of_block in routes(us, others).values():
        for route in of_block:
            if route.link:
                least = 576 if route.to.version == 4 else 1280
                assert least <= route.mtu <= max(1280, links[route.link])


@given(clusters())
def test_no_two_resources_are_the_same_object(cluster):
    """Every key stands once in a host's plan, whatever the hosts have in common."""
    keys = [item.key for item in planned(*cluster)]

    assert len(set(keys)) == len(keys)


@given(clusters())
def test_elements_fit_their_sets(cluster):
    """Each names a set of the table, with as many parts as its type has, and data if a map."""
    for item in planned(*cluster):
        if isinstance(item, Element):
            assert item.set in set_names()
            of = PLAIN_SETS.get(item.set) or (SETS | MAPS)[item.set[:-1]][0]
            key_, _, value = of.partition(" : ")
            assert key_.count(" . ") + 1 == len(item.match)
            assert (value.count(" . ") + 1 if value else 0) == len(item.value)


@given(clusters(), st.integers(17, 30))
def test_an_endpoint_here_changes_nothing_between_hosts(cluster, n):
    """Its own resources and those towards other hosts have no object in common."""
    who = sandbox("web", ["8080:80"])
    mine = plan_sandbox(who, [on(who, NETWORKS[0], n)], cluster[0].facts)

    assert {item.key for item in mine}.isdisjoint(item.key for item in planned(*cluster))


@given(clusters())
def test_a_host_that_goes_takes_all_that_is_its_own(cluster):
    """Nothing in the rest names it, and nothing of the rest goes with it."""
    us, (first, *others) = cluster
    before, after = planned(us, [first, *others]), planned(us, others)
    gone = diff(after, before)
    # ... and the devices, which go with the last host; addresses are all hosts' together.
    shared = {"vxlan_port", "tunnel_links", "host_address4", "host_address6"}
    names = re.compile(rf"\b{first.peer.name}\b")

    assert not gone.create
    assert not gone.change
    assert [] == [item for item in after if names.search(item.reason)]
    assert [] == [
        item
        for item in gone.delete
        if not names.search(item.reason)
        and getattr(item, "set", "") not in shared
        and getattr(item, "link", getattr(item, "name", "")) not in ("swx4", "swx6")
    ]


@given(clusters())
def test_nothing_of_a_host_stands_on_its_names_or_state(cluster):
    """What a host says of itself in passing changes no kernel object elsewhere."""
    us, others = cluster
    busy = [
        replace(
            o, peer=replace(o.peer, drained=True, settled=9, version="9", identity="f", joined=9.0)
        )
        for o in others
    ]

    assert not diff(planned(us, busy), planned(us, others))
