"""Published ports: what ``-p`` asks for and what was bound.  Opens no socket."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
    ip_address,
    ip_network,
)
from typing import Final

from seaway.errors import InvalidSpec
from seaway.model.network import Address, Prefix

PORT_MAX: Final = 65535

EVERYWHERE: Final[tuple[Address, ...]] = (IPv4Address("0.0.0.0"), IPv6Address("::"))  # noqa: S104
"""What "no host address" means: every address of both families."""


_WILDCARDS: Final = ("0.0.0.0", "[::]")  # noqa: S104 - as text


class Protocol(StrEnum):
    """Transports that have ports and can be translated."""

    TCP = "tcp"
    UDP = "udp"
    SCTP = "sctp"

    @property
    def number(self) -> int:
        """The value of the IP header's protocol field (IANA protocol numbers)."""
        return _NUMBERS[self]


_PROTOCOLS: Final = {"": Protocol.TCP, **{str(protocol): protocol for protocol in Protocol}}
_NUMBERS: Final = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}


@dataclass(frozen=True, slots=True, kw_only=True)
class PortSpec:
    """What was asked for.

    Attributes:
        host_ip: Where to listen.  None is every address, IPv4 and IPv6;
            0.0.0.0 is every IPv4 address and :: every IPv6 address.
        host_first: First acceptable host port; None lets the agent choose
            *count* consecutive free ports.
        host_last: Last acceptable host port; None exactly where *host_first* is.
        container_port: First port inside the container.
        count: How many consecutive container ports.  With one container port
            and several host ports, one of the host ports is picked.
        sources: Clients that may connect; empty is everyone.  Kept sorted and
            free of overlaps, IPv4 first, so that equal lists compare equal.
    """

    host_ip: Address | None = None
    host_first: int | None = None
    host_last: int | None = None
    container_port: int
    count: int = 1
    protocol: Protocol = Protocol.TCP
    sources: tuple[Prefix, ...] = ()

    def __post_init__(self) -> None:
        _check_ports("container", self.container_port, self.container_port + self.count - 1)
        _check_address(self.host_ip)
        if self.sources:
            object.__setattr__(self, "sources", _allow_list(self.sources, self.host_ip))
        if self.host_first is None and self.host_last is None:
            return
        if self.host_first is None or self.host_last is None:
            raise InvalidSpec("a range of host ports needs both its ends")
        _check_ports("host", self.host_first, self.host_last)
        length = self.host_last - self.host_first + 1
        if self.count > 1 and length != self.count:
            raise InvalidSpec(
                f"{length} host ports cannot map to {self.count} container ports: "
                "make both ranges the same length"
            )

    @property
    def candidates(self) -> range:
        """Host ports the mapping may start at, in the order to try them; empty: any free one."""
        if self.host_first is None or self.host_last is None:
            return range(0)
        return range(self.host_first, self.host_last - self.count + 2)

    def narrowed(self, versions: Collection[int]) -> PortSpec:
        """Ask only for what leads to a container with addresses of these IP *versions*.

        Raises:
            InvalidSpec: The host address is of another version.
        """
        if self.host_ip is not None:
            if self.host_ip.version in versions:
                return self
            raise InvalidSpec(
                f"cannot publish on {self.host_ip}: the container has no "
                f"IPv{self.host_ip.version} address to send it to"
            )
        if len(versions) != 1:
            return self
        return replace(self, host_ip=EVERYWHERE[0 if 4 in versions else 1])

    def bound_at(self, host_port: int) -> PublishedPort:
        """Return what is published once *host_port* and its successors are ours."""
        return PublishedPort(
            host_ip=self.host_ip,
            host_port=host_port,
            container_port=self.container_port,
            count=self.count,
            protocol=self.protocol,
            sources=self.sources,
        )

    def __str__(self) -> str:
        """Write the short form; parse_publish() reads it back as an equal value."""
        host = "" if self.host_first is None else _span(self.host_first, self.host_last)
        container = _span(self.container_port, self.container_port + self.count - 1)
        where = f"{_bracketed(self.host_ip)}:" if self.host_ip is not None else ""
        colon = ":" if where or host else ""
        allowed = f",from={','.join(map(str, self.sources))}" if self.sources else ""
        return f"{where}{host}{colon}{container}/{self.protocol}{allowed}"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedPort:
    """What is really bound: *count* host ports from *host_port* on, mapped one to one.

    Attributes are those of PortSpec.
    """

    host_ip: Address | None = None
    host_port: int
    container_port: int
    count: int = 1
    protocol: Protocol = Protocol.TCP
    sources: tuple[Prefix, ...] = ()

    def __post_init__(self) -> None:
        _check_ports("container", self.container_port, self.container_port + self.count - 1)
        _check_ports("host", self.host_port, self.host_last)
        _check_address(self.host_ip)
        if self.sources:
            object.__setattr__(self, "sources", _allow_list(self.sources, self.host_ip))

    @property
    def host_last(self) -> int:
        """The last host port."""
        return self.host_port + self.count - 1

    @property
    def addresses(self) -> tuple[Address, ...]:
        """The addresses to bind: one, or the two wildcards."""
        return EVERYWHERE if self.host_ip is None else (self.host_ip,)

    def address(self, version: int) -> Address | None:
        """The address to bind of one IP version, if it is published there at all."""
        if self.host_ip is None:
            return EVERYWHERE[0 if version == 4 else 1]
        return self.host_ip if self.host_ip.version == version else None

    def as_ps(self) -> str:
        """Render as ``docker ps``: ``0.0.0.0:8080->80/tcp, [::]:8080->80/tcp``."""
        host = _span(self.host_port, self.host_last)
        container = _span(self.container_port, self.container_port + self.count - 1)
        return ", ".join(f"{where}:{host}->{container}/{self.protocol}" for where in self._places)

    @property
    def _places(self) -> tuple[str, ...]:
        """The addresses as text; the wildcards', which most ports have, are not made each time."""
        return _WILDCARDS if self.host_ip is None else (_bracketed(self.host_ip),)

    def as_port(self) -> Iterator[str]:
        """Yield the lines of ``docker port``: ``80/tcp -> 0.0.0.0:8080``, IPv4 first."""
        for port in range(self.container_port, self.container_port + self.count):
            for where in self.listeners(port):
                yield f"{port}/{self.protocol} -> {where}"

    def listeners(self, container_port: int) -> tuple[str, ...]:
        """Return where *container_port* can be reached, as ``docker port NAME 80`` does.

        Returns:
            ``0.0.0.0:8080`` and the like; empty if that port is not in this mapping.
        """
        offset = container_port - self.container_port
        if not 0 <= offset < self.count:
            return ()
        return tuple(f"{where}:{self.host_port + offset}" for where in self._places)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExposedPorts:
    """Container ports named by ``--expose`` or an image; published only by ``-P``."""

    container_port: int
    count: int = 1
    protocol: Protocol = Protocol.TCP

    def __post_init__(self) -> None:
        _check_ports("container", self.container_port, self.container_port + self.count - 1)

    def publish(self) -> PortSpec:
        """Return what ``-P`` asks for: free host ports, on every address."""
        return PortSpec(
            container_port=self.container_port, count=self.count, protocol=self.protocol
        )

    def __str__(self) -> str:
        last = self.container_port + self.count - 1
        return f"{_span(self.container_port, last)}/{self.protocol}"


