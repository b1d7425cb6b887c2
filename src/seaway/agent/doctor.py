"""What is wrong with this machine, and the command that cures it.

Pure: facts in, findings out.  kernel/probe.py gathers the facts, and the command
line asks the agent.  The doctor changes nothing, and needs no agent.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from typing import Final

from seaway.agent.doctor_firewalls import firewalls
from seaway.agent.findings import Finding, Said, Subject, fail, ok, warn
from seaway.kernel.facts import Facts, Ipv6, Kernel, Occupied, Version
from seaway.model.names import GATEWAY_LINK

KERNEL_MIN: Final[Version] = (5, 6)
"""First with intervals of concatenations in nftables (nft_set_pipapo)."""
NFT_MIN: Final[Version] = (1, 0, 2)
"""Ubuntu 22.04's; nothing older has been tried."""
PODMAN_MIN: Final[Version] = (4, 0)
FILES_MIN: Final = 16_384
"""Open files: every published port holds one socket per address, every endpoint a few."""
CONNECTIONS_WARN: Final = 0.8
"""Share of the conntrack table; when it is full, new connections are dropped."""
MTU_MIN: Final = 1280
"""Bytes; IPv6 does not work below it (RFC 8200 section 5)."""
WITHOUT: Final = {
    "veth": (fail, "no container can get a network"),
    "bridge": (fail, "no network can get a gateway"),
    "macvlan": (warn, "networks with --driver macvlan do not work"),
    "vxlan": (warn, "networks cannot reach other hosts"),
}
"""Link kind -> how bad its absence is, and what follows from it."""


def diagnose(facts: Facts) -> tuple[Finding, ...]:
    """Judge everything that is known.

    Returns:
        At least one finding for each subject that could be looked at, in the
        order of Subject.  Without privileges only what needs none.
    """
    checks = _CHECKS if facts.privileged else {**_CHECKS, **dict.fromkeys(_NEED_ROOT, _nothing)}
    return tuple(
        Finding(level=level, subject=subject, what=what, cure=cure)
        for subject in Subject
        for level, what, cure in checks[subject](facts)
    )


def _nothing(_: Facts) -> Said:
    yield from ()


def _install(*packages: str) -> str:
    return "apt-get install -y " + " ".join(packages)


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))


def _privilege(facts: Facts) -> Said:
    if facts.privileged:
        yield ok("may change networks (CAP_NET_ADMIN, CAP_SYS_ADMIN)")
    else:
        yield fail("this is not root, so most things could not be looked at", "sudo seaway doctor")


def _agent(facts: Facts) -> Said:
    agent = facts.agent
    if agent is None:
        return
    if agent.silence:
        yield warn(
            f"{agent.silence}; what it has set up goes on working, but nothing is repaired "
            "and no name is answered",
            agent.start,
        )
        return
    for problem in agent.problems:
        yield fail(problem, "seaway status")
    yield ok(f"the agent answers, version {agent.version}")


def _hosts(facts: Facts) -> Said:
    """Each way to another host, tried in both directions with packets of full size."""
    for path in facts.agent.paths if facts.agent else ():
        if path.error:
            yield fail(path.error, f"seaway node inspect {path.host}")
        else:
            yield ok(
                f"packets of {path.size} bytes get to {path.host} by {path.carrier} and back in "
                f"{path.milliseconds:.1f} ms"
            )


def _kernel(facts: Facts) -> Said:
    kernel = facts.kernel
    if kernel.kinds is None:
        yield fail(
            "the kinds of links could not be tried out, because ip or unshare did not run",
            _install("iproute2", "util-linux"),
        )
        return
    for kind, (say, follows) in WITHOUT.items():
        if kind not in kernel.kinds:
            yield say(f"this kernel makes no {kind} links, so {follows}", f"modprobe {kind}")
    if "wireguard" not in kernel.kinds and not kernel.wireguard_go:
        yield warn(
            "this kernel has no WireGuard, so networks between hosts cannot be encrypted; "
            "wireguard-go does it without the kernel",
            _install("wireguard-go"),
        )
    if not kernel.wg:
        yield warn(
            "there is no wg command, so networks between hosts cannot be encrypted",
            _install("wireguard-tools"),
        )
    there = ", ".join(sorted(kernel.kinds))
    yield ok(f"Linux {_dotted(kernel.version)} makes links of kind {there}")


