"""VXLAN between two hosts: made, used, kept and removed as a plan says.

box a --- host a === underlay (IPv4 and IPv6) === host b --- box b
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from seaway.errors import KernelError
from seaway.kernel import netns, offload
from seaway.plan.diff import Diff
from seaway.plan.resources import (
    VXLAN_LINKS,
    Fdb,
    Link,
    LinkAddress,
    LinkKind,
    Neighbour,
    Route,
)
from tests.support.netns import Refused
from tests.support.tunnel import Side, block, talk, tunnel_address, two_hosts

OVERHEAD = {4: 50, 6: 70}
VNI, PORT = 0x5357, 7903


def mac(side):
    """Return the MAC address of a side's VXLAN devices."""
    return f"02:53:57:01:00:0{side.number}"


def device(side, family, **more):
    """The device itself."""
    return Link(
        name=VXLAN_LINKS[family],
        kind=LinkKind.VXLAN,
        mac=mac(side),
        mtu=1500 - OVERHEAD[family],
        **{"vni": VNI, "port": PORT, "family": family, **more},
    )


def wants(side: Side, other: Side, family: int, mtu: int = 0):
    """What a side wants to reach the other over an underlay of this IP version."""
    link = VXLAN_LINKS[family]
    yield device(side, family)
    yield LinkAddress(link=link, address=tunnel_address(side, 4), prefixlen=32)
    yield LinkAddress(link=link, address=tunnel_address(side, 6), prefixlen=128)
    yield Fdb(link=link, mac=mac(other), to=ip_address(other.underlay(family)))
    for version in (4, 6):
        via = tunnel_address(other, version)
        yield Neighbour(link=link, address=via, mac=mac(other))
        yield Route(to=block(other, version), link=link, via=via, mtu=mtu)


@pytest.fixture(scope="module")
def site():
    """The machines."""
    with two_hosts() as both:
        yield both


@pytest.fixture
def sides(site):
    """Two hosts without any tunnel, before and after."""
    yield site
    for side in site:
        side.wanted = ()
        side.settle()


@pytest.fixture(params=[4, 6], ids=["over IPv4", "over IPv6"])
def joined(request, sides):
    """Two hosts with one; the IP version below it is in *family*."""
    a, b = sides
    a.family = b.family = request.param
    a.wanted, b.wanted = [*wants(a, b, a.family)], [*wants(b, a, a.family)]
    a.settle()
    b.settle()
    return a, b


def test_boxes_talk(joined):
    """Both IP versions inside, whichever is outside."""
    a, b = joined

    talk(a, b)
    talk(b, a)


def test_the_device_is_as_it_should_be(joined):
    """No learning, no cutting of outer packets, no addresses of the kernel's own, no filter."""
    a, _ = joined
    link = VXLAN_LINKS[a.family]

    shown = a.host.run(f"ip -d link show dev {link}")
    addresses = a.host.run(f"ip -o -6 address show dev {link}")

    assert "nolearning" in shown
    assert "df set" in shown
    assert " id 21335 " in shown
    assert "dstport 7903" in shown
    assert 1 == len(addresses.splitlines())
    assert "0" == a.host.run(f"sysctl -n net.ipv4.conf.{link}.rp_filter").strip()


def test_large_packets_pass(joined):
    """A whole packet of the device's MTU, and bulk data by TCP."""
    a, b = joined
    with b.box.serving(80, "x" * 60000):
        got = a.box.python(
            "import socket\n"
            f"s = socket.create_connection(('10.78.{b.number}.2', 80), 3); n = 0\n"
            "while d := s.recv(65536): n += len(d)\n"
            "print(n)"
        )

    assert "60000" == got


def test_applying_twice_is_fine(joined):
    """Carried out again by somebody who did not look, a plan changes nothing."""
    a, b = joined
    with netns.inside(str(a.host.path)):
        a.applier.apply(Diff(create=tuple(a.wanted)))

    a.settle()
    talk(a, b)


def test_the_other_host_moves(joined):
    """Its new underlay address replaces the old one; nothing is sent to both."""
    a, b = joined
    new = "192.0.2.22" if a.family == 4 else "2001:db8::22"
    b.host.run(f"ip address add {new}/{24 if a.family == 4 else 64} dev eth0 nodad".split())
    a.wanted = [
        replace(w, to=ip_address(new)) if isinstance(w, Fdb) else w for w in wants(a, b, a.family)
    ]

    a.settle()

    shown = a.host.run(f"bridge fdb show dev {VXLAN_LINKS[a.family]}")
    assert 1 == len(shown.splitlines())
    assert f"dst {new} self permanent" in shown
    talk(a, b)


BREAK = {
    "entry deleted": "bridge fdb del {mac} dev {link} dst {to} self",
    "entry moved": "bridge fdb replace {mac} dev {link} dst {stranger} self permanent",
    "entry added": "bridge fdb add 02:00:00:00:00:09 dev {link} dst {stranger} self permanent",
    "flooding": "bridge fdb append 00:00:00:00:00:00 dev {link} dst {stranger} self permanent",
    "link deleted": "ip link del {link}",
    "link down": "ip link set {link} down",
    "link's MTU": "ip link set {link} mtu 1300",
    "neighbour deleted": "ip neigh del {via} dev {link}",
    "route deleted": "ip route del 10.78.2.0/24",
    "address deleted": "ip address del 169.254.64.1/32 dev {link}",
}


