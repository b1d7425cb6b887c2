"""Kernel resources as values: what a plan is made of.

Every resource has a ``key``, which says *which* kernel object it is, and
compares by all its other fields, which say *how* that object should be.
``reason`` is for people and never compared.  ``netns`` is a path that opens
the namespace the object lives in, or "" for the host's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Final

from seaway.model.network import Address as IpAddress
from seaway.model.network import Prefix

TABLE: Final = "seaway"
"""Our one nftables table, family inet."""

ROUTE_PROTOCOL: Final = 86
"""rtm_protocol of every route we own.  Unused in iproute2's rt_protos; above RTPROT_STATIC, so
the kernel and routing daemons leave such routes alone (rtnetlink(7))."""

LOCAL_TABLE: Final = 255  # RT_TABLE_LOCAL, include/uapi/linux/rtnetlink.h
MAIN_TABLE: Final = 254  # RT_TABLE_MAIN


LINK_GATEWAY: Final = IPv6Address("fe80::1")
"""IPv6 next hop of every endpoint: the host side of its veth.

Link-local, so that it is a neighbour whatever the subnet, as routers are
(RFC 4861 section 6.1.2)."""


VXLAN_LINKS: Final = {4: "swx4", 6: "swx6"}
"""The one VXLAN device for each family of the underlay."""

WIREGUARD_PREFIX: Final = "sww-"
"""Every WireGuard device of ours, whether the kernel's or a wireguard-go's, which is a "tun"."""

HANDSHAKE_RECENT: Final = 180.0
"""Seconds after which WireGuard itself gives a session up (REJECT_AFTER_TIME)."""


class LinkKind(StrEnum):
    """Kinds of link we make, by their rtnetlink name, and one that we only find."""

    BRIDGE = "bridge"
    VETH = "veth"
    MACVLAN = "macvlan"
    VXLAN = "vxlan"
    WIREGUARD = "wireguard"  # also where a wireguard-go stands in for the kernel
    LOST = "lost"  # a veth whose other end is not where it belongs: to be made anew


class RouteKind(StrEnum):
    """Route types we use (rtm_type, rtnetlink(7))."""

    UNICAST = "unicast"
    LOCAL = "local"
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Netns:
    """A network namespace of ours, kept alive by a bind mount at *path*."""

    path: str
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("netns", self.path)


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """A network interface.  For a veth this is the host side; the peer comes with it.

    Attributes:
        mtu: Bytes of IP packet.
        up: False is only ever observed: somebody took the link down.
        peer_netns, peer_name, peer_mac: Where a veth's other end is made.
            They are not compared: from the host side they cannot be seen.
        parent, mode: Lower link and mode of a macvlan.
        ipv6: Set its IPv6 up as well; impossible below an MTU of 1280 (RFC 8200 section 5).
        localnet: Deliver 127.0.0.0/8 through this link (route_localnet), which
            replies to 127.0.0.1 need; only ever set on links whose sources we check.
        vni, port, family: Of a VXLAN device: network number, UDP port and 4 or 6 for the
            underlay's IP version.  They never change: a device with others is made anew.
        checksum: Of a VXLAN device: inner checksums are left to hardware.  False has the kernel
            compute them, for network cards that get them wrong.
    """

    netns: str = ""
    name: str
    kind: LinkKind
    mac: str = ""
    mtu: int = 0
    up: bool = True
    peer_netns: str = field(default="", compare=False)
    peer_name: str = field(default="", compare=False)
    peer_mac: str = field(default="", compare=False)
    parent: str = field(default="", compare=False)
    mode: str = field(default="", compare=False)
    ipv6: bool = field(default=True, compare=False)
    localnet: bool = field(default=False, compare=False)
    vni: int = 0
    port: int = 0
    family: int = 0
    checksum: bool = True
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("link", self.netns, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkAddress:
    """An address on a link, without the on-link route the kernel would add."""

    netns: str = ""
    link: str
    address: IpAddress
    prefixlen: int
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("address", self.netns, self.link, self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """A route of ours.

    Attributes:
        via: Next hop, on-link on *link*; None for directly reachable.
        source: Preferred source address.
        metric: 0 means the kernel's own default (0 for IPv4, 1024 for IPv6).
        mtu: Bytes of IP packet that fit this way; 0 means the link's own.
    """

    netns: str = ""
    to: Prefix
    link: str = ""
    via: IpAddress | None = None
    source: IpAddress | None = None
    kind: RouteKind = RouteKind.UNICAST
    table: int = MAIN_TABLE
    metric: int = 0
    mtu: int = 0
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity.  The link belongs to it: ``local ::1`` stands once per link."""
        link = self.link if self.kind is RouteKind.LOCAL else ""
        return ("route", self.netns, self.table, self.to, self.metric, link)


