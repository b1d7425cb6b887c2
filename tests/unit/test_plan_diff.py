"""Desired minus observed."""

from __future__ import annotations

import math
from dataclasses import replace
from ipaddress import ip_address, ip_network

from seaway.plan.diff import diff
from seaway.plan.resources import (
    Element,
    Fdb,
    Link,
    LinkKind,
    Netns,
    Route,
    Ruleset,
    Sysctl,
    WireGuardDevice,
    WireGuardPeer,
    describe,
)

LINK = Link(name="swv-a", kind=LinkKind.VETH, mtu=1500, reason="web on front")
ROUTE = Route(to=ip_network("10.0.0.2/32"), link="swv-a", reason="web on front")
PEER = WireGuardPeer(
    link="sww-a",
    public_key="P=",
    endpoint=(ip_address("192.0.2.1"), 7904),
    allowed=(ip_network("10.0.0.0/24"), ip_network("fd00::/64")),
)


def test_three_groups():
    """What is missing is created, what differs is changed, what nobody wants is deleted."""
    plan = diff([LINK, ROUTE], [replace(LINK, mtu=1400), Sysctl(name="net.x", value="1")])

    assert (ROUTE,) == plan.create
    assert ((replace(LINK, mtu=1400), LINK),) == plan.change
    assert (Sysctl(name="net.x", value="1"),) == plan.delete


def test_equal_is_empty():
    """In any order, whatever the reasons say, and although the far end cannot be seen."""
    seen = replace(LINK, reason="", peer_netns="", peer_name="")

    assert not diff([LINK, ROUTE], [ROUTE, seen])
    assert [] == diff([LINK], [seen]).lines()


def test_lines_are_for_people():
    """A sign, the object, and the reason if there is one."""
    plan = diff([LINK, ROUTE], [replace(LINK, mtu=1400), Netns(path="/run/x")])

    assert [
        "+ route 10.0.0.2/32 dev swv-a   # web on front",
        "~ link swv-a (veth, mtu 1500)   # web on front",
        "- netns /run/x",
    ] == plan.lines()


def test_everything_has_a_description():
    """One line each, in the words of ip(8) and nft(8)."""
    element = Element(set="publish_any4", match=("tcp", "80"), value=("10.0.0.2", "80"))

    assert "element publish_any4 { tcp . 80 : 10.0.0.2 . 80 }" == describe(element)
    assert "sysctl net.x = 1 in /n" == describe(Sysctl(netns="/n", name="net.x", value="1"))
    assert "table inet seaway: chains and empty sets" == describe(Ruleset(text="x"))
    vxlan = Link(
        name="swx6", kind=LinkKind.VXLAN, mtu=1430, vni=7, port=7903, family=6, checksum=False
    )
    assert "link swx6 (vxlan, mtu 1430, vni 7, port 7903, over IPv6, no checksums)" == describe(
        vxlan
    )
    assert "route 10.0.0.2/32 dev swv-a mtu 1400" == describe(replace(ROUTE, mtu=1400))
    fdb = Fdb(link="swx4", mac="02:00:00:00:00:01", to=ip_address("192.0.2.1"))
    assert "fdb 02:00:00:00:00:01 is at 192.0.2.1 on swx4" == describe(fdb)
    device = WireGuardDevice(link="sww-a", private_key_path="/k", public_key="K=", port=7904)
    assert "wireguard sww-a: key K=, port 7904" == describe(device)
    assert (
        "wireguard peer P= on sww-a at 192.0.2.1 port 7904, allowed 10.0.0.0/24 fd00::/64"
        == describe(PEER)
    )
    assert "wireguard peer P= on sww-a, allowed nothing" == describe(
        replace(PEER, endpoint=None, allowed=())
    )


def test_an_endpoint_of_the_plan_is_a_change():
    """One plan against another: where the peer is matters."""
    moved = replace(PEER, endpoint=(ip_address("192.0.2.9"), 7904))

    assert ((PEER, moved),) == diff([moved], [PEER]).change
    assert diff([replace(PEER, endpoint=None)], [PEER])
    assert not diff([PEER], [PEER])


def test_a_peer_that_was_heard_of_is_where_it_is():
    """WireGuard follows who roams; only of a silent one does the plan know better."""
    elsewhere = replace(PEER, endpoint=(ip_address("192.0.2.9"), 40000))

    assert not diff([PEER], [replace(elsewhere, age=12.0)])
    assert diff([PEER], [replace(elsewhere, age=1000.0)])
    assert diff([PEER], [replace(PEER, endpoint=None, age=math.inf)])
    assert diff([PEER], [replace(elsewhere, age=12.0, allowed=())])
    assert diff([PEER], [replace(elsewhere, age=12.0, keepalive=25)])


def test_a_peer_without_an_endpoint_may_be_anywhere():
    """It is behind a NAT and speaks first: what was learnt of it, however long ago, stays."""
    plan = replace(PEER, endpoint=None)

    assert not diff([plan], [replace(PEER, age=1e6)])
    assert not diff([plan], [replace(plan, age=math.inf)])
    assert 1 == len({plan, replace(PEER, age=1e6)})
