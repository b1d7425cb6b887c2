"""What leads to other hosts: the corners that no golden file shows."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from seaway.plan.overlay import (
    Tunnels,
    plan_peer,
    plan_tunnels,
    refusals,
    vxlan_versions,
    wireguard_link,
)
from seaway.plan.resources import Link, Neighbour, Route, WireGuardPeer
from seaway.plan.sandboxes import plan_sandbox
from tests.support.model import on, sandbox
from tests.support.overlay import here, host, key, overlay, there

BLUE, GREEN = overlay("blue", 7), overlay("green", 8, clear=True)
TUNNELLED = overlay("tunnelled", 9, clear=True, carrier="vxlan")
DIRECT = overlay("straight", 10, clear=True, carrier="direct")
ONE, TWO = host("host1", 1), host("host2", 2)
NAT = ip_address("198.51.100.1")


def peers(plan):
    """The WireGuard peers in a plan."""
    return [item for item in plan if isinstance(item, WireGuardPeer)]


def test_a_host_without_ipv6_has_nothing_of_it():
    """Neither routes nor next hops nor what WireGuard lets in."""
    plan = plan_peer(here(ONE, ipv6=False), there(TWO, BLUE, GREEN, TUNNELLED))

    assert {4} == {item.to.version for item in plan if isinstance(item, Route)}
    assert {4} == {item.address.version for item in plan if isinstance(item, Neighbour)}
    assert {4} == {prefix.version for item in peers(plan) for prefix in item.allowed}


def test_no_common_network_needs_nothing():
    """Nor one on which the other has no addresses."""
    assert () == plan_peer(here(ONE), there(TWO))
    assert () == plan_peer(here(ONE), there(TWO, networks=((BLUE, ()), (GREEN, ()))))
    assert () == plan_tunnels(here(ONE), Tunnels())


def test_the_side_behind_a_nat_speaks_first_and_keeps_it_open():
    """The other side waits for it; behind the same NAT neither is special."""
    hidden, friend = (host(f"host{n}", n, [f"10.0.0.{n}"], behind=NAT) for n in (2, 3))
    (waits,) = peers(plan_peer(here(ONE), there(hidden, BLUE)))
    (speaks,) = peers(plan_peer(here(hidden), there(ONE, BLUE, me=hidden)))
    (near,) = peers(plan_peer(here(hidden), there(friend, BLUE, me=hidden)))

    assert (None, 0) == (waits.endpoint, waits.keepalive)
    assert ((ip_address("192.0.2.1"), 7904), 25) == (speaks.endpoint, speaks.keepalive)
    assert ((ip_address("10.0.0.3"), 7904), 0) == (near.endpoint, near.keepalive)


@pytest.mark.parametrize(
    ("ours", "theirs", "wanted", "used"),
    [
        ((0,), (0,), 0, 0),
        ((0, 1), (0, 1), 0, 0),
        ((0, 1), (0, 1), 1, 1),
        ((0, 1), (0,), 1, 0),
        ((1,), (0, 1), 0, 1),
        ((1, 2), (0, 1), 2, 1),
    ],
)
def test_routes_take_the_wanted_keys_if_both_have_them(ours, theirs, wanted, used):
    """Else the newest that both have; packets by any of those are let in."""
    me = replace(ONE, keys=tuple(key(1, g) for g in ours))
    peer = replace(TWO, keys=tuple(key(2, g) for g in theirs))
    plan = plan_peer(here(me), there(peer, BLUE, generation=wanted))
    shared = {wireguard_link(me, g) for g in set(ours) & set(theirs)}

    to_blocks = {item.link for item in plan if isinstance(item, Route) and not item.metric}
    assert {wireguard_link(me, used)} == to_blocks
    assert shared == {peer.link for peer in peers(plan)}
    assert 1 == len({peer.allowed for peer in peers(plan)})


def test_refusals_say_which_network_and_why():
    """Once for each network; those that work are not among them."""
    peer = replace(TWO, keys=())
    found = refusals(here(ONE), there(peer, BLUE, GREEN))

    assert ["blue"] == list(found)
    assert "host2 has no WireGuard" in found["blue"]
    assert {} == refusals(here(ONE), there(TWO, BLUE, GREEN))


def test_vxlan_devices_stand_where_packets_may_come_by_them():
    """Also where we send without; not for networks that never take it, nor through a NAT."""
    assert {4, 6} == vxlan_versions(here(ONE), there(TWO, GREEN))
    assert {4, 6} == vxlan_versions(here(ONE), there(TWO, TUNNELLED))
    assert set() == vxlan_versions(here(ONE), there(TWO, BLUE, DIRECT))
    assert set() == vxlan_versions(here(ONE), there(TWO))
    assert set() == vxlan_versions(here(ONE), there(replace(TWO, vxlan=False), GREEN))
    assert {6} == vxlan_versions(here(ONE), there(host("host2", 2, ["2001:db8::2"]), GREEN))
    hidden = host("host2", 2, ["10.0.0.2"], behind=NAT)
    assert set() == vxlan_versions(here(ONE), there(hidden, GREEN))


def test_links_of_endpoints_fit_the_carrier():
    """On the same host, other networks have the MTU of the way out."""
    web = sandbox("web")
    facts = here(ONE, mtu=1400, underlay_mtu=9000).facts
    plan = plan_sandbox(web, [on(web, BLUE, 2), on(web, DIRECT, 2, "eth1")], facts)

    assert [8920, 9000] == [item.mtu for item in plan if isinstance(item, Link)]
