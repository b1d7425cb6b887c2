"""What the rules let in from other hosts, and out to them.

    host1, as planned     host2, by hand     outside, no host of the cluster
    a, b, c    \\                |               /
               192.0.2.1    192.0.2.2      192.0.2.200

host2's containers are addresses of its own: the rules cannot tell.
"""

from __future__ import annotations

import json
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from ipaddress import ip_network

import pytest

from seaway.kernel import conntrack, netns
from seaway.model.cluster import Block, HostId
from seaway.plan.overlay import Tunnels, plan_hosts, plan_peer, plan_tunnels, vxlan_versions
from tests.support import frames
from tests.support.model import network, on, sandbox
from tests.support.netns import Refused, cable, namespaces, wait_until
from tests.support.overlay import blocks, here, host, overlay, paths, there
from tests.support.world import world

FRONT = network("front", 1)
BLUE = overlay("blue", 7)  # encrypted
GREEN = overlay("green", 8, clear=True)
TUNNELLED = overlay("tunnelled", 9, clear=True, carrier="vxlan")
INNER = overlay("inner", 10, clear=True, internal=True)

GREEN2, GREEN2_6 = "10.77.8.34", "fd77:8::2:2"  # on host2
TUNNELLED2, TUNNELLED2_6 = "10.77.9.34", "fd77:9::2:2"
JOIN_PORT, ETCD_PORT, ETCD_PEERS_PORT, VXLAN_PORT = 7900, 7901, 7902, 7903
LENT = tuple(
    Block(network=GREEN.id, cidr=ip_network(cidr), host=HostId(""))
    for cidr in ("10.77.8.51/32", "fd77:8::3:3/128")
)  # out of host3's blocks, to host2

ASK = """
import socket, sys
there = (sys.argv[2], int(sys.argv[3]))
print(socket.create_connection(there, 2, (sys.argv[1], 0)).recv(100).decode())
"""


@pytest.fixture(scope="module")
def site():
    """The machines on one switch, and the world of host1 with all networks."""
    with namespaces("switch", "host1", "host2", "outside", "a", "b", "c") as spaces:
        switch, *machines = spaces[:4]
        switch.run("ip link add br0 type bridge")
        switch.run("ip link set br0 up")
        for n, machine in ((1, machines[0]), (2, machines[1]), (200, machines[2])):
            cable(machine, "eth0", f"192.0.2.{n}/24,2001:db8::{n:x}/64", switch, f"port{n}", "")
            switch.run(f"ip link set port{n} master br0")
        with world(spaces[1]) as it:
            it.host1, it.host2, it.outside, it.a, it.b, it.c = spaces[1:]
            join(it)
            by_hand(it)
            attach(it)
            yield it


def join(it):
    """Plan all that leads to host2, and a host3 that is not there."""
    it.me = host("host1", 1, mac=frames.mac_of(it.host1, "eth0"))
    it.peer = host("host2", 2, mac=frames.mac_of(it.host2, "eth0"))
    it.here = here(it.me)
    it.facts = it.here.facts
    shared = [BLUE, GREEN, TUNNELLED, INNER]
    it.networks = [FRONT, *shared]
    for other in (replace(it.peer, keys=()), host("host3", 3, keys=())):
        to = there(other, *shared, paths=paths(it.me, other))
        if other.number == 2:
            to = replace(to, networks=(*to.networks, (GREEN, LENT)))
        it.more[f"peer/{other.name}"] = plan_peer(it.here, to)
    tunnels = Tunnels(vxlan=vxlan_versions(it.here, to), links=frozenset({"eth0"}))
    it.more["tunnels"] = plan_tunnels(it.here, tunnels)
    it.more["hosts"] = plan_hosts(it.here.cluster, [*it.me.addresses, *it.peer.addresses])


