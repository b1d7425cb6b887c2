"""Desired minus observed."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

from seaway.plan.diff import diff
from seaway.plan.resources import Element, Link, LinkKind, Netns, Route, Ruleset, Sysctl, describe

LINK = Link(name="swv-a", kind=LinkKind.VETH, mtu=1500, reason="web on front")
ROUTE = Route(to=ip_network("10.0.0.2/32"), link="swv-a", reason="web on front")


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
