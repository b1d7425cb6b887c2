"""Networks that cannot be wrong."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from seaway.errors import InvalidSpec
from seaway.model.network import Driver, Network, NetworkId, Subnet
from tests.support.model import network, subnet

OVERLAY = Driver.OVERLAY


def make(**more):
    """A network called front."""
    return Network(**{"id": NetworkId("f"), "name": "front"} | more)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"gateway": ip_address("10.78.0.1")}, "gateway 10.78.0.1 is outside"),
        ({"gateway": ip_address("fd77::1")}, "gateway fd77::1 is outside"),
        ({"ip_range": ip_network("10.78.0.0/25")}, "ip-range 10.78.0.0/25 is outside"),
        ({"ip_range": ip_network("10.0.0.0/8")}, "ip-range 10.0.0.0/8 is outside"),
        ({"ip_range": ip_network("fd77::/64")}, "ip-range fd77::/64 is outside"),
        ({"reserved": {"printer": ip_address("10.78.0.9")}}, "aux-address printer=10.78.0.9"),
    ],
)
def test_parts_of_a_subnet_lie_inside_it(fields, words):
    """Gateway, range and reserved addresses outside are refused, by name."""
    with pytest.raises(InvalidSpec, match=words):
        Subnet(cidr=ip_network("10.77.0.0/24"), **fields)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "-x"}, "network name"),
        ({"subnets": (subnet("10.1.0.0/24"), subnet("10.2.0.0/24"))}, "at most one IPv4"),
        ({"options": {"parent": "eth0"}}, "bridge driver has no option 'parent'"),
        ({"driver": Driver.HOST, "options": {"mtu": "1400"}}, "it knows none"),
        ({"driver": Driver.MACVLAN}, "-o parent="),
        ({"options": {"mtu": "67"}}, "mtu 67"),
        ({"options": {"mtu": "65536"}}, "mtu 65536"),
        ({"options": {"mtu": "wide"}}, "mtu wide"),
        ({"options": {"mtu": "²"}}, "mtu ²"),
        ({"options": {"masquerade": "maybe"}}, "true or false"),
        ({"options": {"encrypted": "true"}}, "bridge driver has no option 'encrypted'"),
        ({"driver": OVERLAY, "options": {"encrypted": "maybe"}}, "encrypted is true or false"),
        ({"driver": OVERLAY, "options": {"carrier": "pigeon"}}, "one of auto, direct, vxlan"),
        ({"driver": OVERLAY, "options": {"carrier": "wireguard"}}, "what encrypted networks have"),
        ({"driver": OVERLAY, "options": {"carrier": "vxlan"}}, "WireGuard carries those that are"),
    ],
)
def test_a_network_that_cannot_work_is_refused(fields, words):
    """Each wrong field has its own message."""
    with pytest.raises(InvalidSpec, match=words):
        make(**fields)


@pytest.mark.parametrize(
    ("options", "encrypted"),
    [
        ({}, True),
        ({"encrypted": ""}, True),
        ({"encrypted": "true"}, True),
        ({"encrypted": "false", "carrier": "direct"}, False),
        ({"carrier": "auto"}, True),
    ],
)
def test_an_overlay_network_is_encrypted_unless_told_otherwise(options, encrypted):
    """Docker's "--opt encrypted" is a yes, too; local networks never are."""
    made = make(driver=OVERLAY, options=options)

    assert encrypted == made.encrypted
    assert made.routed
    assert not make().encrypted


def test_an_internal_network_does_not_masquerade():
    """Whatever the option says: nothing leaves it."""
    assert network("front", 1).masquerade
    assert not network("front", 1, options={"masquerade": "false"}).masquerade
    assert not network("front", 1, internal=True, options={"masquerade": "true"}).masquerade


def test_only_the_bridge_driver_is_routed():
    """The others' packets are carried by somebody else."""
    assert make().routed
    assert not make(driver=Driver.MACVLAN, options={"parent": "eth0"}).routed
    assert not make(driver=Driver.HOST).routed


def test_a_subnet_is_found_by_its_family():
    """None where the network has none of that family."""
    both, only = network("front", 1), make(subnets=(subnet("10.1.0.0/24"),))

    assert both.subnets == (both.subnet(4), both.subnet(6))
    assert only.subnet(6) is None


def test_the_mtu_is_a_number():
    """0 means the link's own."""
    assert 0 == make().mtu
    assert 1400 == make(options={"mtu": "1400"}).mtu
