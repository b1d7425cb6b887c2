"""What carries packets between two hosts, and how large they may be."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from seaway.model.cluster import Carrier
from seaway.plan.carriers import (
    Refused,
    Way,
    choose,
    endpoint_mtu,
    overhead,
    path_mtu,
    reachable,
    shared_generations,
    tunnel_mtu,
    widest_mtu,
)
from tests.support.model import subnet
from tests.support.overlay import host, key, overlay, paths

ENCRYPTED, CLEAR = overlay("blue", 7), overlay("green", 8, clear=True)
VXLAN = overlay("green", 8, clear=True, carrier="vxlan")
DIRECT = overlay("green", 8, clear=True, carrier="direct")
ONE, TWO = host("host1", 1), host("host2", 2)
NAT, OTHER_NAT = ip_address("198.51.100.1"), ip_address("198.51.100.2")


def chosen(network, me=ONE, peer=TWO, version=4, **more):
    """What choose() says."""
    return choose(network, me, peer, paths(me, peer, **more), version)


def carrier(*args, **more):
    """The carrier, or why there is none."""
    way = chosen(*args, **more)
    return way.carrier if isinstance(way, Way) else way.reason


@pytest.mark.parametrize("version", [4, 6])
def test_each_network_has_its_carrier_on_one_link(version):
    """WireGuard if encrypted, whatever the link; none if clear; VXLAN if told."""
    assert Carrier.WIREGUARD == carrier(ENCRYPTED, version=version)
    assert Carrier.DIRECT == carrier(CLEAR, version=version)
    assert Carrier.DIRECT == carrier(DIRECT, version=version)
    assert Carrier.VXLAN == carrier(VXLAN, version=version)


@pytest.mark.parametrize(
    "more", [{"on_link": False}, {"link_mac": "02:00:00:00:00:ff"}, {"link_mac": ""}]
)
def test_with_a_router_between_it_is_vxlan(more):
    """Also by a link whose MAC address others do not expect."""
    assert Carrier.VXLAN == carrier(CLEAR, **more)
    assert "host2 is not on one link with host1" in carrier(DIRECT, **more)


def test_without_mac_addresses_it_is_vxlan():
    """Sources could not be checked: on both sides, and no address is none."""
    assert Carrier.VXLAN == carrier(CLEAR, peer=replace(TWO, mac=""))
    assert Carrier.VXLAN == carrier(CLEAR, me=replace(ONE, mac=""))


def test_a_direct_path_is_of_the_packets_own_version():
    """IPv6 has no IPv4 next hop: without IPv6 between the hosts it goes by VXLAN."""
    only4 = [replace(h, addresses=h.addresses[:1]) for h in (ONE, TWO)]

    assert Carrier.DIRECT == carrier(CLEAR, *only4, version=4)
    assert Carrier.VXLAN == carrier(CLEAR, *only4, version=6)
    assert ip_address("2001:db8::2") == chosen(CLEAR, version=6).path.to


def test_both_sides_prefer_the_same_version():
    """What the host with the lower number prefers, and both have."""
    six_first = replace(TWO, addresses=TWO.addresses[::-1])
    one_first = replace(ONE, addresses=ONE.addresses[::-1])

    assert [4, 6] == [a.version for a in reachable(ONE, six_first)]
    assert [4, 6] == [a.version for a in reachable(six_first, ONE)]
    assert [6, 4] == [a.version for a in reachable(one_first, TWO)]
    assert [6] == [a.version for a in reachable(ONE, host("host2", 2, ["2001:db8::2"]))]


def test_the_second_address_where_the_first_has_no_route():
    """One of them is enough; none is refused."""
    both = paths(ONE, TWO)
    six = choose(ENCRYPTED, ONE, TWO, {6: both[6]}, 4)

    assert Way(carrier=Carrier.WIREGUARD, path=both[6]) == six
    none = choose(ENCRYPTED, ONE, TWO, {}, 4)
    assert isinstance(none, Refused)
    assert "host1 has no route to 192.0.2.2 (host2)" in none.reason


def test_hosts_of_different_ip_versions_do_not_meet():
    """And are told to get another address."""
    four, six = host("host1", 1, ["192.0.2.1"]), host("host2", 2, ["2001:db8::2"])

    assert "no addresses of the same IP version" in carrier(ENCRYPTED, four, six)
    behind4 = host("host2", 2, ["10.0.0.2"], behind=NAT)
    assert "no addresses of the same IP version" in carrier(ENCRYPTED, six, behind4)


def test_a_nat_is_passed_by_wireguard_only():
    """Either side of it."""
    hidden = host("host2", 2, ["10.0.0.2"], behind=NAT)

    for me, peer in ((ONE, hidden), (hidden, ONE)):
        assert Carrier.WIREGUARD == carrier(ENCRYPTED, me, peer)
        for network in (CLEAR, VXLAN, DIRECT):
            assert "host2 is behind a NAT" in carrier(network, me, peer)
    assert (NAT,) == reachable(ONE, hidden)
    assert (ip_address("192.0.2.1"),) == reachable(hidden, ONE)


def test_behind_one_nat_hosts_use_their_own_addresses():
    """As if there were none."""
    one, two = (host(f"host{n}", n, [f"10.0.0.{n}"], behind=NAT) for n in (1, 2))

    assert Carrier.DIRECT == carrier(CLEAR, one, two)
    assert Carrier.WIREGUARD == carrier(ENCRYPTED, one, two)
    assert (ip_address("10.0.0.2"),) == reachable(one, two)


def test_behind_two_nats_hosts_cannot_meet():
    """Neither can speak first."""
    one, two = host("host1", 1, behind=NAT), host("host2", 2, behind=OTHER_NAT)

    assert () == reachable(one, two)
    assert "behind different NATs" in carrier(ENCRYPTED, one, two)


def test_encrypted_or_not_at_all():
    """Without keys on both sides nothing carries it; whose are missing is said."""
    assert "host2 has no WireGuard" in carrier(ENCRYPTED, peer=replace(TWO, keys=()))
    assert "host1 has no WireGuard" in carrier(ENCRYPTED, me=replace(ONE, keys=()))
    late = replace(ONE, keys=(key(1, 3),))
    assert "host2 has no new WireGuard key yet" in carrier(ENCRYPTED, me=late)
    assert (0, 1) == shared_generations(
        replace(ONE, keys=(key(1, 0), key(1, 1), key(1, 2))),
        replace(TWO, keys=(key(2, 0), key(2, 1))),
    )


def test_without_vxlan_in_a_kernel_it_is_refused():
    """But only where it is needed."""
    assert "host2 has no VXLAN" in carrier(VXLAN, peer=replace(TWO, vxlan=False))
    assert "host1 has no VXLAN" in carrier(VXLAN, me=replace(ONE, vxlan=False))
    assert Carrier.DIRECT == carrier(CLEAR, peer=replace(TWO, vxlan=False))


def test_overheads_are_exact():
    """Without the outer Ethernet header, as in an MTU."""
    assert [0, 50, 60] == [overhead(carrier, 4) for carrier in Carrier]
    assert [0, 70, 80] == [overhead(carrier, 6) for carrier in Carrier]


@pytest.mark.parametrize(
    ("carrier", "underlay", "version", "device", "fits"),
    [
        (Carrier.DIRECT, 1500, 4, 1500, 1500),
        (Carrier.DIRECT, 1400, 4, 1500, 1400),
        (Carrier.VXLAN, 1500, 4, 1450, 1450),
        (Carrier.VXLAN, 9000, 4, 1450, 1450),
        (Carrier.VXLAN, 1401, 6, 1430, 1331),
        (Carrier.WIREGUARD, 1500, 4, 1420, 1420),
        (Carrier.WIREGUARD, 1500, 6, 1420, 1420),
        (Carrier.WIREGUARD, 1492, 6, 1420, 1408),
        (Carrier.WIREGUARD, 1400, 4, 1420, 1328),
    ],
)
def test_a_path_carries_what_its_underlay_leaves(carrier, underlay, version, device, fits):
    """At most the device's own; WireGuard's padding must fit, too, where it is narrower."""
    assert fits == path_mtu(carrier, underlay, version, device)


def test_a_tunnels_device_fits_all_its_host_has():
    """By either IP version, and IPv6 inside in any case."""
    assert 1440 == tunnel_mtu(Carrier.WIREGUARD, [4], 1500)
    assert 1420 == tunnel_mtu(Carrier.WIREGUARD, [4, 6], 1500)
    assert 1450 == tunnel_mtu(Carrier.VXLAN, [4], 1500)
    assert 1280 == tunnel_mtu(Carrier.VXLAN, [4], 1300)


@pytest.mark.parametrize(
    ("network", "versions", "mtu"),
    [
        (ENCRYPTED, [4], 1440),
        (ENCRYPTED, [4, 6], 1420),
        (CLEAR, [4], 1450),
        (CLEAR, [4, 6], 1430),
        (VXLAN, [6], 1430),
        (DIRECT, [4, 6], 1500),
        (overlay("big", 9, options={"mtu": "8000"}), [4], 8000),
    ],
)
def test_an_endpoint_sends_what_its_worst_carrier_takes(network, versions, mtu):
    """Or what the user says."""
    assert mtu == endpoint_mtu(network, versions, 1500)


@pytest.mark.parametrize(
    ("network", "fits"),
    [(ENCRYPTED, 1440), (VXLAN, 1450), (CLEAR, 1500), (DIRECT, 1500)],
)
def test_the_widest_way_of_a_network(network, fits):
    """No header where none may be needed, and else that of its only carrier."""
    assert fits == widest_mtu(network, [4, 6], 1500)


def test_an_endpoint_with_ipv6_never_sends_less_than_that_needs():
    """IPv4 alone may."""
    only4 = overlay("four", 9, subnets=(subnet("10.77.9.0/24"),))

    assert 1280 == endpoint_mtu(ENCRYPTED, [4], 1300)
    assert 1240 == endpoint_mtu(only4, [4], 1300)


def test_a_way_too_narrow_for_ipv6_is_refused_to_it():
    """VXLAN packets are never cut; WireGuard's are."""
    assert Carrier.VXLAN == carrier(VXLAN, mtu=1329)
    assert "IPv6 by VXLAN needs 1330" in carrier(VXLAN, version=6, mtu=1329)
    assert Carrier.VXLAN == carrier(VXLAN, version=6, mtu=1330)
    assert Carrier.WIREGUARD == carrier(ENCRYPTED, version=6, mtu=1329)
