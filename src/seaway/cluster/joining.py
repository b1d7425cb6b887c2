"""What is said on the join port, and how it is written; who says it is elsewhere.

One TLS connection is one question.  The server speaks first:

    server  {"protocol": 1, "ca": "-----BEGIN CERTIFICATE..."}
    client  {"ask": "join", ...}
    server  {"answer": "admission", ...}      or {"answer": "refusal", ...}

Each is one line of JSON.  Fields one side does not know are skipped, so that hosts can be
upgraded one by one.
"""

from __future__ import annotations

import asyncio
from ipaddress import IPv6Address, ip_address
from typing import Final, NamedTuple, TypeVar

import msgspec

from seaway import errors
from seaway.model.cluster import Ports
from seaway.model.names import check_name
from seaway.model.network import Address

PROTOCOL: Final = 1

LINE_MAX: Final = 256 << 10
"""Bytes of one line."""


class Removed(errors.NotFound):
    """This host is no member any more; only joining anew helps."""


class Refused(errors.SeawayError):
    """The other side knows us not, or says no for a reason of a class we do not know."""


class Unreachable(errors.SeawayError):
    """No server of the cluster answers, or none that proves to be one."""


class Server(NamedTuple):
    """Where a join server listens."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else ":".join(map(str, self))


def parse_server(text: str, port: int = Ports().join) -> Server:
    """Read ADDRESS, NAME, ADDRESS:PORT, IPV6 or [IPV6]:PORT.

    Args:
        port: If *text* has none.

    Raises:
        InvalidSpec: The port is no number from 1 to 65535, or there is no address.
    """
    address, number = text, ""
    if text.startswith("["):
        address, _, number = text[1:].partition("]")
        number = number.removeprefix(":")
    elif text.count(":") == 1:
        address, _, number = text.partition(":")
    if not address:
        raise errors.InvalidSpec(f"{text!r} has no address: write ADDRESS or ADDRESS:PORT")
    if number and not (number.isascii() and number.isdigit() and 1 <= int(number) <= 65535):
        raise errors.InvalidSpec(f"{text!r} has no port from 1 to 65535: write ADDRESS:PORT")
    return Server(address, int(number or port))


# -- questions --------------------------------------------------------------------------------


class JoinRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="join"):
    """Let me in.

    Attributes:
        name: What the host wants to be called.
        csr: Certificate signing request (PEM).
        addresses: Where others reach it, at most one of each family, the preferred one first.
        mac: As Host.mac.
        vxlan: As Host.vxlan.
        version: Of its Seaway.
        secret: From the token; the client fills it in, and the server blanks it.
        identity: SHA-256 of the request's public key; the server fills it in.
    """

    name: str
    csr: str
    addresses: tuple[str, ...]
    mac: str = ""
    vxlan: bool = True
    version: str = ""
    secret: str = ""
    identity: str = ""

    @property
    def underlay(self) -> tuple[Address, ...]:
        """Its addresses, parsed."""
        return parse_addresses(self.addresses)


class RenewRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="renew"):
    """Certify me again: the request's key is the proof, so this works when too late as well."""

    id: str
    csr: str
    addresses: tuple[str, ...]


class AuthorityRequest(msgspec.Struct, frozen=True, kw_only=True, tag_field="ask", tag="authority"):
    """Hand me the authority's key; asked with a certificate."""


Question = JoinRequest | RenewRequest | AuthorityRequest

# -- answers ----------------------------------------------------------------------------------


class Greeting(msgspec.Struct, frozen=True, kw_only=True):
    """The server's first line.

    Attributes:
        protocol: PROTOCOL.
        ca: The authority's certificate (PEM).
    """

    protocol: int
    ca: str


