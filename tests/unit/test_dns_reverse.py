"""Reverse names and the subnets they fall into."""

from ipaddress import ip_address, ip_network

import pytest

from seaway.dns import wire
from seaway.dns.reverse import Subnets, address_of
from tests.support.dns import ask


def parsed(name: str) -> object:
    query = wire.parse_query(ask(name, "PTR"))
    assert isinstance(query, wire.Query)
    return address_of(query.name, query.labels)


def test_complete_reverse_names_are_addresses():
    """Both families, in any case."""
    assert ip_address("10.1.2.3") == parsed("3.2.1.10.in-addr.ARPA")
    assert ip_address("fd00::abc") == parsed("C.B.A." + "0." * 27 + "D.F.ip6.arpa")


@pytest.mark.parametrize(
    "name",
    [
        "10.in-addr.arpa",
        "5.4.3.2.1.in-addr.arpa",
        "256.2.1.10.in-addr.arpa",
        "1234.2.1.10.in-addr.arpa",
        "a.2.1.10.in-addr.arpa",
        "3.2.1.10.in-addr.example",
        "0." * 31 + "ip6.arpa",
        "0." * 33 + "ip6.arpa",
        "x.0" + ".0" * 30 + ".ip6.arpa",
        "0.x" + ".0" * 30 + ".ip6.arpa",
        "10" + ".0" * 31 + ".ip6.arpa",
        "web",
        ".",
    ],
)
def test_other_names_are_not(name):
    """Parts of a reverse zone, bad numbers and other names stand for no address."""
    assert parsed(name) is None


def test_subnets_find_the_address_in_them():
    """Of different lengths and families; a /0 holds all of its family."""
    subnets = Subnets(map(ip_network, ["10.1.0.0/24", "10.2.0.0/16", "fd00:1::/64", "fd00:2::/64"]))

    for inside in ("10.1.0.255", "10.2.255.1", "fd00:1::1", "fd00:2::ffff"):
        assert ip_address(inside) in subnets
    for outside in ("10.1.1.0", "10.3.0.1", "fd00:3::1", "::10.1.0.1"):
        assert ip_address(outside) not in subnets
    assert ip_address("192.0.2.1") in Subnets([ip_network("0.0.0.0/0")])
    assert ip_address("::1") not in Subnets([ip_network("0.0.0.0/0")])
