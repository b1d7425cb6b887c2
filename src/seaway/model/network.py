"""Networks as the user asked for them."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import NewType

from seaway.errors import InvalidSpec
from seaway.model.names import check_name

Address = IPv4Address | IPv6Address
Prefix = IPv4Network | IPv6Network

NetworkId = NewType("NetworkId", str)


class Driver(StrEnum):
    """How packets of a network travel."""

    BRIDGE = "bridge"  # local and routed; Docker's word for "the ordinary one"
    OVERLAY = "overlay"  # routed, and its members may be on any host of the cluster
    MACVLAN = "macvlan"  # a MAC address of its own on a physical link
    HOST = "host"  # no network of its own: the host's
    NONE = "none"  # loopback only


PREDEFINED = {"bridge": Driver.BRIDGE, "host": Driver.HOST, "none": Driver.NONE}
"""Networks that are always there and cannot be removed."""

OPTIONS = {
    Driver.BRIDGE: frozenset({"mtu", "masquerade"}),
    Driver.OVERLAY: frozenset({"mtu", "masquerade", "encrypted", "carrier"}),
    Driver.MACVLAN: frozenset({"parent", "mode", "mtu"}),
}
"""The ``-o`` keys each driver understands."""

CARRIERS = ("auto", "direct", "vxlan")
"""What may carry an overlay network that is not encrypted; the first is the default."""

IPV6_MTU_MIN = 1280
"""Bytes; a link that carries less has no IPv6 (RFC 8200 section 5)."""

MACVLAN_MODES = ("bridge", "private", "vepa", "passthru")
"""How macvlans on one parent see each other (ip-link(8)); the first is the default."""

DOCKER_OPTIONS = {
    "com.docker.network.driver.mtu": "mtu",
    "com.docker.network.bridge.enable_ip_masquerade": "masquerade",
    "macvlan_mode": "mode",
}
"""Docker's spelling of the same options, accepted for those who bring their scripts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subnet:
    """One address range of a network.

    Attributes:
        cidr: The whole range; containers have their addresses in it.
        gateway: First hop and name server; the host owns it (bridge driver).
        ip_range: Where addresses are handed out from, inside *cidr*.
        reserved: Never handed out, by the name they were reserved for.
    """

    cidr: Prefix
    gateway: Address | None = None
    ip_range: Prefix | None = None
    reserved: dict[str, Address] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.gateway is not None and self.gateway not in self.cidr:
            raise InvalidSpec(f"gateway {self.gateway} is outside the subnet {self.cidr}")
        if self.ip_range is not None and not _inside(self.ip_range, self.cidr):
            raise InvalidSpec(f"ip-range {self.ip_range} is outside the subnet {self.cidr}")
        for name, address in self.reserved.items():
            if address not in self.cidr:
                raise InvalidSpec(f"aux-address {name}={address} is outside {self.cidr}")

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.cidr.version


def _inside(inner: Prefix, outer: Prefix) -> bool:
    return (
        inner.version == outer.version
        and inner.prefixlen >= outer.prefixlen
        and inner.network_address in outer
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Network:
    """One container network.

    Attributes:
        id: Opaque, stable for the life of the network; never parsed.
        subnets: At most one IPv4 and one IPv6 range; empty for host and none.
        internal: Nothing enters or leaves but the host's own packets.
        options: Driver options (see OPTIONS), already in our spelling.
        created: Seconds since the epoch.
    """

    id: NetworkId
    name: str
    driver: Driver = Driver.BRIDGE
    subnets: tuple[Subnet, ...] = ()
    internal: bool = False
    options: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    created: float = 0.0

    def __post_init__(self) -> None:
        check_name("network", self.name)
        versions = [s.version for s in self.subnets]
        if len(set(versions)) != len(versions):
            raise InvalidSpec("a network has at most one IPv4 and one IPv6 subnet")
        for key in self.options:
            if key not in OPTIONS.get(self.driver, ()):
                known = ", ".join(sorted(OPTIONS.get(self.driver, ()))) or "none"
                raise InvalidSpec(
                    f"the {self.driver} driver has no option {key!r}: it knows {known}"
                )
        if self.driver is Driver.MACVLAN and not self.options.get("parent"):
            raise InvalidSpec("a macvlan network needs its parent interface: add -o parent=eth0")
        if "mtu" in self.options and not 68 <= self.mtu <= 65535:
            raise InvalidSpec(f"mtu {self.options['mtu']} is not a number from 68 to 65535")
        if 0 < self.mtu < IPV6_MTU_MIN and self.subnet(6) is not None:
            raise InvalidSpec(f"IPv6 needs an mtu of {IPV6_MTU_MIN}: raise it or add --ipv6=false")
        if self.options.get("mode", "bridge") not in MACVLAN_MODES:
            raise InvalidSpec(f"macvlan mode is one of {', '.join(MACVLAN_MODES)}")
        if self.options.get("masquerade", "true") not in ("true", "false"):
            raise InvalidSpec("option masquerade is true or false")
        self._check_overlay()

    def _check_overlay(self) -> None:
        # Docker's "--opt encrypted" has no value and means yes.
        if self.options.get("encrypted", "true") not in ("", "true", "false"):
            raise InvalidSpec("option encrypted is true or false")
        if self.carrier not in CARRIERS:
            if self.carrier == "wireguard":
                raise InvalidSpec(
                    "carrier=wireguard is what encrypted networks have: write -o encrypted instead"
                )
            raise InvalidSpec(f"option carrier is one of {', '.join(CARRIERS)}")
        if self.encrypted and self.carrier != CARRIERS[0]:
            raise InvalidSpec(
                f"carrier={self.carrier} is for networks that are not encrypted, since WireGuard "
                "carries those that are: drop it or add -o encrypted=false"
            )

    @property
    def mtu(self) -> int:
        """Bytes of IP packet an endpoint may send; 0 where the link's own default holds."""
        text = self.options.get("mtu", "0")
        return int(text) if text.isdecimal() else -1

    @property
    def masquerade(self) -> bool:
        """Does traffic that leaves the host take the host's address?"""
        return not self.internal and self.options.get("masquerade", "true") == "true"

    @property
    def routed(self) -> bool:
        """Is this a network whose packets Seaway's own rules and routes carry?"""
        return self.driver in (Driver.BRIDGE, Driver.OVERLAY)

    @property
    def encrypted(self) -> bool:
        """Do its packets go from host to host encrypted, or else not at all?"""
        return self.driver is Driver.OVERLAY and self.options.get("encrypted") != "false"

    @property
    def carrier(self) -> str:
        """What carries it from host to host if it is not encrypted: one of CARRIERS."""
        return self.options.get("carrier", CARRIERS[0])

    def subnet(self, version: int) -> Subnet | None:
        """Return the IPv4 or IPv6 subnet, if the network has one."""
        return next((s for s in self.subnets if s.version == version), None)