def by_hand(it):
    """Make host2 what host1 takes it for."""
    it.host2.shell(
        f"""
        sysctl -qw net.ipv4.ip_forward=1
        ip link add vx address {it.peer.tunnel_mac} mtu 1450 type vxlan id 21335 \
            dstport {VXLAN_PORT} local 192.0.2.2 nolearning
        sysctl -qw net.ipv6.conf.vx.accept_dad=0
        ip link set vx up
        ip address add {it.peer.tunnel}/32 dev vx
        bridge fdb add {it.me.tunnel_mac} dev vx dst 192.0.2.1 self permanent
        ip neighbour add {it.me.tunnel} lladdr {it.me.tunnel_mac} dev vx nud permanent
        ip neighbour add {it.me.tunnel6} lladdr {it.me.tunnel_mac} dev vx nud permanent
        for address in {GREEN2} {TUNNELLED2} 10.77.8.51 10.77.10.34 10.77.7.34; do
            ip address add $address/32 dev lo; done
        for address in {GREEN2_6} {TUNNELLED2_6} fd77:8::3:3; do
            ip address add $address/128 dev lo; done
        ip route add 10.77.8.16/28 via 192.0.2.1 src {GREEN2}
        ip route add 10.77.10.16/28 via 192.0.2.1 src 10.77.10.34
        ip route add 10.77.7.16/28 via 192.0.2.1 src 10.77.7.34
        ip route add 10.77.9.16/28 via {it.me.tunnel} dev vx onlink src {TUNNELLED2}
        ip -6 route add fd77:8::1:0/112 via 2001:db8::1 src {GREEN2_6}
        ip -6 route add fd77:9::1:0/112 via {it.me.tunnel6} dev vx src {TUNNELLED2_6}
        """
    )


def attach(it):
    """Put a on all overlay networks but the internal one, b on that, and c on a local one."""
    box = {name: sandbox(name, netns=str(getattr(it, name).path)) for name in "abc"}
    box["a"] = sandbox("a", ["8080:80", f"{ETCD_PORT}:80"], netns=str(it.a.path))
    it.put(box["a"], *(at(box["a"], n, f"eth{i}") for i, n in enumerate((GREEN, TUNNELLED, BLUE))))
    it.put(box["b"], at(box["b"], INNER))
    it.put(box["c"], on(box["c"], FRONT, 2))
    it.settle()


def at(who, where, ifname="eth0"):
    """Attach with an address in host1's block: .18 and ::1:2."""
    v4, v6 = (block.cidr.network_address + 2 for block in blocks(where, host("host1", 1)))
    return on(who, where, 2, ifname, v4=v4, v6=v6)


def drops(it):
    """Read the counters: name -> packets."""
    found = json.loads(it.host1.run("nft -j list counters table inet seaway"))["nftables"]
    return {c["counter"]["name"]: c["counter"]["packets"] for c in found if "counter" in c}


def dropped(it, space, address, port=80, kind="tcp"):
    """Ask in vain; return the counters that moved."""
    before = drops(it)
    with pytest.raises(Refused):
        space.ask(address, port, kind, seconds=0.3)
    return {name for name, count in drops(it).items() if count > before[name]}


def sent(it, space, link, *packets):
    """Send frames that are dropped; return the counters that moved."""
    before = drops(it)
    frames.send(space, link, packets)
    wait_until(lambda: drops(it) != before, what="nothing was dropped")
    return {name for name, count in drops(it).items() if count > before[name]}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("10.77.8.18", GREEN2),
        ("fd77:8::1:2", GREEN2_6),
        ("10.77.9.18", TUNNELLED2),
        ("fd77:9::1:2", TUNNELLED2_6),
        ("10.77.8.18", "10.77.8.51"),
        ("fd77:8::1:2", "fd77:8::3:3"),
    ],
    ids=["direct", "direct, IPv6", "vxlan", "vxlan, IPv6", "lent", "lent, IPv6"],
)
def test_members_on_two_hosts_talk(site, ours, theirs):
    """Both ways, and each sees the other's own address; nothing is dropped."""
    before = drops(site)
    everyone = "::" if ":" in ours else "0.0.0.0"

    with site.a.serving(80, address=everyone), site.host2.serving(81, address=everyone):
        assert theirs == site.host2.python(ASK, theirs, ours, "80")
        assert ours == site.a.ask(theirs, 81)
    assert before == drops(site)


def test_members_on_an_internal_network_talk(site):
    """Across hosts, too; and they get nowhere else."""
    with site.host2.serving(81):
        assert "10.77.10.18" == site.b.ask("10.77.10.34", 81)


def test_what_leaves_the_cluster_takes_the_hosts_address(site):
    """As on local networks: egress is by the host the container runs on."""
    with site.outside.serving(81):
        assert "192.0.2.1" == site.a.ask("192.0.2.200", 81)


def test_a_second_look_finds_nothing_to_do(site):
    """What was applied is what is observed."""
    assert [] == site.todo()


def macs(it, sender=None):
    """From a machine to host1."""
    return frames.mac_of(sender or it.outside, "eth0"), it.me.mac


def test_a_source_of_another_host_from_a_stranger_is_spoofed(site):
    """On the link, with a container's address, but not with its host's MAC address."""
    packet = frames.syn(macs(site), GREEN2, "10.77.8.18", 80)

    assert {"drop_spoofed"} == sent(site, site.outside, "eth0", packet)


