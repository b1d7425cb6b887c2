"""Sandboxes and endpoints: who is on which network, and how it is reached.

A *sandbox* is one network namespace that something runs in: a container, a
VM, a systemd service, a plain process.  An *endpoint* is its attachment to one
network.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Address, IPv6Address
from typing import NewType

from seaway.errors import InvalidSpec
from seaway.model.names import IFNAME_MAX, check_name, digest
from seaway.model.network import Address, NetworkId
from seaway.model.ports import PortSpec, PublishedPort

SandboxId = NewType("SandboxId", str)
EndpointId = NewType("EndpointId", str)


class Phase(StrEnum):
    """Where a sandbox is in its life."""

    CREATED = "created"  # ports are bound, nothing runs yet, names are not answered
    RUNNING = "running"  # names are answered
    STOPPED = "stopped"  # keeps its addresses; no ports, no names


_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DnsSettings:
    """What ``--dns``, ``--dns-search`` and ``--dns-option`` asked for.

    Attributes:
        servers: Who is asked for names that are not Seaway's; empty means the
            host's own resolvers.
    """

    servers: tuple[Address, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Sandbox:
    """One network namespace that takes part.

    Attributes:
        id: 12 hexadecimal digits, ours.
        name: What people call it, unique on the host.
        netns: Path that opens the namespace, e.g. /run/seaway/netns/<id>.
        made_netns: Seaway created the namespace and removes it at the end.
        pid: The process that is attached, or whose end stops the container; 0 if unknown.
        started: When that process started, in clock ticks since boot (proc(5), field 22
            of stat), so that a reused number is not mistaken for it.
        hostname: Also a DNS name; empty when the caller has none.
        asked: Ports as they were asked for.
        published: Ports as they are bound now; empty while stopped.
        earlier: Ports as they were bound last, while stopped: a free choice falls on the
            same again.
        sysctls: ``net.*`` settings inside the namespace.
        container: The engine's id of the container, once it has one.
        auto_remove: Forget the sandbox when its process ends.
        phase: Decides whether names are answered and ports are published.
        created: Seconds since the epoch.
    """

    id: SandboxId
    name: str
    netns: str
    made_netns: bool = False
    hostname: str = ""
    labels: dict[str, str] = field(default_factory=dict)
    asked: tuple[PortSpec, ...] = ()
    published: tuple[PublishedPort, ...] = ()
    earlier: tuple[PublishedPort, ...] = ()
    dns: DnsSettings = DnsSettings()
    sysctls: dict[str, str] = field(default_factory=dict)
    container: str = ""
    image: str = ""
    auto_remove: bool = False
    pid: int = 0
    started: int = 0
    phase: Phase = Phase.CREATED
    created: float = 0.0

    def __post_init__(self) -> None:
        check_name("container", self.name)
        for key in self.sysctls:
            if not key.startswith("net.") or "/" in key or ".." in key:
                raise InvalidSpec(f"sysctl {key!r} is not a net.* setting of the namespace")

    @property
    def ipv6(self) -> bool:
        """Did nobody turn IPv6 off inside?  Where it is off the kernel takes no address."""
        switches = (f"net.ipv6.conf.{which}.disable_ipv6" for which in ("all", "default"))
        return not any(self.sysctls.get(switch) == "1" for switch in switches)


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """The attachment of one sandbox to one network.

    Attributes:
        ifname: Name of the link inside the sandbox, e.g. eth0.
        mac: Lower case, colons.
        v4, v6: Its addresses, None where the network has no such subnet.
        static: The user chose an address; kept as it is for ever.
        gw_priority: The endpoint with the highest one has the default route.
    """

    id: EndpointId
    sandbox: SandboxId
    network: NetworkId
    ifname: str
    mac: str
    v4: IPv4Address | None = None
    v6: IPv6Address | None = None
    static: bool = False
    aliases: tuple[str, ...] = ()
    gw_priority: int = 0

    def __post_init__(self) -> None:
        if not _MAC.fullmatch(self.mac):
            raise InvalidSpec(f"{self.mac!r} is not a MAC address: write it like 02:42:ac:11:00:02")
        if int(self.mac[:2], 16) & 1:
            raise InvalidSpec(f"MAC address {self.mac} is a multicast address: choose another")
        if not 0 < len(self.ifname) <= IFNAME_MAX or "/" in self.ifname:
            raise InvalidSpec(f"{self.ifname!r} cannot name an interface")
        for alias in self.aliases:
            check_name("alias", alias)

    @property
    def addresses(self) -> tuple[Address, ...]:
        """Its addresses, IPv4 first."""
        return tuple(a for a in (self.v4, self.v6) if a is not None)


def endpoint_id(sandbox: SandboxId, network: NetworkId) -> EndpointId:
    """Name the attachment of *sandbox* to *network*; a restart computes the same."""
    return EndpointId(digest(sandbox, network).hex()[:16])