@pytest.mark.parametrize("kind", BREAK)
def test_what_others_break_is_put_right(joined, kind):
    """One look finds it and repairs it, and packets flow again."""
    a, b = joined
    a.host.run(
        BREAK[kind].format(
            mac=mac(b),
            link=VXLAN_LINKS[a.family],
            to=b.underlay(a.family),
            stranger="192.0.2.99" if a.family == 4 else "2001:db8::99",
            via=tunnel_address(b, 4),
        )
    )
    assert a.look()

    a.settle()

    talk(a, b)


@pytest.mark.parametrize("changed", [{"vni": 7}, {"port": 7913}])
def test_what_cannot_be_changed_is_made_anew(joined, changed):
    """The device is replaced; what was on it comes back with the next look."""
    a, b = joined
    for side, other in ((a, b), (b, a)):
        side.wanted = [device(side, a.family, **changed), *[*wants(side, other, a.family)][1:]]
        side.apply()
        side.settle()

    talk(a, b)


def test_a_stranger_with_our_name_is_replaced(sides):
    """A link of another kind, or for the other IP version, does not pass for ours."""
    a, b = sides
    a.host.run("ip link add swx4 type bridge")
    a.host.run(f"ip link add swx6 type vxlan id {VNI} dstport {PORT} nolearning")
    a.wanted, b.wanted = [*wants(a, b, 4), device(a, 6)], [*wants(b, a, 4)]

    a.apply()
    a.settle()
    b.settle()

    talk(a, b)


def test_two_families_at_once(sides):
    """Each has its device; the same port and number do not clash."""
    a, b = sides
    for side, other in ((a, b), (b, a)):
        side.wanted = [device(side, 6), *wants(side, other, 4)]
        side.settle()

    talk(a, b)


def test_a_port_that_is_taken_is_refused(sides):
    """The error says which link could not be brought up, and why."""
    a, b = sides
    a.wanted = [*wants(a, b, 4)]
    with a.host.serving(PORT, kind="udp"), pytest.raises(KernelError, match=r"swx4: .*in use"):
        a.apply()

    a.settle()


def test_another_device_with_its_number_is_refused(sides):
    """The kernel allows one for each number and port; the error says so."""
    a, b = sides
    a.host.run(f"ip link add other type vxlan id {VNI} dstport {PORT}")
    a.wanted = [*wants(a, b, 4)]

    with pytest.raises(KernelError, match="another VXLAN link has its number 21335"):
        a.apply()

    a.host.run("ip link del other")


def test_without_checksums(sides):
    """Inner ones are computed here, and packets pass; that changes, and back, in place."""
    a, b = sides
    for family in (4, 6):
        for side, other in ((a, b), (b, a)):
            rest = [*wants(side, other, family)][1:]
            side.wanted = [device(side, family), *rest]
            side.settle()
        number = a.host.run(f"ip -o link show dev {VXLAN_LINKS[family]}").split(":")[0]
        for trusted in (False, True):
            for side, other in ((a, b), (b, a)):
                rest = [*wants(side, other, family)][1:]
                side.wanted = [device(side, family, checksum=trusted), *rest]
                side.settle()
            talk(a, b)
            with netns.inside(str(a.host.path)):
                assert offload.tx_checksum(VXLAN_LINKS[family]) is trusted
        assert number == a.host.run(f"ip -o link show dev {VXLAN_LINKS[family]}").split(":")[0]


@pytest.mark.parametrize("version", [4, 6])
def test_a_narrower_way_is_told_to_the_sender(sides, version):
    """A forwarded packet above the route's MTU is answered with that MTU, in both versions."""
    a, b = sides
    a.wanted, b.wanted = [*wants(a, b, 4, mtu=1300)], [*wants(b, a, 4)]
    a.settle()
    b.settle()
    there = "10.78.2.2" if version == 4 else "fd78:2::2"

    learnt = a.box.python(
        "import socket, sys, time\n"
        "there, version = sys.argv[1], int(sys.argv[2])\n"
        "family = socket.AF_INET if version == 4 else socket.AF_INET6\n"
        "s = socket.socket(family, socket.SOCK_DGRAM)\n"
        "level, discover, mtu = (0, 10, 14) if version == 4 else (41, 23, 24)\n"
        "s.setsockopt(level, discover, 2)\n"  # IP_PMTUDISC_DO
        "s.connect((there, 9))\n"
        "until = time.monotonic() + 3\n"
        "while s.getsockopt(level, mtu) == 1500 and time.monotonic() < until:\n"
        "    try: s.send(bytes(1400))\n"
        "    except OSError: pass\n"
        "    time.sleep(0.01)\n"
        "print(s.getsockopt(level, mtu))",
        there,
        str(version),
    )

    assert "1300" == learnt


def test_a_route_gets_another_mtu(joined):
    """It is replaced, not added to."""
    a, b = joined
    a.wanted = [*wants(a, b, a.family, mtu=1280)]

    a.settle()

    for flag in ("-4", "-6"):
        shown = a.host.run(f"ip {flag} route show proto 86")
        assert 1 == shown.count("mtu")
        assert 1 == len(shown.splitlines())
    a.host.run(
        f"ip -6 route change fd78:2::/64 proto 86 via fe80::5357:0:2 dev swx{a.family} mtu 1280"
    )
    assert [
        f"~ route fd78:2::/64 via fe80::5357:0:2 dev swx{a.family} mtu 1280"
    ] == a.look().lines()
    a.settle()
    talk(a, b)


def test_nothing_is_left(joined):
    """A side that wants nothing any more has no link, route or neighbour of ours."""
    a, b = joined
    a.wanted = ()

    a.settle()

    assert "swx" not in a.host.run("ip -o link")
    assert "proto 86" not in a.host.run("ip route") + a.host.run("ip -6 route")
    with pytest.raises(Refused):
        talk(a, b)