@pytest.mark.parametrize("source", ["10.77.8.50", "10.77.8.19", "10.77.8.200"])
def test_a_source_that_is_not_its_senders_is_spoofed(site, source):
    """A host of the cluster sends for host3, for us, or for nobody; a mark does not help it."""
    packet = frames.syn(macs(site, site.host2), source, "10.77.8.18", 80)

    assert {"drop_spoofed"} == sent(site, site.host2, "eth0", packet)
    with marking(site, "mark set 2", "raw - 1"):
        assert {"drop_spoofed"} == sent(site, site.host2, "eth0", packet)


def test_no_mark_is_left(site):
    """The one that our rules use for a moment is gone when others look."""
    with marking(site, 'mark != 0 ip saddr 10.77.8.0/24 counter comment "left"', "mangle"):
        with site.a.serving(80):
            assert GREEN2 == site.host2.ask("10.77.8.18", 80)
        assert "counter packets 0 " in site.host1.run("nft list table inet marking")


@contextmanager
def marking(site, rule, priority):
    """A rule of somebody else's about packet marks."""
    hook = f"type filter hook prerouting priority {priority};"
    site.host1.run(
        "nft -f -", f"table inet marking {{ chain c {{ {hook}\n iifname eth0 meta {rule}\n}}\n}}"
    )
    try:
        yield
    finally:
        site.host1.run("nft delete table inet marking")


@pytest.mark.parametrize("source", ["10.77.9.50", "203.0.113.9", "fd77:9::3:2", "2001:db8::99"])
def test_a_source_in_a_tunnel_that_is_not_its_senders_is_spoofed(site, source):
    """By VXLAN from host2: only its own containers, and itself."""
    to = "fd77:9::1:2" if ":" in source else "10.77.9.18"
    packet = frames.udp((site.peer.tunnel_mac, site.me.tunnel_mac), source, to, 80)

    assert {"drop_spoofed"} == sent(site, site.host2, "vx", packet)


def test_an_encrypted_network_does_not_come_in_clear(site):
    """From a host of the cluster, with an address that is its own, without WireGuard."""
    packet = frames.syn(macs(site, site.host2), "10.77.7.34", "10.77.7.18", 80)
    inside = frames.syn((site.peer.tunnel_mac, site.me.tunnel_mac), "10.77.7.34", "10.77.7.18", 80)

    assert {"drop_clear"} == sent(site, site.host2, "eth0", packet)
    assert {"drop_clear"} == sent(site, site.host2, "vx", inside)
    packet = frames.syn(macs(site, site.host2), "fd77:7::2:2", "fd77:7::1:2", 80)
    assert {"drop_clear"} == sent(site, site.host2, "eth0", packet)


def test_an_encrypted_network_does_not_leave_in_clear(site):
    """Not even if somebody sets a route for it: a new connection, one that stands, our own."""
    site.host1.run("ip route add 10.77.7.34/32 via 192.0.2.2")
    try:
        assert {"drop_clear"} == dropped(site, site.a, "10.77.7.34")
        assert {"drop_clear"} == dropped(site, site.a, "10.77.7.34", 80, "udp")
        assert {"drop_clear"} == dropped(site, site.host1, "10.77.7.34")
        site.host1.run("ip route add fd77:7::2:2/128 via 2001:db8::2")
        assert {"drop_clear"} == dropped(site, site.a, "fd77:7::2:2")
        assert {"drop_clear"} == dropped(site, site.host1, "fd77:7::2:2")
    finally:
        site.host1.run("ip route flush root 10.77.7.34/32")
        site.host1.run("ip -6 route flush root fd77:7::2:2/128")


def test_without_wireguard_an_encrypted_network_is_unreachable(site):
    """At once, and nothing is sent."""
    with pytest.raises(Refused, match="No route to host"):
        site.a.ask("10.77.7.34", 80)


@pytest.fixture
def stand_in(site):
    """A wire between the hosts that the rules take for WireGuard, since its name says so."""
    cable(site.host1, "sww-wire", f"{site.me.tunnel}/32", site.host2, "wg", "")
    site.host1.shell(
        f"""
        nft add element inet seaway tunnel_links '{{ "sww-wire" }}'
        ip neighbour add 10.77.7.34 lladdr {frames.mac_of(site.host2, "wg")} dev sww-wire
        ip route add 10.77.7.34/32 dev sww-wire
        """
    )
    mac = frames.mac_of(site.host1, "sww-wire")
    for target in (site.me.tunnel, "10.77.7.18"):
        site.host2.run(f"ip neighbour add {target} lladdr {mac} dev wg")
    site.host2.run(f"ip route add {site.me.tunnel} dev wg metric 1")
    site.host2.run("ip route replace 10.77.7.16/28 dev wg src 10.77.7.34")
    yield
    site.host2.run("ip route replace 10.77.7.16/28 via 192.0.2.1 src 10.77.7.34")
    site.host1.run("ip link del sww-wire")
    site.settle()


