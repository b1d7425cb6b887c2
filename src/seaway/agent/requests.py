"""What callers may ask of the API, as they spell it, and its translation to model values.

These are the only types that the HTTP layer parses into; behind them there
are valid model values.  The OpenAPI document is made from them.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import msgspec

from seaway.errors import InvalidSpec
from seaway.model.network import DOCKER_OPTIONS, Address, Driver, Prefix
from seaway.model.ports import PortSpec, parse_expose, parse_publish
from seaway.model.sandbox import DnsSettings


class NetworkRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Create a network.  Lists pair up by address family and containment, as Docker's flags do."""

    name: str
    driver: str = "bridge"
    subnets: list[str] = []
    gateways: list[str] = []
    ip_ranges: list[str] = []
    aux_addresses: dict[str, str] = {}
    ipv4: bool = True
    ipv6: bool = True
    internal: bool = False
    options: dict[str, str] = {}
    labels: dict[str, str] = {}


class InitRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Make a cluster.  *etcd* names somebody else's store, with PEM texts for its TLS."""

    advertise: list[str] = []
    stores: int = 3
    port: int = 7900
    lease: int = 20
    etcd: list[str] = []
    etcd_ca: str = ""
    etcd_cert: str = ""
    etcd_key: str = ""


class JoinClusterRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Join a cluster by way of one of its hosts."""

    token: str
    address: str
    port: int = 7900
    advertise: list[str] = []


class LeaveRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Leave the cluster."""

    force: bool = False


class DrainRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Drain a host, or undo that."""

    undo: bool = False


class EndpointRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Attach to one network."""

    network: str
    aliases: list[str] = []
    ip: str = ""
    ip6: str = ""
    mac: str = ""
    ifname: str = ""
    gw_priority: int = 0


class SandboxRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Create a sandbox and attach it.

    *netns* names an existing namespace, *pid* a process in one; with neither, a
    namespace is made.  *publish* takes every form of ``-p``.  *expose* is what
    ``publish_all`` publishes.
    """

    name: str = ""
    netns: str = ""
    pid: int = 0
    hostname: str = ""
    labels: dict[str, str] = {}
    networks: list[EndpointRequest] = []
    publish: list[str] = []
    publish_all: bool = False
    expose: list[str] = []
    dns: list[str] = []
    dns_search: list[str] = []
    dns_options: list[str] = []
    sysctls: dict[str, str] = {}
    image: str = ""
    auto_remove: bool = False
    creator: int = 0


class StartedRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Say that a container's process runs."""

    container: str = ""
    pid: int = 0


class DisconnectRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Detach a sandbox from one network."""

    sandbox: str
    force: bool = False


class ConnectRequest(msgspec.Struct, forbid_unknown_fields=True, kw_only=True):
    """Attach a sandbox to one more network."""

    sandbox: str
    endpoint: EndpointRequest


def parse_address(what: str, text: str) -> Address:
    """Read one IP address.

    Raises:
        InvalidSpec: It is none, or names a link behind "%", which equals no address without.
    """
    _refuse_scope(what, text)
    try:
        return ip_address(text)
    except ValueError:
        raise InvalidSpec(f"{what} {text!r} is not an IP address") from None


def parse_prefix(what: str, text: str) -> Prefix:
    """Read one subnet, host bits clear.

    Raises:
        InvalidSpec: It is none, or has host bits; says what was probably meant.
    """
    _refuse_scope(what, text)
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        raise InvalidSpec(f"{what} {text!r} is not a subnet like 10.10.0.0/24") from None
    if "/" not in text:
        raise InvalidSpec(f"{what} {text!r} has no length: write {text}/{loose.max_prefixlen - 8}")
    if str(loose.network_address) != str(ip_address(text.split("/", maxsplit=1)[0])):
        raise InvalidSpec(f"{what} {text} has host bits set: write {loose}")
    return loose


def _refuse_scope(what: str, text: str) -> None:
    if "%" in text:
        raise InvalidSpec(f"{what} {text!r}: leave out '%' and what follows it")


def parse_driver(text: str) -> Driver:
    """Read a driver's name."""
    try:
        return Driver(text)
    except ValueError:
        known = ", ".join(Driver)
        raise InvalidSpec(f"there is no driver {text!r}: use one of {known}") from None


def parse_options(options: dict[str, str]) -> dict[str, str]:
    """Bring Docker's spelling of driver options into ours."""
    return {DOCKER_OPTIONS.get(key, key): value for key, value in options.items()}


def parse_ports(request: SandboxRequest) -> tuple[PortSpec, ...]:
    """Read ``-p`` and, with ``-P``, what is exposed and not yet published."""
    specs = [parse_publish(text) for text in request.publish]
    exposed = [parse_expose(text) for text in request.expose]
    if request.publish_all:
        there = {(s.container_port + i, s.protocol) for s in specs for i in range(s.count)}
        specs += [e.publish() for e in exposed if (e.container_port, e.protocol) not in there]
    return tuple(specs)


def parse_dns(request: SandboxRequest) -> DnsSettings:
    """Read ``--dns``, ``--dns-search`` and ``--dns-option``."""
    return DnsSettings(
        servers=tuple(parse_address("--dns", text) for text in request.dns),
        search=tuple(request.dns_search),
        options=tuple(request.dns_options),
    )


def wanted_v4(request: EndpointRequest) -> IPv4Address | None:
    """Read ``--ip``."""
    if not request.ip:
        return None
    address = parse_address("--ip", request.ip)
    if not isinstance(address, IPv4Address):
        raise InvalidSpec(f"--ip {request.ip} is an IPv6 address: use --ip6")
    return address


def wanted_v6(request: EndpointRequest) -> IPv6Address | None:
    """Read ``--ip6``."""
    if not request.ip6:
        return None
    address = parse_address("--ip6", request.ip6)
    if not isinstance(address, IPv6Address):
        raise InvalidSpec(f"--ip6 {request.ip6} is an IPv4 address: use --ip")
    return address
