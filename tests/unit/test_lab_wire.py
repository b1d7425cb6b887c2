"""The commands that lay the wire, and reading back what is cut."""

import json

from seaway.lab.topology import Lab
from seaway.lab.wire import address_lines, parse_pairs, port_lines

LAB = Lab(name="try", hosts=2)
HOST, OUTSIDE = LAB.host("host1"), LAB.machine("outside")


def test_a_port_is_named_after_its_machine():
    """One veth pair: the port in the wire's namespace, eth0 in the host's."""
    add, join = port_lines(HOST)

    assert (
        f"link add host1 type veth peer name eth0 address {HOST.mac} netns swlab-try-host1" == add
    )
    assert "link set host1 master wire up" == join


def test_a_host_reaches_the_internet_through_outside():
    """Both default routes of a host point at outside, and IPv6 works at once."""
    lines = address_lines(HOST, OUTSIDE)

    assert "addr replace 192.0.2.1/24 dev eth0" in lines
    assert "addr replace 2001:db8:5ea::1/64 dev eth0 nodad" in lines
    assert "route replace default via 192.0.2.200 dev eth0" in lines
    assert "route replace default via 2001:db8:5ea::200 dev eth0" in lines


def test_outside_is_the_internet():
    """outside owns the addresses behind the default route, and has none itself."""
    lines = address_lines(OUTSIDE, OUTSIDE)

    assert "addr replace 203.0.113.1/32 dev lo" in lines
    assert "addr replace 2001:db8:ffff::1/128 dev lo nodad" in lines
    assert not [line for line in lines if "default" in line]


def listing(**changes: object) -> str:
    """What ``nft -json list ruleset bridge`` prints about our set."""
    ours = {"family": "bridge", "table": "seaway_lab", "name": "cut"} | changes
    return json.dumps({"nftables": [{"metainfo": {}}, {"table": {}}, {"set": ours}]})


def test_pairs_are_read_from_the_set():
    """Each element of the set is one direction that is cut."""
    text = listing(elem=[{"concat": ["host1", "host2"]}, {"concat": ["host2", "host1"]}])

    assert {("host1", "host2"), ("host2", "host1")} == parse_pairs(text)


def test_an_empty_or_foreign_set_has_no_pairs():
    """nft leaves the elements out when there are none; other sets are not ours."""
    elements = [{"concat": ["host1", "host2"]}]

    assert not parse_pairs(listing())
    assert not parse_pairs(listing(table="mine", elem=elements))
    assert not parse_pairs(listing(name="other", elem=elements))
    assert not parse_pairs(json.dumps({"nftables": [{"metainfo": {}}]}))
