"""What was found out about this machine.  Values only; kernel/probe.py fills them.

None always means "could not be found out"; agent/doctor.py judges.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Final

from seaway.kernel.host_firewall import HostFirewall
from seaway.model.network import Address

LINK_KINDS: Final = ("veth", "macvlan", "vxlan", "dummy", "wireguard", "bridge")
"""Kinds of links that are tried out, by their rtnetlink name."""

Version = tuple[int, ...]


class Ipv6(Enum):
    """How much IPv6 there is on this machine."""

    ON = "on"
    DISABLED = "disabled"  # by the sysctl disable_ipv6
    ABSENT = "absent"  # not in this kernel, or ipv6.disable=1 at boot


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernel:
    """What the running kernel and its tools can do.

    Attributes:
        version: First two numbers of the release, e.g. (6, 1).
        kinds: Link kinds of LINK_KINDS that can be made; None: not tried.
        nft: Version of the nft command; None: not installed.
        refused: nftables features that do not work here, by the names of
            kernel/features.py; None: not tried.
        nft_words: nft's first line of complaint, or "".
        conntrack_netlink: Connections can be listed and deleted one by one.
        wireguard_go: The wireguard-go program is installed.
        wg: The wg program is, which tells either WireGuard what to do.
    """

    version: Version
    kinds: frozenset[str] | None
    nft: Version | None
    refused: tuple[str, ...] | None
    nft_words: str = ""
    conntrack_netlink: bool
    wireguard_go: bool
    wg: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """What runs containers: Podman, and the OCI runtimes found on the PATH."""

    podman: Version | None
    runtimes: tuple[str, ...]
    cgroup: int  # 1 or 2
    systemd: bool  # systemd is the init process


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewalld:
    """A running firewalld: the zone that has our links, or "", and whether it accepts them."""

    zone: str
    accepts: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class DropChain:
    """Somebody's nftables base chain that drops by policy.

    Attributes:
        family: ip, ip6 or inet.
        hook: "forward" or "input".
        admits: Which of "iifname", "oifname" have an accept for our links.
    """

    family: str
    table: str
    name: str
    hook: str
    admits: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True, kw_only=True)
class Firewalls:
    """Everybody else who may drop our packets."""

    ufw: bool = False
    firewalld: Firewalld | None = None
    docker: bool = False
    iptables: HostFirewall = field(default_factory=HostFirewall)
    chains: tuple[DropChain, ...] = ()
    bridge_filter: bool = False  # br_netfilter hands bridged frames to iptables
    shut_bridges: tuple[str, ...] = ()  # others', behind which only published ports are reached


@dataclass(frozen=True, slots=True, kw_only=True)
class Uplink:
    """A link with a default route.

    Attributes:
        mtu: Bytes.
        accept_ra: The sysctl of the same name, if an IPv6 default route was
            learnt from a router's advertisement; else None.
    """

    name: str
    mtu: int
    accept_ra: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """How this machine routes.  ``rp_filter`` is the value for all links: 0, 1 strict, 2 loose."""

    forward4: bool
    forward6: bool
    ipv6: Ipv6
    rp_filter: int
    uplinks: tuple[Uplink, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Occupied:
    """A socket on port 53 of every address."""

    protocol: str
    holder: str  # "dnsmasq (pid 7)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """A folder that Seaway must be able to write, or to make."""

    path: str
    writable: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class PathTried:
    """How packets of full size fared on their way to another host of the cluster and back.

    Attributes:
        carrier: direct, vxlan or wireguard.
        size: Bytes of IP packet.
        milliseconds: There and back.
        error: Why none came back, and what to do; "" if they did.
    """

    host: str
    carrier: str
    size: int
    milliseconds: float
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentAnswer:
    """What the agent said when it was asked.

    Attributes:
        version: "" when it did not answer.
        silence: Why it did not, as a sentence; "" when it did.
        problems: What it says has failed, a line each.
        start: The command that starts it.
        paths: To other hosts; () also where there is no cluster.
    """

    version: str = ""
    silence: str = ""
    problems: tuple[str, ...] = ()
    start: str
    paths: tuple[PathTried, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything the doctor looks at.

    Attributes:
        privileged: This process has CAP_NET_ADMIN and CAP_SYS_ADMIN; without
            them much of the rest is guesswork.
        connections: Entries in the conntrack table, and how many it may hold;
            None: no conntrack.
        files: Hard limit on open files (RLIMIT_NOFILE) of this process.
        agent: None: it was not asked.
    """

    privileged: bool
    kernel: Kernel
    engine: Engine
    firewalls: Firewalls
    routing: Routing
    connections: tuple[int, int] | None
    resolvers: tuple[Address, ...]
    dns_port: tuple[Occupied, ...]
    files: int
    folders: tuple[Folder, ...]
    agent: AgentAnswer | None = None
