"""The cluster as all its hosts see it: hosts, their address blocks, endpoints they announce."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Final, NewType

from seaway.errors import InvalidSpec
from seaway.model.names import check_name
from seaway.model.network import Address, NetworkId, Prefix
from seaway.model.sandbox import EndpointId, SandboxId

HostId = NewType("HostId", str)

NUMBER_MAX: Final = (1 << 14) - 2
"""Hosts in a cluster: each has a number, and its tunnel address is made of it."""

TUNNELS: Final = IPv4Network("169.254.64.0/18")
"""Where tunnel addresses come from: link-local (RFC 3927), in a part that no cloud uses."""

STORE_SIZES: Final = (1, 3, 5)
"""How many hosts run etcd: odd, since an even one more tolerates nothing more."""


class Carrier(StrEnum):
    """What takes packets of a network from one host to another."""

    DIRECT = "direct"  # both are on one link: routed as they are
    VXLAN = "vxlan"  # RFC 7348
    WIREGUARD = "wireguard"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """The ports between hosts, all next to each other, from *base* on.

    Attributes:
        base: The first one.
    """

    base: int = 7900

    def __post_init__(self) -> None:
        if not 1 <= self.base <= 65530:
            raise InvalidSpec(f"port {self.base} is not a number from 1 to 65530")

    @property
    def join(self) -> int:
        """TCP: joining and renewing certificates."""
        return self.base

    @property
    def etcd(self) -> int:
        """TCP: etcd for its clients, which are all agents."""
        return self.base + 1

    @property
    def etcd_peers(self) -> int:
        """TCP: etcd's members among each other."""
        return self.base + 2

    @property
    def vxlan(self) -> int:
        """UDP."""
        return self.base + 3

    def wireguard(self, generation: int) -> int:
        """UDP: two take turns, so that new keys are in use before the old ones go."""
        return self.base + 4 + generation % 2


@dataclass(frozen=True, slots=True, kw_only=True)
class TunnelKey:
    """One generation of a host's WireGuard key.

    Attributes:
        generation: Counts the cluster's rotations, from 0.
        public: Base64, as wg(8) writes it.
    """

    generation: int
    public: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """A member of the cluster.

    Attributes:
        id: 12 hexadecimal digits, drawn when it joined.
        name: What people call it, unique in the cluster.
        number: 1 to NUMBER_MAX, unique in the cluster.
        addresses: Where others reach it: at most one of each family, the preferred one first.
        mac: Of the link with the first address, for hosts on the same link; "" if it has none.
        mtu: Bytes of IP packet that fit the link with the first address; 0 if it is not known.
        behind: What others see as its address, if it is behind a NAT: it must speak first.
        keys: Oldest first; () where there is no WireGuard.
        settled: The newest generation of keys with which it reaches every other host.
        vxlan: Its kernel has VXLAN.
        checksums: Its VXLAN packets arrive with good checksums though hardware helps; False
            makes the devices at both ends do without (a fault of some network cards).
        drained: Takes no new endpoints of overlay networks.
        identity: SHA-256 of its public key (SubjectPublicKeyInfo), hexadecimal.
        version: Of its Seaway.
        joined: Seconds since the epoch.
    """

    id: HostId
    name: str
    number: int
    addresses: tuple[Address, ...]
    mac: str = ""
    mtu: int = 0
    behind: Address | None = None
    keys: tuple[TunnelKey, ...] = ()
    settled: int = 0
    vxlan: bool = True
    checksums: bool = True
    drained: bool = False
    identity: str = ""
    version: str = ""
    joined: float = 0.0

    def __post_init__(self) -> None:
        check_name("host", self.name)
        if not 1 <= self.number <= NUMBER_MAX:
            raise InvalidSpec(f"host number {self.number} is not from 1 to {NUMBER_MAX}")
        if not self.addresses:
            raise InvalidSpec(f"host {self.name} has no address: name one with --advertise")

    def address(self, version: int) -> Address | None:
        """Return its underlay address of one family."""
        return next((a for a in self.addresses if a.version == version), None)

    @property
    def tunnel(self) -> IPv4Address:
        """Its address on every tunnel: next hop of its blocks, and what others probe."""
        return TUNNELS.network_address + self.number

    @property
    def tunnel6(self) -> IPv6Address:
        """The same as a next hop for IPv6."""
        return IPv6Address("fe80::5357:0:0") + self.number

    @property
    def tunnel_mac(self) -> str:
        """Of its VXLAN devices."""
        return f"02:53:57:01:{self.number >> 8:02x}:{self.number & 255:02x}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A part of a network's subnet that one host hands out addresses from.

    One of a single address is borrowed: it may lie in another host's block.
    """

    network: NetworkId
    cidr: Prefix
    host: HostId


@dataclass(frozen=True, slots=True, kw_only=True)
class Announced:
    """An endpoint on an overlay network, as its host lets all others know it.

    Attributes:
        name: Of its sandbox.
        names: All it is called in DNS, in lower case, *name* first; () while it does not run.
    """

    id: EndpointId
    network: NetworkId
    host: HostId
    sandbox: SandboxId
    name: str
    names: tuple[str, ...] = ()
    v4: IPv4Address | None = None
    v6: IPv6Address | None = None
    mac: str = ""
    labels: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.names and self.names[0] == self.name:  # one text, not two, of 100,000 each
            object.__setattr__(self, "name", self.names[0])

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Its addresses, IPv4 first."""
        return tuple(a for a in (self.v4, self.v6) if a is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """Who has a name or an address that only one can have.

    Attributes:
        endpoint: Whose it is; "" where a whole host or network has it.
        name: What people call the holder.
    """

    host: HostId
    name: str
    endpoint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """What all hosts agree on.

    Attributes:
        id: 12 hexadecimal digits; a store that says another one is not ours.
        site: Where IPv6 subnets of overlay networks come from.
        ports: Between hosts.
        stores: How many hosts run etcd once there are so many; 0: an etcd of somebody else's.
        lease: Seconds after which a silent host counts as dead.
        generation: Of WireGuard keys, counts rotations.
        secret: SHA-256 of the join token's secret, hexadecimal.
        revoked: Serial numbers, hexadecimal, of certificates of removed hosts.
        created: Seconds since the epoch.
    """

    id: str
    site: IPv6Network
    ports: Ports = Ports()
    stores: int = 3
    lease: int = 20
    generation: int = 0
    secret: str = ""
    revoked: tuple[str, ...] = ()
    created: float = 0.0

    def __post_init__(self) -> None:
        if self.stores not in (0, *STORE_SIZES):
            raise InvalidSpec(f"a cluster has 1, 3 or 5 stores, not {self.stores}")
        if not 2 <= self.lease <= 3600:
            raise InvalidSpec(f"a lease of {self.lease} s: choose 2 to 3600 seconds")
