"""The machine that the probe sees is a namespace that this test has furnished."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from seaway.agent.doctor import diagnose
from seaway.agent.findings import Level, Subject
from seaway.kernel import features, firewalls, probe
from seaway.kernel.facts import Ipv6, Uplink
from seaway.kernel.netns import inside
from tests.support.netns import cable, namespaces, wait_until

# A router advertisement with a lifetime of 1800 seconds, RFC 4861 section 4.2.
ADVERTISE = """
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, socket.IPPROTO_ICMPV6)
s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
there = ("ff02::1", 0, 0, socket.if_nametoindex("eth0"))
s.sendto(bytes([134, 0, 0, 0, 64, 0, 1800 >> 8, 1800 & 255]) + bytes(8), there)
"""


@pytest.fixture
def wire():
    with namespaces("host", "router") as (host, router):
        cable(host, "eth0", "192.0.2.2/24,fd01::2/64", router, "eth0", "192.0.2.1/24,fd01::1/64")
        yield host, router


@pytest.fixture
def host(wire):
    return wire[0]


def advertise(host, router):
    """Let *router* advertise itself until *host* has taken it for its default router."""

    def learnt():
        router.python(ADVERTISE)
        return host.run("ip -6 route show default")

    wait_until(lambda: "tentative" not in router.run("ip -6 address show dev eth0"))
    wait_until(learnt)


def gather(host):
    with inside(str(host.path)):
        return probe.gather()


def running(host, name):
    with inside(str(host.path)):
        return firewalls.running({name})


def complaints(host, subject):
    found = diagnose(gather(host))
    return [f for f in found if f.subject is subject and f.level is not Level.OK]


def cure(host, subject):
    """Type the cure of every complaint about *subject*; return how many there were."""
    found = complaints(host, subject)
    for finding in found:
        host.shell(finding.cure)
    return len(found)


def test_looking_changes_nothing(host):
    """Links, addresses, rules and sysctls are the same before and after."""

    def picture():
        commands = (
            "ip -brief -4 address",
            "ip route",
            "nft list ruleset",
            "cat /proc/net/ip_tables_names",
            "sysctl net.ipv4.conf",
        )
        return [host.run(c) for c in commands]

    before = picture()
    gather(host)

    assert before == picture()


def test_the_caller_stays_where_it_is(host):
    """Features are tried elsewhere: the thread that asked has not moved, its links are the same."""
    with inside(str(host.path)):
        home, links = Path("/proc/thread-self/ns/net").readlink(), host.run("ip -brief link")
        features.link_kinds()
        features.nft_refused()

        assert home == Path("/proc/thread-self/ns/net").readlink()
        assert links == host.run("ip -brief link")


def test_kernel_features():
    """This kernel can do what Seaway is made of; what it cannot is not claimed."""
    assert {"veth", "bridge", "macvlan"} <= features.link_kinds()
    assert ((), "") == features.nft_refused()
    assert features.nft_version() >= (1, 0)
    assert features.conntrack_netlink()


def test_a_link_kind_that_is_missing(monkeypatch):
    """A kind the kernel does not know is not among those that work, and spoils no other."""
    monkeypatch.setattr(features, "LINK_KINDS", ("veth", "nosuchkind", "bridge"))

    assert {"veth", "bridge"} == features.link_kinds()


def test_a_refused_feature_is_named_alone(monkeypatch):
    """When the transaction is refused, the one feature to blame is found, with nft's words."""
    broken = {**features.NFT_FEATURES, "flying": "chain @ { fly; }"}
    monkeypatch.setattr(features, "NFT_FEATURES", broken)

    refused, words = features.nft_refused()

    assert ("flying",) == refused
    assert "syntax error" in words