@pytest.mark.usefixtures("stand_in")
def test_members_of_an_encrypted_network_talk_by_wireguard(site):
    """Both ways, with their own addresses; the host itself, too, says who it is."""
    with site.a.serving(80), site.host2.serving(81):
        assert "10.77.7.34" == site.host2.ask("10.77.7.18", 80)
        assert "10.77.7.18" == site.a.ask("10.77.7.34", 81)
        assert str(site.me.tunnel) == site.host1.ask("10.77.7.34", 81)


TALK_ON = """
import itertools, socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.connect(("10.77.7.34", 81))
for n in itertools.count():
    s.send(b"?")
    if not n:
        print(s.recv(100).decode(), flush=True)
    time.sleep(0.05)
"""


@pytest.mark.usefixtures("stand_in")
def test_a_conversation_does_not_go_on_in_clear(site):
    """One that stands, when somebody turns its route away from the tunnel."""
    talk = (sys.executable, "-c", TALK_ON)
    with site.host2.serving(81, kind="udp"), site.a.started(*talk) as talking:
        assert "10.77.7.18" == talking.stdout.readline().strip()
        before = drops(site)["drop_clear"]
        site.host1.run("ip route replace 10.77.7.34/32 via 192.0.2.2")
        wait_until(lambda: drops(site)["drop_clear"] > before)
        site.host1.run("ip route del 10.77.7.34/32")


@pytest.mark.parametrize("network", [BLUE, GREEN], ids=["encrypted", "in clear"])
def test_the_host_talks_to_itself_by_a_gateway_address(site, network):
    """On every host that is its own, whatever its network."""
    gateway = str(network.subnet(4).gateway)

    with site.host1.serving(90):
        assert gateway == site.host1.ask(gateway, 90)


def test_vxlan_from_a_stranger_is_dropped(site):
    """Whatever is in it; from a host's address it is let in."""
    assert {"drop_not_a_peer"} == dropped(site, site.outside, "192.0.2.1", VXLAN_PORT, "udp")
    assert {"drop_not_a_peer"} == dropped(site, site.outside, "2001:db8::1", VXLAN_PORT, "udp")
    assert set() == dropped(site, site.host2, "192.0.2.1", VXLAN_PORT, "udp")
    assert set() == dropped(site, site.host2, "2001:db8::1", VXLAN_PORT, "udp")


def test_vxlan_itself_is_not_tracked(site):
    """Each conversation inside has a port of its own outside: they would fill the table."""
    with site.host2.serving(81):
        assert "10.77.9.18" == site.a.ask(TUNNELLED2, 81)

    for space in (site.host1, site.host2):
        with netns.inside(str(space.path)), closing(conntrack.open_socket()) as sock:
            assert [] == list(conntrack.udp_flows(sock, 4, VXLAN_PORT))


def test_a_container_makes_no_vxlan(site):
    """To our host or another, where it would seem to come from us."""
    for target in ("192.0.2.1", "192.0.2.2"):
        for space in (site.a, site.c):
            assert {"drop_not_a_peer"} == dropped(site, space, target, VXLAN_PORT, "udp")
    assert {"drop_not_a_peer"} == dropped(site, site.c, "2001:db8::2", VXLAN_PORT, "udp")


@pytest.mark.parametrize(("who", "port"), [("a", JOIN_PORT), ("c", ETCD_PEERS_PORT)])
def test_a_container_does_not_reach_what_hosts_have_for_each_other(site, who, port):
    """On its own host and on another, where it would seem to be its host; hosts do."""
    ours, theirs = ("192.0.2.1", "2001:db8::1"), ("192.0.2.2", "2001:db8::2")
    with site.host1.serving(port, address="::"), site.host2.serving(port, address="::"):
        for target in (*ours, str(GREEN.subnet(4).gateway), *theirs):
            assert {"drop_isolated"} == dropped(site, getattr(site, who), target, port)
        assert "::ffff:192.0.2.2" == site.host2.ask("192.0.2.1", port)
        assert "2001:db8::2" == site.host2.ask("2001:db8::1", port)
        assert "::ffff:192.0.2.1" == site.host1.ask("192.0.2.2", port)