def overlapping(a: PublishedPort, b: PublishedPort) -> bool:
    """Would binding both fail?  A wildcard address takes the port on every address it covers.

    Source:
        EADDRINUSE in bind(2); IPv6 sockets are bound with IPV6_V6ONLY, ipv6(7).
    """
    return (
        a.protocol is b.protocol
        and a.host_port <= b.host_last
        and b.host_port <= a.host_last
        and any(_same_place(x, y) for x in a.addresses for y in b.addresses)
    )


def parse_publish(text: str) -> PortSpec:
    """Read any form of ``-p``.

    Short: ``[[IP:][HOST]:]CONTAINER[/PROTOCOL][,from=CIDR[,CIDR...]]`` where HOST
    and CONTAINER are a port or a range ``80-82``, and an IPv6 address may stand
    in brackets.  Long: ``target=80[,published=8080][,protocol=tcp][,host_ip=IP]
    [,from=CIDR[,CIDR...]]``, in any order; the clients of from= may be separated
    by semicolons as well.  Upper and lower case are the same.

    Raises:
        InvalidSpec: Names *text* and what to write instead.

    Source:
        docker run reference, "Publish or expose port"; from= is Seaway's own.
    """
    fields = text.lower().split(",")
    try:
        return _parse_long(fields) if "=" in fields[0] else _parse_short(fields)
    except InvalidSpec as err:
        raise InvalidSpec(f"cannot publish {text!r}: {err}") from None