class Admission(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="admission"):
    """You are in.

    Attributes:
        id: Host.id.
        number: Host.number.
        name: Host.name.
        addresses: Host.addresses.
        cluster: The Cluster record (JSON of the store's codec).
        etcd: URLs of etcd's client endpoints.
        etcd_ca, etcd_certificate, etcd_key: PEM; only if etcd is somebody else's.
        certificate: The host's (PEM); the server fills it in.
        ca: The authority's certificate (PEM); the server fills it in.
    """

    id: str
    number: int
    name: str
    addresses: tuple[str, ...]
    cluster: str
    etcd: tuple[str, ...] = ()
    etcd_ca: str = ""
    etcd_certificate: str = ""
    etcd_key: str = ""
    certificate: str = ""
    ca: str = ""


class Renewed(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="renewed"):
    """A new certificate for the old key, and the authority's (PEM)."""

    certificate: str
    ca: str


class AuthorityKey(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="authority"):
    """The authority's certificate and key (PEM)."""

    certificate: str
    key: str


class Elsewhere(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="elsewhere"):
    """This server has no authority's key; these have."""

    servers: tuple[Server, ...]


class Refusal(msgspec.Struct, frozen=True, kw_only=True, tag_field="answer", tag="refusal"):
    """An error: the name of its class, and its line."""

    kind: str
    message: str


Answer = Admission | Renewed | AuthorityKey | Elsewhere | Refusal

_KINDS: Final[dict[str, type[errors.SeawayError]]] = {
    kind.__name__: kind
    for kind in (
        errors.InvalidSpec,
        errors.Conflict,
        errors.NotFound,
        errors.Exhausted,
        errors.StoreError,
        errors.Unsupported,
        Removed,
    )
}


def refusal(error: errors.SeawayError) -> Refusal:
    """Write down an error."""
    return Refusal(kind=type(error).__name__, message=str(error))


def error_of(refused: Refusal) -> errors.SeawayError:
    """Make the error again that refusal() wrote down; Refused if its class is strange here."""
    return _KINDS.get(refused.kind, Refused)(refused.message)


# -- lines ------------------------------------------------------------------------------------

T = TypeVar("T")


def line(message: msgspec.Struct) -> bytes:
    """Render one message."""
    return msgspec.json.encode(message) + b"\n"


def parse(kind: type[T] | object, data: bytes) -> T:
    """Read one message: *kind* is its class, or a union of several.

    Raises:
        InvalidSpec: It is none.
    """
    try:
        found: T = msgspec.json.decode(data, type=kind)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as err:
        raise errors.InvalidSpec(f"a message on the join port cannot be read: {err}") from err
    return found


async def read_line(reader: asyncio.StreamReader) -> bytes:
    """Read one line; *reader*'s limit is LINE_MAX.

    Raises:
        InvalidSpec: It is longer.
        EOFError: The other side hangs up before the line's end.
    """
    try:
        return await reader.readuntil(b"\n")
    except asyncio.LimitOverrunError:
        raise errors.InvalidSpec(
            f"a message on the join port is longer than {LINE_MAX} bytes: name less in it"
        ) from None


def check_join(request: JoinRequest) -> None:
    """Check what a stranger says of itself before anybody acts on it.

    Raises:
        InvalidSpec: No name for a host, no address, too many, or not addresses.
    """
    check_name("host", request.name)
    found = request.underlay
    if not found or len({one.version for one in found}) < len(found):
        raise errors.InvalidSpec(
            f"host {request.name} has {len(found)} addresses: name one or one of each IP version "
            "with --advertise"
        )


def parse_addresses(given: tuple[str, ...]) -> tuple[Address, ...]:
    """Read addresses.

    Raises:
        InvalidSpec: One is none.
    """
    try:
        return tuple(ip_address(one) for one in given)
    except ValueError as err:
        raise errors.InvalidSpec(f"{err}: name an address with --advertise") from None


def peer_address(text: str) -> Address:
    """Read the address of a socket's other end: IPv4 as such, also on a socket for both."""
    found = ip_address(text.partition("%")[0])
    if isinstance(found, IPv6Address) and found.ipv4_mapped is not None:
        return found.ipv4_mapped
    return found
