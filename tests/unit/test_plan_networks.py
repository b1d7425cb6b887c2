"""What a host needs because it is one, and because a network exists."""

from __future__ import annotations

import pytest

from seaway.plan.host import HostFacts, plan_host
from seaway.plan.networks import plan_network
from seaway.plan.resources import describe
from seaway.plan.ruleset import DROPS, chain_names, ruleset, set_names
from tests.support.model import macvlan, network

HOST = HostFacts()


def lines(resources):
    """One line each."""
    return [describe(item) for item in resources]


def test_a_host_forwards_and_has_the_table_and_the_gateways_link():
    """IPv6 forwarding only where there is IPv6."""
    assert 4 == len(plan_host(HOST))
    assert [] == [r for r in lines(plan_host(HostFacts(ipv6=False))) if "ipv6" in r]
    assert "link swg0 (bridge, mtu 1400)" in lines(plan_host(HostFacts(mtu=1400)))


def test_bridges_that_lead_out_are_elements():
    """Quoted, because a link may have any word of nft's for a name."""
    found = lines(plan_host(HostFacts(exit_bridges=frozenset({"br0", "accept"}))))

    assert ['element exit_bridges { "accept" }', 'element exit_bridges { "br0" }'] == found[-2:]


def test_a_network_has_gateways_routes_and_its_place_in_the_sets():
    """For each family the same."""
    found = lines(plan_network(network("front", 1), HOST))

    assert [
        "address 10.77.1.1/32 on swg0",
        "route unreachable 10.77.1.0/24",
        "element same_network4 { 10.77.1.0/24 . 10.77.1.0/24 }",
        "element gateway4 { 10.77.1.0/24 : 10.77.1.1 }",
        "element masquerade4 { 10.77.1.0/24 }",
    ] == found[:5]
    assert 10 == len(found)


@pytest.mark.parametrize(
    ("made", "sets"),
    [
        (network("n", 1, internal=True), {"same_network4", "gateway4", "internal4"}),
        (network("n", 1, options={"masquerade": "false"}), {"same_network4", "gateway4"}),
    ],
)
def test_options_are_places_in_sets(made, sets):
    """Internal networks and those that keep their addresses are not masqueraded."""
    plan = plan_network(made, HostFacts(ipv6=False))

    assert sets == {item.set for item in plan if hasattr(item, "set")}


def test_other_drivers_need_nothing_of_the_host():
    """A macvlan's wire is somebody else's."""
    assert () == plan_network(macvlan("wire", "192.0.2.0/24"), HOST)


def test_the_ruleset_names_all_it_has():
    """Every counter, set, map and chain is declared once in the text."""
    text = ruleset().text

    assert all(f"counter {name} {{ }}" in text for name in DROPS)
    assert all(f" {name} {{ type" in text for name in set_names())
    assert all(text.count(f"chain {name} {{") == 1 for name in chain_names())
    assert text == ruleset().text


def test_every_drop_is_counted_under_a_name():
    """No rule drops silently, and no counter is without its rule."""
    rules = [line.strip() for line in ruleset().text.splitlines()]
    drops = [rule for rule in rules if rule.endswith(" drop")]

    assert drops
    assert [] == [rule for rule in drops if 'counter name "drop_' not in rule]
    assert set(DROPS) == {rule.split('"')[-2] for rule in drops}