def test_the_same_ports_elsewhere_are_like_any_other(site):
    """Of a server that is no host, of a member of the network, and of a host by UDP."""
    with site.outside.serving(ETCD_PORT, address="::"), site.host2.serving(ETCD_PORT, kind="udp"):
        assert "::ffff:192.0.2.1" == site.a.ask("192.0.2.200", ETCD_PORT)
        assert "2001:db8::1" == site.c.ask("2001:db8::c8", ETCD_PORT)
        assert "192.0.2.1" == site.c.ask("192.0.2.2", ETCD_PORT, "udp")
    with site.host2.serving(ETCD_PORT, address=GREEN2):
        assert "10.77.8.18" == site.a.ask(GREEN2, ETCD_PORT)


@pytest.mark.parametrize("target", ["192.0.2.1", "2001:db8::1"])
def test_a_published_port_of_the_same_number_is_reached(site, target):
    """From outside, from another host, and from a container here: it is translated before."""
    with site.a.serving(80, "published", address="::"):
        for space in (site.outside, site.host2, site.c):
            assert "published" == space.ask(target, ETCD_PORT)


def test_other_networks_stay_apart_across_hosts(site):
    """From a local network, from an internal one, from the other side, and to tunnel addresses."""
    assert {"drop_isolated"} == dropped(site, site.c, GREEN2)
    assert {"drop_isolated"} == dropped(site, site.c, TUNNELLED2)
    site.b.run("ip route add default via 10.77.10.1")  # an internal network gives it none
    assert {"drop_isolated"} == dropped(site, site.b, TUNNELLED2)
    assert {"drop_internal"} == dropped(site, site.b, "192.0.2.200")
    assert {"drop_isolated"} == dropped(site, site.a, str(site.peer.tunnel))
    packet = frames.syn(macs(site, site.host2), GREEN2, "10.77.10.18", 80)
    assert {"drop_internal"} <= sent(site, site.host2, "eth0", packet)


def test_a_host_is_no_router_for_others(site):
    """Neither from a tunnel or a container to the world, nor from the world to other hosts."""
    tunnel = (site.peer.tunnel_mac, site.me.tunnel_mac)
    for source in (TUNNELLED2, str(site.peer.tunnel)):
        out = frames.syn(tunnel, source, "192.0.2.200", 80)
        assert {"drop_isolated"} == sent(site, site.host2, "vx", out)
    out = frames.syn(macs(site, site.host2), GREEN2, "192.0.2.200", 80)
    assert {"drop_isolated"} == sent(site, site.host2, "eth0", out)
    out = frames.syn(macs(site, site.host2), GREEN2_6, "2001:db8::c8", 80)
    assert {"drop_isolated"} == sent(site, site.host2, "eth0", out)
    site.outside.run("ip route add 10.77.0.0/16 via 192.0.2.1")
    site.outside.run("ip route add fd77::/16 via 2001:db8::1")
    assert {"drop_isolated"} == dropped(site, site.outside, GREEN2_6)
    assert {"drop_isolated"} == dropped(site, site.outside, TUNNELLED2)
    assert {"drop_isolated"} == dropped(site, site.outside, GREEN2)


def test_other_hosts_do_not_reach_ports_by_the_tunnel(site):
    """A published port is reached at the host's own address."""
    site.host2.run(f"ip route add {site.me.tunnel}/32 dev vx src {site.peer.tunnel}")
    with site.a.serving(80):
        assert "192.0.2.2" == site.host2.ask("192.0.2.1", 8080)
        assert {"drop_isolated"} == dropped(site, site.host2, str(site.me.tunnel), 8080)


def test_segments_fit_the_tunnel(site):
    """Whatever both ends believe, SYNs that pass it, either way, say what it carries."""
    code = """
import socket, sys
s = socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)
print(s.getsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG))
"""
    with_timestamps = 20 + 20 + 12  # bytes of headers
    widths = ((site.a, "eth1", 1430), (site.host2, "vx", 1450))
    for space, link, _ in widths:
        space.run(f"ip link set {link} mtu 1500")
    try:
        with site.a.serving(80), site.host2.serving(81):
            assert 1430 - with_timestamps == int(site.a.python(code, TUNNELLED2, "81"))
            assert 1430 - with_timestamps == int(site.host2.python(code, "10.77.9.18", "80"))
    finally:
        for space, link, mtu in widths:
            space.run(f"ip link set {link} mtu {mtu}")