def _nftables(facts: Facts) -> Said:
    kernel = facts.kernel
    if kernel.nft is None:
        yield fail("nft is not installed", _install("nftables"))
        return
    if kernel.refused is None:
        yield fail("nft could not be tried out: unshare did not run", _install("util-linux"))
    elif kernel.refused:
        yield fail(
            f"nftables refuses {', '.join(kernel.refused)}: {kernel.nft_words}",
            _newer_nftables(kernel),
        )
    else:
        yield ok(f"nft {_dotted(kernel.nft)} and the kernel accept all of our rules")


def _newer_nftables(kernel: Kernel) -> str:
    if kernel.version < KERNEL_MIN:
        return "apt-get update && " + _install("linux-image-$(dpkg --print-architecture)")
    if kernel.nft is not None and kernel.nft < NFT_MIN:
        return "apt-get update && " + _install("nftables")
    return "modprobe -a nf_tables nft_chain_nat nft_fib_inet nft_masq nft_ct"


def _conntrack(facts: Facts) -> Said:
    if facts.connections is None:
        yield fail("the kernel tracks no connections", "modprobe nf_conntrack")
        return
    if not facts.kernel.conntrack_netlink:
        yield fail(
            "connections cannot be listed or deleted, so UDP clients of a replaced container "
            "stay with the old one",
            "modprobe nf_conntrack_netlink",
        )
    used, size = facts.connections
    if used > CONNECTIONS_WARN * size:
        yield warn(
            f"the connection table is {100 * used // size} % full ({used} of {size}); "
            "when it is full, new connections are dropped",
            f"sysctl -w net.netfilter.nf_conntrack_max={2 * size}",
        )
    else:
        yield ok(f"{used} of {size} connections in use")


def _engine(facts: Facts) -> Said:
    engine = facts.engine
    if engine.podman is None:
        yield fail(
            "Podman is not installed, so `seaway run` cannot start containers", _install("podman")
        )
        return
    if engine.podman < PODMAN_MIN:
        yield fail(
            f"Podman {_dotted(engine.podman)} is too old: {_dotted(PODMAN_MIN)} or newer is needed",
            "apt-get update && " + _install("podman"),
        )
    if not engine.runtimes:
        yield fail("Podman has no OCI runtime: neither crun nor runc", _install("crun"))
        return
    if engine.cgroup == 1 and "runc" not in engine.runtimes:
        yield warn(
            "this machine has cgroup version 1, which crun no longer serves well", _install("runc")
        )
    started = "systemd" if engine.systemd else "no systemd"
    yield ok(
        f"Podman {_dotted(engine.podman)} with {' and '.join(engine.runtimes)}, "
        f"cgroup version {engine.cgroup}, {started}"
    )


def _forwarding(facts: Facts) -> Said:
    routing = facts.routing
    if routing.forward4:
        yield ok("IPv4 is forwarded")
    else:
        yield warn(
            "IPv4 forwarding is off; the agent turns it on when it starts",
            "sysctl -w net.ipv4.ip_forward=1",
        )
    if routing.ipv6 is not Ipv6.ON:
        return
    if routing.forward6:
        yield ok("IPv6 is forwarded")
    else:
        yield warn(
            "IPv6 forwarding is off; the agent turns it on when it starts",
            "sysctl -w net.ipv6.conf.all.forwarding=1",
        )


def _ipv6(facts: Facts) -> Said:
    match facts.routing.ipv6:
        case Ipv6.ABSENT:
            yield warn(
                "this kernel runs without IPv6, so containers have IPv4 only",
                "sed -i 's/ipv6.disable=1//' /etc/default/grub && update-grub && reboot",
            )
        case Ipv6.DISABLED:
            yield warn(
                "IPv6 is disabled by a sysctl, so containers have IPv4 only",
                "sysctl -w net.ipv6.conf.all.disable_ipv6=0",
            )
        case Ipv6.ON:
            yield ok("IPv6 is on")
    for uplink in facts.routing.uplinks:
        if uplink.accept_ra == 1:  # accept, unless forwarding
            yield warn(
                f"{uplink.name} learns its IPv6 default route from a router, which stops "
                "when forwarding is turned on",
                f"sysctl -w net.ipv6.conf.{uplink.name}.accept_ra=2",
            )


