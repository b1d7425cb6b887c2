"""How a host would send to others, and that it hears when that may have changed.

host 192.0.2.1 eth0 --- 192.0.2.2 eth0 router 198.18.0.1 eth1 --- 198.18.0.2 eth0 far
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from seaway.kernel import netlink as nl
from seaway.kernel import netns, offload, underlay
from seaway.kernel.apply import Applier
from seaway.plan.carriers import UnderlayPath
from seaway.plan.diff import Diff
from seaway.plan.resources import VXLAN_LINKS, Fdb, Link, LinkAddress, LinkKind, Neighbour, Route
from tests.support.ears import Ears
from tests.support.netns import cable, namespaces, wait_until

NEXT = {4: ip_address("192.0.2.2"), 6: ip_address("2001:db8::2")}
FAR = {4: ip_address("198.18.0.2"), 6: ip_address("2001:db8:1::2")}
OWN = {4: ip_address("192.0.2.1"), 6: ip_address("2001:db8::1")}


@pytest.fixture
def site():
    """The machines, with routes to each other."""
    with namespaces("host", "router", "far") as (host, router, far):
        cable(
            *(host, "eth0", "192.0.2.1/24,2001:db8::1/64"),
            *(router, "eth0", "192.0.2.2/24,2001:db8::2/64"),
        )
        cable(
            *(router, "eth1", "198.18.0.1/24,2001:db8:1::1/64"),
            *(far, "eth0", "198.18.0.2/24,2001:db8:1::2/64"),
        )
        router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
        host.run("ip route add default via 192.0.2.2")
        host.run("ip route add default via 2001:db8::2")
        far.run("ip route add default via 198.18.0.1")
        far.run("ip route add default via 2001:db8:1::1")
        host.router, host.far = router, far
        yield host


@contextmanager
def asking(host):
    """Be in the host with a socket to ask by."""
    with netns.inside(str(host.path)), nl.Netlink() as sock:
        yield sock


@pytest.mark.parametrize("version", [4, 6])
def test_a_neighbour_is_on_the_link(site, version):
    """Link, source address, MTU and the link's MAC address."""
    with asking(site) as sock:
        mac = underlay.link_mac(sock, "eth0")
        found = underlay.path_to(sock, NEXT[version])

    assert mac in site.run("ip link show eth0")
    want = {"to": NEXT[version], "link": "eth0", "source": OWN[version], "mtu": 1500}
    assert UnderlayPath(**want, on_link=True, link_mac=mac) == found


@pytest.mark.parametrize("version", [4, 6])
def test_behind_a_router_is_not(site, version):
    """There is a next hop; a route's own MTU counts."""
    with asking(site) as sock:
        far = underlay.path_to(sock, FAR[version])
        site.run(f"ip route add {FAR[version]} via {NEXT[version]} mtu 1400")
        narrow = underlay.path_to(sock, FAR[version])

    assert (False, 1500) == (far.on_link, far.mtu)
    assert (False, 1400) == (narrow.on_link, narrow.mtu)


@pytest.mark.parametrize("version", [4, 6])
def test_what_the_kernel_has_learnt_counts(site, version):
    """A router that said "too big" has made the path narrower for this host alone."""
    site.router.run("ip link set eth1 mtu 1280")
    with asking(site) as sock:
        before = underlay.path_to(sock, FAR[version])
        send_large(site, FAR[version])
        wait_until(lambda: underlay.path_to(sock, FAR[version]).mtu == 1280)
        after = underlay.path_to(sock, NEXT[version])

    assert 1500 == before.mtu
    assert 1500 == after.mtu


def send_large(site, to):
    """Send a packet that the router cannot forward whole."""
    site.python(
        "import socket, sys\n"
        "v6 = ':' in sys.argv[1]\n"
        "s = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM)\n"
        "s.setsockopt(*((41, 23, 2) if v6 else (0, 10, 2)))\n"  # IP_PMTUDISC_DO
        "s.connect((sys.argv[1], 9)); s.send(bytes(1400))",
        str(to),
    )


def test_many_at_once(site):
    """A thousand in one call, in any order, those without a route left out."""
    wanted = [ip_address("198.18.0.0") + n for n in range(1000)]
    site.run("ip route add unreachable 198.18.0.77")
    with asking(site) as sock:
        found = underlay.paths(sock, [*wanted, OWN[4], *wanted])

    assert 999 == len(found)
    assert wanted[77] not in found
    assert all(path.to == address for address, path in found.items())


def test_no_way_leads_through_our_own_links(site):
    """A route into a tunnel is no underlay."""
    site.run("ip link add swx4 type vxlan id 7 dstport 7903 nolearning")
    site.run("ip link set swx4 up")
    site.run("ip route add 198.18.7.0/24 dev swx4 src 192.0.2.1")
    with asking(site) as sock:
        assert underlay.path_to(sock, ip_address("198.18.7.7")) is None


@pytest.mark.parametrize("version", [4, 6])
def test_the_address_that_others_are_told(site, version):
    """By the default route; without one, an address that is there; without any, none."""
    with asking(site) as sock:
        first = underlay.default_source(sock, version)
        site.run(f"ip -{version} route del default")
        second = underlay.default_source(sock, version)
        site.run(f"ip -{version} address flush dev eth0")
        third = underlay.default_source(sock, version)

    assert (OWN[version], OWN[version], None) == (first, second, third)


