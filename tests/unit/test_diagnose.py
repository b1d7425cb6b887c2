"""Facts about a machine in, findings with cures out."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from ipaddress import IPv4Address

import pytest

from seaway.agent.doctor import diagnose
from seaway.agent.findings import Finding, Level, Subject, as_json, worst
from seaway.kernel.facts import (
    AgentAnswer,
    DropChain,
    Engine,
    Facts,
    Firewalld,
    Firewalls,
    Folder,
    Ipv6,
    Kernel,
    Occupied,
    PathTried,
    Routing,
    Uplink,
)
from seaway.kernel.host_firewall import Filter, HostFirewall

ETH0 = Uplink(name="eth0", mtu=1500)
ETH1 = Uplink(name="eth1", mtu=1500)

HEALTHY = Facts(
    privileged=True,
    kernel=Kernel(
        version=(6, 1),
        kinds=frozenset({"veth", "macvlan", "vxlan", "dummy", "wireguard", "bridge"}),
        nft=(1, 0, 6),
        refused=(),
        conntrack_netlink=True,
        wireguard_go=False,
        wg=True,
    ),
    engine=Engine(podman=(5, 4, 0), runtimes=("crun",), cgroup=2, systemd=True),
    firewalls=Firewalls(),
    routing=Routing(forward4=True, forward6=True, ipv6=Ipv6.ON, rp_filter=1, uplinks=(ETH0,)),
    connections=(12, 262144),
    resolvers=(IPv4Address("127.0.0.53"),),
    dns_port=(),
    files=524288,
    folders=(Folder(path="/var/lib/seaway", writable=True),),
    agent=AgentAnswer(
        version="0.1.0",
        start="systemctl start seaway",
        paths=(PathTried(host="host2", carrier="wireguard", size=1420, milliseconds=0.5),),
    ),
)


def kernel(**changes: object) -> Facts:
    return replace(HEALTHY, kernel=replace(HEALTHY.kernel, **changes))


def engine(**changes: object) -> Facts:
    return replace(HEALTHY, engine=replace(HEALTHY.engine, **changes))


def routing(**changes: object) -> Facts:
    return replace(HEALTHY, routing=replace(HEALTHY.routing, **changes))


def asked(**changes: object) -> Facts:
    return replace(HEALTHY, agent=replace(HEALTHY.agent, **changes))


def walls(**changes: object) -> Facts:
    return replace(HEALTHY, firewalls=Firewalls(**changes))


def without(kind: str) -> Facts:
    return kernel(kinds=HEALTHY.kernel.kinds - {kind})


def chain(hook: str, family: str = "inet", table: str = "filter", **more: object) -> Facts:
    name = hook if family == "inet" else hook.upper()
    return walls(chains=(DropChain(family=family, table=table, name=name, hook=hook, **more),))


def refused(**more: object) -> Facts:
    return kernel(refused=("fib",), nft_words="Error: no such file", **more)


def occupied(holder: str, systemd: bool = True) -> Facts:
    facts = engine(systemd=systemd)
    return replace(facts, dns_port=(Occupied(protocol="udp", holder=holder),) * 2)


DROPPING = Filter(command="iptables-nft", drops_forwarded=True, docker=True)
SETTLED = replace(DROPPING, ours=DROPPING.wanted)
LEFT_OVER = replace(SETTLED, drops_forwarded=False)
QUIET = Filter(command="iptables-nft", drops_incoming=True)
HEARD = replace(QUIET, ours=QUIET.wanted)

ILL = [
    # (facts, level, subject, words of what, words of cure)
    (replace(HEALTHY, privileged=False), "fail", "privilege", "not root", "sudo seaway doctor"),
    (
        asked(silence="the agent does not answer on /run/seaway/seaway.sock"),
        "warn",
        "agent",
        "does not answer on /run/seaway/seaway.sock; what it has set up goes on",
        "systemctl start seaway",
    ),
    (asked(problems=("web: no",)), "fail", "agent", "web: no", "seaway status"),
    (
        asked(
            paths=(
                PathTried(
                    host="host2",
                    carrier="vxlan",
                    size=1450,
                    milliseconds=0.0,
                    error="packets of 1450 bytes get lost",
                ),
            )
        ),
        "fail",
        "hosts",
        "packets of 1450 bytes get lost",
        "seaway node inspect host2",
    ),
    (kernel(kinds=None), "fail", "kernel", "could not be tried", "apt-get install -y iproute2"),
    (without("veth"), "fail", "kernel", "no veth links", "modprobe veth"),
    (without("bridge"), "fail", "kernel", "can get a gateway", "modprobe bridge"),
    (without("macvlan"), "warn", "kernel", "--driver macvlan", "modprobe macvlan"),
    (without("vxlan"), "warn", "kernel", "other hosts", "modprobe vxlan"),
    (without("wireguard"), "warn", "kernel", "encrypted", "apt-get install -y wireguard-go"),
    (kernel(wg=False), "warn", "kernel", "no wg command", "apt-get install -y wireguard-tools"),
    (kernel(nft=None), "fail", "nftables", "not installed", "apt-get install -y nftables"),
    (kernel(refused=None), "fail", "nftables", "unshare", "apt-get install -y util-linux"),
    (refused(), "fail", "nftables", "fib: Error: no such file", "modprobe -a nf_tables"),
    (refused(version=(5, 1)), "fail", "nftables", "refuses fib", "linux-image"),
    (refused(nft=(0, 9, 8)), "fail", "nftables", "refuses fib", "install -y nftables"),
    (replace(HEALTHY, connections=None), "fail", "conntrack", "tracks no", "modprobe nf_conntrack"),
    (kernel(conntrack_netlink=False), "fail", "conntrack", "UDP", "modprobe nf_conntrack_netlink"),
    (
        replace(HEALTHY, connections=(90, 100)),
        "warn",
        "conntrack",
        "90 % full",
        "sysctl -w net.netfilter.nf_conntrack_max=200",
    ),
    (engine(podman=None), "fail", "engine", "Podman is not", "apt-get install -y podman"),
    (engine(podman=(3, 4, 4)), "fail", "engine", "3.4.4 is too old", "apt-get"),
    (engine(runtimes=()), "fail", "engine", "neither crun nor runc", "apt-get install -y crun"),
    (engine(cgroup=1), "warn", "engine", "cgroup version 1", "apt-get install -y runc"),
    (
        walls(ufw=True, iptables=HostFirewall(filters=(QUIET,))),
        "warn",
        "firewall",
        "not as they should be",
        "iptables-nft -w 5 -I INPUT 1 -i swv+ -p udp -m udp --dport 53",
    ),
    (
        walls(firewalld=Firewalld(zone="public", accepts=False)),
        "fail",
        "firewall",
        "in its zone public, which rejects",
        "firewall-cmd --permanent --zone=trusted --change-interface=swv+ && firewall-cmd --reload",
    ),
    (
        walls(firewalld=Firewalld(zone="", accepts=False)),
        "warn",
        "firewall",
        "firewalld rejects",
        "firewall-cmd --permanent --zone=trusted --change-interface=swv+ && firewall-cmd --reload",
    ),
    (
        walls(docker=True, iptables=HostFirewall(filters=(DROPPING,))),
        "warn",
        "firewall",
        "drops what nobody accepts",
        "iptables-nft -w 5 -I DOCKER-USER 1 -o swv+",
    ),
    (
        walls(iptables=HostFirewall(filters=(LEFT_OVER,))),
        "warn",
        "firewall",
        "rules of ours are left",
        "iptables-nft -w 5 -D DOCKER-USER -i swv+",
    ),
    (
        chain("forward"),
        "fail",
        "firewall",
        "inet filter forward drops",
        (
            'nft \'insert rule inet filter forward iifname "swv*" accept; '
            'insert rule inet filter forward oifname "swv*" accept\''
        ),
    ),
    (
        chain("input"),
        "fail",
        "firewall",
        "inet filter input drops the questions",
        'nft \'insert rule inet filter input iifname "swv*" udp dport 53 accept; ',
    ),
    (
        chain("input", "ip6"),
        "fail",
        "firewall",
        "find no names",
        "nft 'insert rule ip6 filter INPUT iifname",
    ),
    (routing(forward4=False), "warn", "forwarding", "IPv4", "sysctl -w net.ipv4.ip_forward=1"),
    (routing(forward6=False), "warn", "forwarding", "IPv6", "net.ipv6.conf.all.forwarding=1"),
    (routing(ipv6=Ipv6.DISABLED), "warn", "ipv6", "disabled by", "disable_ipv6=0"),
    (routing(ipv6=Ipv6.ABSENT), "warn", "ipv6", "without IPv6", "update-grub"),
    (
        routing(uplinks=(replace(ETH0, accept_ra=1),)),
        "warn",
        "ipv6",
        "stops when forwarding",
        "sysctl -w net.ipv6.conf.eth0.accept_ra=2",
    ),
    (
        routing(uplinks=(ETH0, ETH1)),
        "warn",
        "routing",
        "eth0 and eth1",
        "sysctl -w net.ipv4.conf.all.rp_filter=2",
    ),
    (routing(uplinks=(replace(ETH0, mtu=1200),)), "warn", "mtu", "1200", "ip link set eth0 mtu"),
    (replace(HEALTHY, resolvers=()), "warn", "dns", "no resolver", "/etc/resolv.conf"),
    (occupied("dnsmasq (pid 7)"), "fail", "ports", "dnsmasq (pid 7)", "except-interface=swg0"),
    (occupied("named (pid 7)"), "fail", "ports", "named (pid 7)", "systemctl stop"),
    (occupied("named (pid 7)", systemd=False), "fail", "ports", "named (pid 7)", "kill 7"),
    (occupied("an unknown process"), "fail", "ports", "an unknown process", "ss -lpn"),
    (replace(HEALTHY, files=1024), "warn", "limits", "1024 files", "ulimit -n 65536"),
    (
        replace(HEALTHY, folders=(Folder(path="/var/lib/seaway", writable=False),)),
        "fail",
        "state",
        "/var/lib/seaway cannot be written",
        "mount -o remount,rw",
    ),
]


def complaints(facts: Facts) -> list[Finding]:
    return [f for f in diagnose(facts) if f.level is not Level.OK]


def test_a_healthy_machine_has_no_complaint():
    """Every subject is looked at, and none is complained about."""
    findings = diagnose(HEALTHY)

    assert [] == complaints(HEALTHY)
    assert list(Subject) == list(dict.fromkeys(f.subject for f in findings))
    assert Level.OK is worst(findings)


@pytest.mark.parametrize(("facts", "level", "subject", "what", "cure"), ILL)
def test_an_ill_machine(facts, level, subject, what, cure):
    """One thing wrong is one complaint, of the right level and subject, with its cure."""
    [finding] = complaints(facts)

    assert (level, subject) == (finding.level, finding.subject)
    assert what in finding.what
    assert cure in finding.cure


@pytest.mark.parametrize("cure", sorted({f.cure for row in ILL for f in complaints(row[0])}))
def test_a_cure_can_be_typed(cure):
    """A shell reads every cure without complaint, and it is one line."""
    subprocess.run(["sh", "-n", "-c", cure], check=True)

    assert "\n" not in cure


WELL = [
    (HEALTHY, "the agent answers, version 0.1.0"),
    (walls(ufw=True), "ufw is active"),
    (walls(firewalld=Firewalld(zone="trusted", accepts=True)), "zone trusted, which accepts"),
    (walls(docker=True, iptables=HostFirewall(filters=(SETTLED,))), "Docker drops forwarded"),
    (walls(ufw=True, iptables=HostFirewall(filters=(HEARD,))), "drops incoming"),
    (walls(docker=True), "Docker runs beside"),
    (walls(bridge_filter=True), "br_netfilter"),
    (walls(shut_bridges=("docker0", "virbr0")), "behind docker0 and virbr0"),
    (chain("forward", admits=frozenset({"iifname", "oifname"})), "lets our links through"),
    (chain("input", admits=frozenset({"iifname"})), "lets our links through"),
    (routing(uplinks=()), "no default route"),
    (replace(without("wireguard"), kernel=replace(without("wireguard").kernel, wireguard_go=True)),
     "bridge"),
    (without("dummy"), "Linux 6.1"),
]  # fmt: skip


@pytest.mark.parametrize(("facts", "what"), WELL)
def test_what_is_well_is_said(facts, what):
    """A neighbour that does no harm, or no longer, is mentioned as all right."""
    assert [f for f in diagnose(facts) if f.level is Level.OK and what in f.what]


@pytest.mark.parametrize("facts", [facts for facts, _ in WELL])
def test_what_is_well_is_not_complained_about(facts):
    """What is all right brings no warning."""
    assert [] == complaints(facts)


def test_a_known_owner_of_a_chain_is_named_once():
    """iptables' own chains and firewalld's are not complained about a second time."""
    chains = (
        DropChain(family="ip", table="filter", name="FORWARD", hook="forward"),
        DropChain(family="ip", table="filter", name="INPUT", hook="input"),
        DropChain(family="inet", table="firewalld", name="filter_FORWARD", hook="forward"),
    )
    facts = walls(
        ufw=True,
        firewalld=Firewalld(zone="trusted", accepts=True),
        iptables=HostFirewall(filters=(SETTLED,)),
        chains=chains,
    )

    assert [] == complaints(facts)


def test_a_forward_chain_of_iptables_counts_when_iptables_is_missing():
    """Without iptables nobody keeps rules there, so the chain is reported like any other."""
    [finding] = complaints(chain("forward", "ip"))

    assert "nft 'insert rule ip filter FORWARD iifname" in finding.cure


def test_without_root_nothing_is_guessed():
    """An ordinary user is told to be root, not that the kernel lacks everything."""
    findings = diagnose(replace(kernel(kinds=None, refused=None), privileged=False))

    assert not {Subject.KERNEL, Subject.NFTABLES} & {f.subject for f in findings}
    assert Level.FAIL is worst(findings)


def test_json():
    """--format json carries the worst level and every field, and nothing else."""
    shaped = json.loads(json.dumps(as_json(diagnose(routing(forward4=False)))))

    assert "warn" == shaped["worst"]
    assert {
        "level": "warn",
        "subject": "forwarding",
        "what": "IPv4 forwarding is off; the agent turns it on when it starts",
        "cure": "sysctl -w net.ipv4.ip_forward=1",
    } in shaped["findings"]
    assert {"worst", "findings"} == set(shaped)


def test_no_findings_are_no_worry():
    """The worst of nothing is OK."""
    assert Level.OK is worst(())


@pytest.mark.parametrize(("level", "cure"), [(Level.OK, "x"), (Level.WARN, ""), (Level.FAIL, "")])
def test_a_complaint_without_cure_cannot_be_made(level, cure):
    """Whoever writes a new check is told when the cure is forgotten."""
    with pytest.raises(ValueError, match="cure"):
        Finding(level=level, subject=Subject.DNS, what="?", cure=cure)
