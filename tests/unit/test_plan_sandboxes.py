"""What a host needs because a sandbox is attached."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seaway.plan.host import HostFacts
from seaway.plan.resources import Element, Link, Netns, Route, Sysctl, describe
from seaway.plan.sandboxes import gateway_endpoint, gateway_order, plan_sandbox, veth_name
from tests.support.model import macvlan, network, on, sandbox, subnet

HOST = HostFacts()
FRONT, BACK = network("front", 1), network("back", 2)
ONLY4 = network("aaa", 3, subnets=(subnet("10.77.3.0/24"),))
INSIDE = network("abc", 4, internal=True)
WEB = sandbox("web", ["8080:80"])


def names(attachments):
    """The networks, in order."""
    return [a.network.name for a in attachments]


@pytest.mark.parametrize(
    ("attachments", "expected"),
    [
        ([on(WEB, FRONT, 2), on(WEB, BACK, 2)], ["back", "front"]),
        ([on(WEB, FRONT, 2, gw_priority=1), on(WEB, BACK, 2)], ["front", "back"]),
        ([on(WEB, FRONT, 2), on(WEB, BACK, 2, gw_priority=-1)], ["front", "back"]),
        ([on(WEB, INSIDE, 2), on(WEB, BACK, 2)], ["back", "abc"]),
        ([on(WEB, ONLY4, 2), on(WEB, BACK, 2)], ["back", "aaa"]),
        ([on(WEB, INSIDE, 2, gw_priority=9), on(WEB, BACK, 2)], ["abc", "back"]),
    ],
)
def test_the_order_of_gateways(attachments, expected):
    """Priority, then a way out, then both families, then the name; in whatever order they came."""
    assert expected == names(gateway_order(attachments))
    assert expected == names(gateway_order(attachments[::-1]))


def test_each_family_has_its_own_exit():
    """The best one with an address of that family and a way out; None without one."""
    both = [on(WEB, ONLY4, 2, gw_priority=5), on(WEB, FRONT, 2, "eth1")]

    assert ["aaa", "front"] == [gateway_endpoint(both, v).network.name for v in (4, 6)]
    assert gateway_endpoint([on(WEB, INSIDE, 2)], 4) is None
    assert gateway_endpoint([on(WEB, ONLY4, 2)], 6) is None
    assert gateway_endpoint([], 4) is None


def test_an_internal_network_gives_no_default_route():
    """But one to its own subnet."""
    plan = plan_sandbox(WEB, [on(WEB, INSIDE, 2)], HOST)
    inner = [str(r.to) for r in plan if isinstance(r, Route) and r.netns and r.via]

    assert ["10.77.4.0/24", "fd77:4::/64"] == inner
    assert [] == [e for e in plan if isinstance(e, Element) and e.set.startswith("publish")]


def test_a_namespace_of_ours_comes_first():
    """With its settings; one that others made is none of the plan's resources."""
    made = replace(WEB, made_netns=True, sysctls={"net.ipv4.ip_default_ttl": "9"})
    first, second, *_ = plan_sandbox(made, [on(made, FRONT, 2)], HOST)

    assert Netns(path=WEB.netns) == first
    assert Sysctl(netns=WEB.netns, name="net.ipv4.ip_default_ttl", value="9") == second
    assert [] == [r for r in plan_sandbox(WEB, [], HOST) if isinstance(r, Netns)]


def test_no_ipv6_where_the_host_has_none():
    """Addresses, routes, elements: nothing of it."""
    plan = plan_sandbox(WEB, [on(WEB, FRONT, 2)], HostFacts(ipv6=False))

    assert [] == [line for line in map(describe, plan) if "fd77" in line or "fe80" in line]
    assert [] == [e for e in plan if isinstance(e, Element) and e.set.endswith("6")]


def test_the_network_s_mtu_goes_before_the_host_s():
    """0 in the network means the host's."""
    wide = replace(FRONT, options={"mtu": "9000"})

    assert [9000] == [
        r.mtu for r in plan_sandbox(WEB, [on(WEB, wide, 2)], HOST) if isinstance(r, Link)
    ]
    assert [1400] == [
        r.mtu
        for r in plan_sandbox(WEB, [on(WEB, FRONT, 2)], HostFacts(mtu=1400))
        if isinstance(r, Link)
    ]


def test_only_its_own_addresses_pass():
    """One element for each address, of this veth, this MAC."""
    item = on(WEB, FRONT, 2)
    plan = plan_sandbox(replace(WEB, published=()), [item], HOST)
    allowed = [e.match for e in plan if isinstance(e, Element) and e.set.startswith("from")]

    assert [
        (veth_name(item.endpoint), item.endpoint.mac, "10.77.1.2"),
        (veth_name(item.endpoint), item.endpoint.mac, "fd77:1::2"),
    ] == allowed


def test_every_address_may_leave_by_each_link():
    """Replies and connections that outlive a change of the default route use the other link."""
    back, front = on(WEB, BACK, 2), on(WEB, FRONT, 2, "eth1")
    plan = plan_sandbox(replace(WEB, published=()), [back, front], HOST)
    extra = [e.match for e in plan if isinstance(e, Element) and "other address" in e.reason]

    assert [
        (veth_name(back.endpoint), back.endpoint.mac, "10.77.1.2"),
        (veth_name(back.endpoint), back.endpoint.mac, "fd77:1::2"),
        (veth_name(front.endpoint), front.endpoint.mac, "10.77.2.2"),
        (veth_name(front.endpoint), front.endpoint.mac, "fd77:2::2"),
    ] == extra


def test_a_macvlan_is_on_its_wire():
    """Its subnet is on-link, nothing of it is in the host's namespace, and no port leads to it."""
    wire = macvlan("wire", "192.0.2.0/24", "192.0.2.1")
    plan = plan_sandbox(WEB, [on(WEB, wire, 9)], HOST)

    assert {WEB.netns} == {r.netns for r in plan if hasattr(r, "netns")}
    assert [] == [r for r in plan if isinstance(r, Element)]
    assert "route 0.0.0.0/0 via 192.0.2.1 dev eth0" in " ".join(map(describe, plan))


def test_nothing_without_networks():
    """A sandbox that is attached to nothing needs nothing."""
    assert () == plan_sandbox(WEB, [], HOST)