@dataclass(frozen=True, slots=True, kw_only=True)
class Neighbour:
    """A permanent neighbour entry: nobody has to ask, nobody can lie."""

    netns: str = ""
    link: str
    address: IpAddress
    mac: str
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("neighbour", self.netns, self.link, self.address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fdb:
    """A permanent entry of a VXLAN device: frames for *mac* go to the host at *to*.

    Made, it replaces one for the same MAC address.  The destination belongs to the identity,
    because others may give the address of all zeros, where flooding goes, several.
    """

    netns: str = ""
    link: str
    mac: str
    to: IpAddress
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("fdb", self.netns, self.link, self.mac, self.to)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireGuardDevice:
    """The key and port of a WireGuard link on the host.

    Attributes:
        private_key_path: File with the private key, as ``wg genkey`` writes it; the key
            itself is in no plan.  Not compared: *public_key* tells whether it is in use.
        public_key: Base64, what belongs to the private key.
        port: UDP port it listens on.
    """

    link: str
    private_key_path: str = field(default="", compare=False)
    public_key: str
    port: int
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("wireguard", self.link)


@dataclass(frozen=True, slots=True, kw_only=True)
class WireGuardPeer:
    """Another host, as a WireGuard link of ours knows it.

    Attributes:
        public_key: Base64.
        endpoint: Underlay address and UDP port; None: it speaks first.
        allowed: What may come from it and goes to it, sorted.
        keepalive: Seconds between packets that keep a NAT open; 0: none.
        age: Only observed: seconds since the last handshake, infinite before the first.
    """

    link: str
    public_key: str
    endpoint: tuple[IpAddress, int] | None = None
    allowed: tuple[Prefix, ...] = ()
    keepalive: int = 0
    age: float | None = field(default=None, compare=False)
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("wireguard-peer", self.link, self.public_key)

    def __eq__(self, other: object) -> bool:
        """Compare all, but leave the endpoint to WireGuard where it knows better.

        A peer is answered where its last packet came from, so what is observed of one
        that has been heard of lately, or that no plan has an endpoint for, is right.
        """
        if not isinstance(other, WireGuardPeer):
            return NotImplemented
        if self.endpoint != other.endpoint and not (
            self.knows_better(other) or other.knows_better(self)
        ):
            return False
        mine = (self.key, self.allowed, self.keepalive)
        return mine == (other.key, other.allowed, other.keepalive)

    def __hash__(self) -> int:
        return hash(self.key)

    def knows_better(self, plan: WireGuardPeer) -> bool:
        """Is this what was observed of *plan*, with an endpoint that is to stay?"""
        if self.age is None or plan.age is not None:
            return False
        return plan.endpoint is None or self.age < HANDSHAKE_RECENT


@dataclass(frozen=True, slots=True, kw_only=True)
class Sysctl:
    """A kernel setting, e.g. net.ipv4.ip_forward.  Set, never unset."""

    netns: str = ""
    name: str
    value: str
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("sysctl", self.netns, self.name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Element:
    """One element of a named nftables set or map.

    Attributes:
        set: Name of the set or map in our table.
        match: Its key, one text per concatenated part, as nft writes it
            ("10.0.0.0/24", "tcp", "8080", "8000-8010").
        value: The map's data, likewise; () for a set.
    """

    set: str
    match: tuple[str, ...]
    value: tuple[str, ...] = ()
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity."""
        return ("element", self.set, self.match)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ruleset:
    """Our table's chains, counters, empty sets and maps, as text for nft -f."""

    text: str
    reason: str = field(default="", compare=False)

    @property
    def key(self) -> Hashable:
        """Identity: there is one."""
        return ("ruleset",)


Resource = (
    Netns
    | Link
    | LinkAddress
    | Route
    | Neighbour
    | Fdb
    | WireGuardDevice
    | WireGuardPeer
    | Sysctl
    | Element
    | Ruleset
)


def describe(item: Resource) -> str:
    """Say which object this is in one line, in the words of ip(8) and nft(8)."""
    return _DESCRIBE[type(item)](item)


def _place(netns: str) -> str:
    return f" in {netns}" if netns else ""


def _route(r: Route) -> str:
    parts = [f"route {'' if r.kind is RouteKind.UNICAST else r.kind + ' '}{r.to}"]
    parts += [f"via {r.via}"] if r.via else []
    parts += [f"dev {r.link}"] if r.link else []
    parts += [f"mtu {r.mtu}"] if r.mtu else []
    return " ".join(parts) + _place(r.netns)


def _link(r: Link) -> str:
    more = f", vni {r.vni}, port {r.port}, over IPv{r.family}" if r.vni else ""
    more += "" if r.checksum else ", no checksums"
    return f"link {r.name} ({r.kind}, mtu {r.mtu}{more}){_place(r.netns)}"


def _peer(r: WireGuardPeer) -> str:
    parts = [f"wireguard peer {r.public_key} on {r.link}"]
    parts += ["at {} port {}".format(*r.endpoint)] if r.endpoint else []
    return " ".join(parts) + f", allowed {' '.join(map(str, r.allowed)) or 'nothing'}"


_DESCRIBE: dict[type, Callable[..., str]] = {
    Netns: lambda r: f"netns {r.path}",
    Link: _link,
    LinkAddress: lambda r: f"address {r.address}/{r.prefixlen} on {r.link}{_place(r.netns)}",
    Route: _route,
    Neighbour: lambda r: f"neighbour {r.address} is {r.mac} on {r.link}{_place(r.netns)}",
    Fdb: lambda r: f"fdb {r.mac} is at {r.to} on {r.link}{_place(r.netns)}",
    WireGuardDevice: lambda r: f"wireguard {r.link}: key {r.public_key}, port {r.port}",
    WireGuardPeer: _peer,
    Sysctl: lambda r: f"sysctl {r.name} = {r.value}{_place(r.netns)}",
    Element: lambda r: (
        f"element {r.set} {{ {' . '.join(r.match)}"
        + (f" : {' . '.join(r.value)}" if r.value else "")
        + " }"
    ),
    Ruleset: lambda _: f"table inet {TABLE}: chains and empty sets",
}