def test_checksum_offload_is_set(site):
    """Off and on again; a link that is not there is refused."""
    with netns.inside(str(site.path)):
        before = offload.tx_checksum("eth0")
        offload.set_tx_checksum("eth0", on=False)
        off = offload.tx_checksum("eth0")
        offload.set_tx_checksum("eth0", on=True)
        on = offload.tx_checksum("eth0")

    assert (True, False, True) == (before, off, on)


def heard(host, command):
    """Return what is said of a command."""
    return Ears(host).after(lambda: host.run(command))


@pytest.mark.parametrize(
    "command",
    [
        "ip address add 192.0.2.9/24 dev eth0",
        "ip address del 192.0.2.1/24 dev eth0",
        "ip address del 2001:db8::1/64 dev eth0",
        "ip route add 203.0.113.0/24 via 192.0.2.2",
        "ip route replace default via 192.0.2.3",
        "ip route del default",
        "ip -6 route del default",
        "ip link set eth0 mtu 1400",
        "ip link set eth0 down",
        "ip link del eth0",
    ],
)
def test_another_way_is_heard_of(site, command):
    """Addresses, routes and links of the host's own."""
    assert "underlay" in heard(site, command)


@pytest.mark.parametrize(
    "command",
    [
        "ip link add other type bridge",
        "ip link set lo mtu 60000",
        "ip link set eth0 alias uplink",
        "ip address change 192.0.2.1/24 dev eth0 valid_lft 1000 preferred_lft 1000",
        "ip address add fe80::77/64 dev eth0 nodad",
        "ip route add 10.9.0.0/24 dev eth0 proto 86",
        "ip neigh replace 192.0.2.2 lladdr 02:00:00:00:00:09 dev eth0",
    ],
)
def test_what_changes_no_way_is_not(site, command):
    """Links without addresses, repetitions, neighbours, and routes of ours."""
    assert "underlay" not in heard(site, command)


@pytest.mark.parametrize("version", [4, 6])
def test_a_tunnel_learns_that_its_way_is_narrow(site, version):
    """Outer packets are not cut by routers, so the host hears of it, and asking tells."""
    site.router.run("ip link set eth1 mtu 1280")
    link, there = VXLAN_LINKS[version], ip_address("169.254.64.2")
    device = replace(TUNNEL, name=link, family=version)
    with asking(site) as sock:
        applier = Applier()
        applier.apply(
            Diff(
                create=(
                    device,
                    LinkAddress(link=link, address=ip_address("169.254.64.1"), prefixlen=32),
                    replace(ENTRY, link=link, to=FAR[version]),
                    Neighbour(link=link, address=there, mac=ENTRY.mac),
                    Route(to=ip_network(there), link=link),
                )
            )
        )
        applier.close()
        assert 1500 == underlay.path_to(sock, FAR[version]).mtu

        send_large(site, there)

        wait_until(lambda: underlay.path_to(sock, FAR[version]).mtu == 1280)


TUNNEL = Link(name="swx4", kind=LinkKind.VXLAN, mtu=1450, vni=7, port=7903, family=4)
ENTRY = Fdb(link="swx4", mac="02:53:57:01:00:02", to=NEXT[4])


@pytest.mark.parametrize(
    ("command", "about"),
    [
        ("bridge fdb del {mac} dev swx4 dst 192.0.2.2 self", "fdb entry"),
        ("bridge fdb replace {mac} dev swx4 dst 192.0.2.9 self permanent", "fdb entry"),
        ("bridge fdb append 00:00:00:00:00:00 dev swx4 dst 192.0.2.9 self", "fdb entry"),
        ("ip link del swx4", "link swx4"),
    ],
)
def test_what_others_do_to_a_tunnel_is_heard_of(site, command, about):
    """Its entries, and itself."""
    ears = with_tunnel(site)

    said = ears.after(lambda: site.run(command.format(mac=ENTRY.mac)))

    assert any(about in why for why in said)


def test_our_own_entries_are_not(site):
    """Put there once more, and taken away."""
    ears = with_tunnel(site)
    assert [] == ears.after(lambda: carry_out(site, ears, Diff(create=(ENTRY,))))

    ears = with_tunnel(site)
    ears.known.pop(ENTRY.key)
    assert [] == ears.after(lambda: carry_out(site, ears, Diff(delete=(ENTRY,))))


def carry_out(site, ears, plan):
    """Apply a plan in the host, in whatever thread this is."""
    with netns.inside(str(site.path)):
        ears.applier.apply(plan)


def test_a_tunnel_that_we_make_anew_is_heard_of(site):
    """What was on it has gone without a word, so a look is needed; not if it just goes."""
    ears = with_tunnel(site)
    assert ears.after(lambda: ears.applier.remove_links(["swx4"]))
    ears.known.clear()

    ears = with_tunnel(site)
    ears.known.clear()
    assert not ears.after(lambda: ears.applier.remove_links(["swx4"]))


def with_tunnel(site):
    """A monitor on a host with a tunnel of ours."""
    ears = Ears(site)
    with netns.inside(str(site.path)):
        ears.applier.apply(Diff(create=(TUNNEL, ENTRY)))
    ears.known.update({item.key: item for item in (TUNNEL, ENTRY)})
    return ears