def test_tools_that_are_missing(monkeypatch, tmp_path):
    """Without nft, ip and unshare the answer is that nobody knows."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert None is features.link_kinds()
    assert (None, "") == features.nft_refused()
    assert None is features.nft_version()


def test_uplink(host):
    """The link with the default route, with its MTU."""
    host.shell("ip link set eth0 mtu 1400; ip route add default via 192.0.2.1")

    assert (Uplink(name="eth0", mtu=1400),) == gather(host).routing.uplinks


def test_no_uplink(host):
    """A host that only knows its neighbours has none."""
    assert () == gather(host).routing.uplinks


@pytest.mark.parametrize("sysctl", ["net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"])
def test_forwarding_off_and_its_cure(host, sysctl):
    """Forwarding that is off is complained about until the cure has been typed."""
    host.shell("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    assert [] == complaints(host, Subject.FORWARDING)
    host.shell(f"sysctl -qw {sysctl}=0")

    assert 1 == cure(host, Subject.FORWARDING)
    assert [] == complaints(host, Subject.FORWARDING)


def test_ipv6_disabled_and_its_cure(host):
    """IPv6 that a sysctl has switched off is seen, and comes back with the cure."""
    host.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=1")
    assert Ipv6.DISABLED is gather(host).routing.ipv6

    assert 1 == cure(host, Subject.IPV6)
    assert Ipv6.ON is gather(host).routing.ipv6


def test_router_advertisements_and_their_cure(wire):
    """A default route that forwarding would lose is found, and kept with the cure."""
    host, router = wire
    advertise(host, router)
    assert (Uplink(name="eth0", mtu=1500, accept_ra=1),) == gather(host).routing.uplinks

    assert 1 == cure(host, Subject.IPV6)
    assert [] == complaints(host, Subject.IPV6)


def test_two_uplinks_with_strict_rp_filter_and_the_cure(host):
    """Two ways out and strict filtering is a complaint until it is loose."""
    host.shell("""
        ip link add eth1 type bridge
        ip link set eth1 up
        ip address add 198.51.100.2/24 dev eth1
        ip route add default via 192.0.2.1
        ip route add default via 198.51.100.1 metric 10
        sysctl -qw net.ipv4.conf.all.rp_filter=1
    """)

    assert 1 == cure(host, Subject.ROUTING)
    assert [] == complaints(host, Subject.ROUTING)


def test_bridges_of_others(host):
    """A bridge with nothing but inner ports, or none, is told from one that leads out."""
    host.shell("""
        for name in empty inner uplink far; do ip link add $name type bridge; done
        ip link add port type veth peer name peer
        ip link set port master inner
        ip link add tunnel type vxlan id 7 dstport 4789 local 192.0.2.2 remote 192.0.2.1
        ip link set tunnel master far
        ip address add 198.51.100.2/24 dev uplink
        ip link set uplink up
        ip route add default via 198.51.100.1
    """)

    assert ("empty", "inner") == gather(host).firewalls.shut_bridges


def test_small_mtu_and_its_cure(host):
    """A link too small for IPv6 is a complaint until it is big enough."""
    host.shell("ip link set eth0 mtu 1000; ip route add default via 192.0.2.1")

    assert 1 == cure(host, Subject.MTU)
    assert [] == complaints(host, Subject.MTU)


SERVER_RULES = """
table inet filter {
    chain input { type filter hook input priority 0; policy drop; ct state established accept; }
    chain forward { type filter hook forward priority 0; policy drop; }
    chain output { type filter hook output priority 0; policy drop; }
}
"""


def test_foreign_nftables_chains_and_their_cure(host):
    """Chains that drop by policy are complaints until the cure lets our links through."""
    host.run("nft -f -", stdin=SERVER_RULES)

    assert 2 == cure(host, Subject.FIREWALL)
    assert [] == complaints(host, Subject.FIREWALL)
    assert 3 == host.run("nft list ruleset").count("policy drop")


def test_iptables_input_and_its_cure(host):
    """An INPUT policy of DROP is a complaint until DNS from our links is accepted."""
    host.shell("iptables -P INPUT DROP; ip6tables -P INPUT DROP")

    assert 1 == cure(host, Subject.FIREWALL)
    assert [] == complaints(host, Subject.FIREWALL)


def test_dockers_forward_policy_and_its_cure(host):
    """Docker's policy is a complaint until our two rules are in its chain for users."""
    host.shell("""
        iptables -P FORWARD DROP
        iptables -N DOCKER-USER
        iptables -I FORWARD -j DOCKER-USER
    """)

    assert 1 == cure(host, Subject.FIREWALL)
    assert [] == complaints(host, Subject.FIREWALL)


@pytest.mark.parametrize("kind", ["tcp", "udp"])
def test_a_resolver_on_every_address_and_its_cure(host, kind, monkeypatch):
    """Somebody on port 53 of every address is named, and gone after the cure."""
    monkeypatch.setattr(probe, "_SYSTEMD", Path("/nonexistent"))
    with host.serving(53, kind=kind, address="0.0.0.0") as pid:
        [finding] = complaints(host, Subject.PORTS)

        assert f"port 53/{kind} is held on every address by python" in finding.what
        assert f"kill {pid}" == finding.cure


def test_a_stub_resolver_is_in_nobodys_way(host):
    """A resolver on a loopback address alone leaves the gateways' port 53 free."""
    with host.serving(53, kind="udp", address="127.0.0.53"):
        assert [] == complaints(host, Subject.PORTS)


def test_without_capabilities(host):
    """A process that may not change networks is told so, and nothing false besides."""
    code = (
        "from seaway.agent.doctor import diagnose; from seaway.kernel.probe import gather\n"
        "print([f.subject.value for f in diagnose(gather()) if f.level == 'fail'])"
    )
    drop = ("setpriv", "--bounding-set", "-net_admin,-sys_admin", "--inh-caps", "-all")

    assert "['privilege']" == host.run([*drop, sys.executable, "-c", code]).strip()


def test_folders(host, tmp_path):
    """A folder is writable if it is, or if it can be made; a file in its place is neither."""
    (tmp_path / "file").touch()
    with inside(str(host.path)):
        facts = probe.gather(folders=(tmp_path / "new" / "deep", tmp_path / "file"))

    assert [True, False] == [f.writable for f in facts.folders]


def test_a_firewall_in_another_namespace_is_not_ours(host):
    """A daemon in another namespace, a container's own Docker for one, is passed over."""
    with namespaces("other") as (other,), other.started("sleep", "60"):
        wait_until(lambda: {"sleep"} == running(other, "sleep"))

        assert frozenset() == running(host, "sleep")
