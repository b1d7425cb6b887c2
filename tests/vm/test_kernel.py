"""What few kernels show: Seaway beside modules that most have and some lack.

``make test-vm`` runs these on Debian's own kernel; elsewhere those run that can.
"""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from seaway.kernel import features, netns, observe, wireguard
from seaway.kernel.facts import LINK_KINDS
from seaway.plan.resources import (
    Link,
    LinkAddress,
    LinkKind,
    Resource,
    Route,
    WireGuardDevice,
    WireGuardPeer,
)
from tests.support.netns import wait_until
from tests.support.tunnel import Side, block, talk, tunnel_address, two_hosts
from tests.support.wireguard import running, use

PORT, MTU = 7904, 1420
NAMES = {1: "sww-vm1", 2: "sww-vm2"}


@pytest.mark.needs_kernel(*LINK_KINDS)
def test_every_kind_of_link():
    """What Seaway makes links of can be made, and ``seaway probe`` sees that."""
    assert frozenset(LINK_KINDS) == features.link_kinds()


def test_the_whole_table_loads():
    """nft and this kernel take every rule of ours."""
    assert ((), "") == features.nft_refused()


@pytest.fixture
def sides(tmp_path):
    """Two hosts with a key each, and nothing between them yet."""
    with two_hosts() as both:
        for side in both:
            side.key = tmp_path / f"{side.number}.key"
            side.public = wireguard.make_key(side.key)
        yield both


def wants(side: Side, other: Side) -> list[Resource]:
    """All that a side wants to reach the other."""
    name = NAMES[side.number]
    allowed = (block(other, 4), ip_network(tunnel_address(other, 4)), block(other, 6))
    key = {"private_key_path": str(side.key), "public_key": side.public}
    endpoint = (ip_address(other.underlay(4)), PORT)
    return [
        Link(name=name, kind=LinkKind.WIREGUARD, mtu=MTU),
        WireGuardDevice(link=name, port=PORT, **key),
        WireGuardPeer(link=name, public_key=other.public, endpoint=endpoint, allowed=allowed),
        LinkAddress(link=name, address=tunnel_address(side, 4), prefixlen=32),
        *(Route(to=block(other, version), link=name) for version in (4, 6)),
    ]


def settle(side: Side, other: Side) -> None:
    """Make a side's end of the tunnel."""
    side.wanted = wants(side, other)
    side.settle()


def kind(side: Side) -> str:
    """What the kernel says a side's link is."""
    with netns.inside(str(side.host.path)):
        (link,) = (s for s in observe.links(side.applier.netlink) if s.name == NAMES[side.number])
    return link.kind


@pytest.mark.needs_kernel("wireguard")
def test_the_kernel_s_wireguard_is_used(sides):
    """Where the kernel has it nobody runs in user space, and packets pass both ways."""
    a, b = sides
    settle(a, b)
    settle(b, a)

    talk(a, b)
    talk(b, a)

    assert ["wireguard", "wireguard"] == [kind(a), kind(b)]
    assert not [pid for name in NAMES.values() for pid in running(name)]
    assert Path("/sys/module/wireguard").exists()


@pytest.mark.needs_kernel("wireguard")
@pytest.mark.skipif(not features.installed("wireguard-go"), reason="no wireguard-go here")
def test_hosts_of_two_sorts(sides, monkeypatch):
    """The kernel's WireGuard and a wireguard-go understand each other, whoever speaks first."""
    a, b = sides
    settle(a, b)
    with monkeypatch.context() as patch:
        use(wireguard.WIREGUARD_GO, patch)
        settle(b, a)

    talk(a, b)
    talk(b, a)

    assert ["wireguard", "tun"] == [kind(a), kind(b)]
    b.wanted = ()
    b.settle()
    wait_until(lambda: not running(NAMES[2]))