def parse_expose(text: str) -> ExposedPorts:
    """Read ``80``, ``80/udp`` or ``80-82/tcp``, as ``--expose`` and images write it.

    Raises:
        InvalidSpec: Names *text* and what is wrong with it.
    """
    ports, _, protocol = text.lower().partition("/")
    try:
        first, last = _parse_range("container", ports)
        return ExposedPorts(
            container_port=first, count=last - first + 1, protocol=_parse_protocol(protocol)
        )
    except InvalidSpec as err:
        raise InvalidSpec(f"cannot expose {text!r}: {err}") from None


_LONG_KEYS: Final = ("target", "published", "protocol", "host_ip", "from")


def _parse_short(fields: list[str]) -> PortSpec:
    options = _options(fields[1:])
    if unknown := options.keys() - {"from"}:
        raise InvalidSpec(f"{min(unknown)!r} belongs to the long form: write target=... as well")
    mapping, _, protocol = fields[0].partition("/")
    ip, host, container = _split(mapping)
    return _spec(ip, host, container, options | {"protocol": protocol})


def _parse_long(fields: list[str]) -> PortSpec:
    options = _options(fields)
    if "mode" in options:
        raise InvalidSpec("mode= is for services: leave it out, a container's port is on its host")
    if unknown := sorted(options.keys() - set(_LONG_KEYS)):
        raise InvalidSpec(f"{unknown[0]!r} is not a key: use {', '.join(_LONG_KEYS)}")
    if "target" not in options:
        raise InvalidSpec("target= is missing: add the container's port, as in target=80")
    ip = options.get("host_ip", "").removeprefix("[").removesuffix("]")
    return _spec(ip, options.get("published", ""), options["target"], options)


def _options(fields: Iterable[str]) -> dict[str, str]:
    """Collect ``key=value`` fields; bare fields after from= are more clients."""
    found: dict[str, str] = {}
    key = ""
    for field in fields:
        before, equals, value = field.partition("=")
        if not equals and key != "from":
            raise InvalidSpec(f"{field!r} is not key=value: allow clients with from=CIDR[,CIDR]")
        key = before if equals else key
        if equals and key in found and key != "from":
            raise InvalidSpec(f"{key!r} is given twice: keep one")
        more = value if equals else field
        found[key] = f"{found[key]};{more}" if key in found else more
    return found


def _split(mapping: str) -> tuple[str, str, str]:
    """Cut ``ip:host:container`` from the right, since IPv6 addresses hold colons."""
    if mapping.startswith("["):
        ip, _, ports = mapping[1:].partition("]")
        if ports[:1] != ":" or ports.count(":") != 2:
            raise InvalidSpec("after the address write :HOST:CONTAINER, or ::CONTAINER")
        _, host, container = ports.split(":")
        return ip, host, container
    head, _, container = mapping.rpartition(":")
    ip, _, host = head.rpartition(":")
    if host.count(".") == 3:  # an address where a port belongs
        raise InvalidSpec(f"{host!r} is not a port: for a free port write IP::CONTAINER")
    return ip, host, container