def _routing(facts: Facts) -> Said:
    uplinks = facts.routing.uplinks
    if facts.routing.rp_filter == 1 and len(uplinks) > 1:
        names = " and ".join(u.name for u in uplinks)
        yield warn(
            f"strict rp_filter with default routes over {names}: packets that come in by one "
            "and would be answered by another are dropped",
            "sysctl -w net.ipv4.conf.all.rp_filter=2",
        )
    elif uplinks:
        yield ok("default route over " + " and ".join(u.name for u in uplinks))
    else:
        yield ok("there is no default route, so containers reach no further than this host does")


def _mtu(facts: Facts) -> Said:
    for uplink in facts.routing.uplinks:
        if uplink.mtu < MTU_MIN:
            yield warn(
                f"{uplink.name} carries packets of {uplink.mtu} bytes only; IPv6 needs {MTU_MIN}",
                f"ip link set {uplink.name} mtu {MTU_MIN}",
            )
        else:
            yield ok(f"{uplink.name} carries packets of {uplink.mtu} bytes")


def _dns(facts: Facts) -> Said:
    if facts.resolvers:
        yield ok("names from outside come from " + ", ".join(map(str, facts.resolvers)))
    else:
        yield warn(
            "/etc/resolv.conf names no resolver, so containers find no names from outside",
            "echo 'nameserver 9.9.9.9' >> /etc/resolv.conf",
        )


def _ports(facts: Facts) -> Said:
    for occupied in dict.fromkeys(facts.dns_port):
        yield fail(
            f"port 53/{occupied.protocol} is held on every address by {occupied.holder}, "
            "so containers find no names",
            _free_dns_port(occupied, facts.engine.systemd),
        )
    if not facts.dns_port:
        yield ok("port 53 is free on the gateways' addresses")


def _free_dns_port(occupied: Occupied, systemd: bool) -> str:
    if occupied.holder.startswith("dnsmasq "):
        lines = f"bind-dynamic\\nexcept-interface={GATEWAY_LINK}\\n"
        return f"printf '{lines}' > /etc/dnsmasq.d/seaway.conf && systemctl restart dnsmasq"
    if pid := re.search(r"\(pid (\d+)\)$", occupied.holder):
        return f'systemctl stop "$(ps -o unit= -p {pid[1]})"' if systemd else f"kill {pid[1]}"
    return "ss -lpn sport = :53"


def _limits(facts: Facts) -> Said:
    if facts.files < FILES_MIN:
        yield warn(
            f"a process may open {facts.files} files here; a published port needs one for each "
            "address, so the ports run out first (systemd: LimitNOFILE=)",
            f"ulimit -n {4 * FILES_MIN}",
        )
    else:
        yield ok(f"a process may open {facts.files} files")


def _state(facts: Facts) -> Said:
    for folder in facts.folders:
        if folder.writable:
            yield ok(f"{folder.path} can be written")
        else:
            yield fail(
                f"{folder.path} cannot be written, so nothing can be remembered",
                f'mount -o remount,rw "$(findmnt -no TARGET --target {shlex.quote(folder.path)})"',
            )


_CHECKS: Final[dict[Subject, Callable[[Facts], Said]]] = {
    Subject.PRIVILEGE: _privilege,
    Subject.AGENT: _agent,
    Subject.KERNEL: _kernel,
    Subject.NFTABLES: _nftables,
    Subject.CONNTRACK: _conntrack,
    Subject.ENGINE: _engine,
    Subject.FIREWALL: lambda facts: firewalls(facts.firewalls),
    Subject.FORWARDING: _forwarding,
    Subject.IPV6: _ipv6,
    Subject.ROUTING: _routing,
    Subject.MTU: _mtu,
    Subject.DNS: _dns,
    Subject.PORTS: _ports,
    Subject.LIMITS: _limits,
    Subject.STATE: _state,
    Subject.HOSTS: _hosts,
}

_NEED_ROOT: Final = (
    Subject.KERNEL,
    Subject.NFTABLES,
    Subject.CONNTRACK,
    Subject.FIREWALL,
    Subject.STATE,
)
"""Subjects about which an ordinary user is told nothing, or nothing true."""
