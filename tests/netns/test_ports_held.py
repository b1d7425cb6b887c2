"""Who holds a port, asked in a namespace where this test has put the holder."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from seaway.kernel import ports_held
from seaway.kernel.netns import inside
from seaway.model.ports import Protocol
from tests.support.netns import namespaces


@pytest.fixture
def host():
    with namespaces("host") as (made,):
        yield made


def holder(host, protocol, address, port):
    with inside(str(host.path)):
        return ports_held.holder(protocol, address and ip_address(address), port)


@pytest.mark.parametrize(
    ("kind", "bound", "wanted"),
    [
        ("tcp", "0.0.0.0", None),
        ("tcp", "0.0.0.0", "0.0.0.0"),
        ("tcp", "0.0.0.0", "127.0.0.1"),
        ("tcp", "127.0.0.1", "127.0.0.1"),
        ("tcp", "127.0.0.1", "0.0.0.0"),
        ("tcp", "127.0.0.1", "::"),
        ("tcp", "::", "127.0.0.1"),
        ("tcp", "::1", "::1"),
        ("tcp", "::1", "::"),
        ("udp", "0.0.0.0", "127.0.0.1"),
        ("udp", "::1", None),
    ],
)
def test_the_holder_is_named(host, kind, bound, wanted):
    """Program and pid of whoever keeps the wanted address and port from being bound."""
    with host.serving(8080, kind=kind, address=bound) as pid:
        answer = holder(host, Protocol(kind), wanted, 8080)

    assert answer.endswith(f" (pid {pid})")
    assert answer.startswith("python")


@pytest.mark.parametrize(
    ("kind", "bound", "wanted", "port"),
    [
        ("tcp", "127.0.0.1", "127.0.0.2", 8080),  # another address
        ("tcp", "0.0.0.0", "::1", 8080),  # another family
        ("tcp", "0.0.0.0", None, 8081),  # another port
        ("udp", "0.0.0.0", None, 8080),  # another protocol, see below
    ],
)
def test_others_are_not_blamed(host, kind, bound, wanted, port):
    """A socket that is not in the way is not named."""
    with host.serving(8080, kind=kind, address=bound):
        assert ports_held.UNKNOWN == holder(host, Protocol.TCP, wanted, port)


def test_another_namespace_is_not_looked_at(host):
    """The same port in another namespace holds nothing here."""
    with namespaces("other") as (other,), other.serving(8080):
        assert ports_held.UNKNOWN == holder(host, Protocol.TCP, None, 8080)


def test_sctp_without_sctp(host):
    """A kernel that has not loaded SCTP has nobody on its ports."""
    assert ports_held.UNKNOWN == holder(host, Protocol.SCTP, None, 8080)


def test_a_listener_before_a_connection(host):
    """The listener is named, not a client that has the same port on another address."""
    with host.serving(8080, address="127.0.0.1") as pid, host.serving(9090) as other:
        with inside(str(host.path)):
            client = socket.socket()
            client.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        with client:
            client.bind(("127.0.0.2", 8080))
            client.connect(("127.0.0.1", 9090))
            answer = holder(host, Protocol.TCP, None, 8080)

    assert other != pid
    assert answer.endswith(f" (pid {pid})")