def _spec(ip: str, host: str, container: str, options: dict[str, str]) -> PortSpec:
    first, last = _parse_range("container", container)
    # Docker reads host port 0 as "any free port", as bind(2) does.
    host_first, host_last = _parse_range("host", host) if host not in ("", "0") else (None, None)
    return PortSpec(
        host_ip=_parse_address(ip) if ip else None,
        host_first=host_first,
        host_last=host_last,
        container_port=first,
        count=last - first + 1,
        protocol=_parse_protocol(options.get("protocol", "")),
        sources=_parse_sources(options["from"]) if "from" in options else (),
    )


def _parse_range(side: str, text: str) -> tuple[int, int]:
    """Read one port or two; whether they are ports at all is for the values to check."""
    first, dash, last = text.partition("-")
    # int() would also take signs, spaces, underscores and other scripts' digits.
    for end in (first, last) if dash else (first,):
        if not (end.isascii() and end.isdigit() and len(end) <= 5):
            raise InvalidSpec(
                f"{text!r} is not a {side} port: write a number or a range like 80-82"
            )
    low = int(first)
    return low, int(last) if dash else low


def _parse_protocol(text: str) -> Protocol:
    try:
        return _PROTOCOLS[text]
    except KeyError:
        raise InvalidSpec(f"protocol {text!r} is not one of {', '.join(Protocol)}") from None


def _parse_address(text: str) -> Address:
    try:
        address = ip_address(text)
    except ValueError:
        raise InvalidSpec(f"{text!r} is not an IP address: names are not looked up") from None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address


def _parse_sources(text: str) -> tuple[Prefix, ...]:
    return tuple(_parse_prefix(part) for part in text.split(";"))


def _parse_prefix(text: str) -> Prefix:
    try:
        loose = ip_network(text, strict=False)
    except ValueError:
        loose = None
    if loose is None or "%" in text:  # an address's scope means nothing in a range
        raise InvalidSpec(f"from={text!r} is not a range like 192.0.2.0/24")
    try:
        return ip_network(text)
    except ValueError:
        raise InvalidSpec(f"from={text!r} has host bits set: write {loose}") from None


def _allow_list(sources: Sequence[Prefix], host_ip: Address | None) -> tuple[Prefix, ...]:
    v4 = [s for s in sources if isinstance(s, IPv4Network)]
    v6 = [s for s in sources if isinstance(s, IPv6Network)]
    if host_ip is not None and (stray := v6 if host_ip.version == 4 else v4):
        raise InvalidSpec(f"clients from {stray[0]} cannot reach {host_ip}: the IP versions differ")
    return (*collapse_addresses(v4), *collapse_addresses(v6))


def _check_ports(side: str, first: int, last: int) -> None:
    if last < first:
        raise InvalidSpec(f"{side} ports {first}-{last} run backwards: begin with the lower one")
    if not 1 <= first <= last <= PORT_MAX:
        raise InvalidSpec(f"{side} port {_span(first, last)} is outside 1-{PORT_MAX}")


def _check_address(address: Address | None) -> None:
    if address is None:
        return
    if address.is_multicast:
        raise InvalidSpec(
            f"{str(address)!r} is a multicast address: publish on an address of this host"
        )
    if isinstance(address, IPv6Address) and (address.is_link_local or address.scope_id):
        raise InvalidSpec(f"{str(address)!r} belongs to one link: publish on a global address")


def _same_place(a: Address, b: Address) -> bool:
    return a.version == b.version and (a == b or a.is_unspecified or b.is_unspecified)


def _span(first: int, last: int | None) -> str:
    return str(first) if last in (None, first) else f"{first}-{last}"


def _bracketed(address: Address) -> str:
    return f"[{address}]" if address.version == 6 else str(address)
