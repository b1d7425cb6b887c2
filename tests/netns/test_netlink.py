"""Many requests at once, with the receive buffer that a default kernel allows.

All in one namespace of our making.
"""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_network

import pytest

from seaway.errors import KernelError
from seaway.kernel import netlink, netns, observe
from seaway.kernel.messages import delete_link, route_message
from seaway.plan.resources import Route
from tests.support.netns import namespaces

RMEM_DEFAULT = 212_992  # bytes: net.core.rmem_default and rmem_max, unless somebody raised them
MANY = 2_000
LO = 1  # its index, in every namespace


@pytest.fixture
def space():
    """A namespace; the test is in it."""
    with namespaces("box") as (box,), netns.inside(str(box.path)):
        yield box


@pytest.fixture
def small(monkeypatch):
    """Sockets with a small receive buffer, whatever they ask for."""

    def shrink(sock, _size):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RMEM_DEFAULT // 2)  # it is doubled
        assert RMEM_DEFAULT == sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)

    monkeypatch.setattr(netlink, "_enlarge", shrink)


def route(n):
    """The *n*-th of many routes."""
    return Route(to=ip_network((0x0A000000 + n, 32)), link="lo")


def add(count):
    """Requests to add the first *count* of them."""
    return [route_message(route(n), LO) for n in range(count)]


@pytest.mark.usefixtures("small")
def test_a_long_batch_is_acknowledged_whole(space):
    """Two thousand routes go in with one call, come out with one dump, and go with another."""
    with netlink.Netlink() as sock:
        sock.batch(add(MANY))
        there = {found.to for found in observe.routes(sock, {LO: "lo"})}
        sock.batch(route_message(route(n), LO, delete=True) for n in range(MANY))

        assert {route(n).to for n in range(MANY)} == there
    assert "" == space.run("ip route show proto 86")


@pytest.mark.usefixtures("small", "space")
def test_every_refusal_of_a_long_batch_is_heard():
    """Those that are tolerated, and the one in the middle that is not; the rest is done."""
    gone = [delete_link(f"none{n}") for n in range(MANY)]
    with netlink.Netlink() as sock:
        sock.batch(gone)
        bad = route_message(Route(to=ip_network("10.0.9.9/32"), link="lo"), 99)
        with pytest.raises(KernelError, match=r"10\.0\.9\.9/32") as caught:
            sock.batch([*gone[:1000], bad, *gone[1000:], *add(3)])

        assert errno.ENODEV == caught.value.errno
        assert 3 == len(list(observe.routes(sock, {LO: "lo"})))


@pytest.mark.usefixtures("space")
def test_a_socket_for_many_answers_has_room():
    """Beyond net.core.rmem_max, since we may."""
    with netlink.Netlink() as sock:
        assert sock._sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) >= 1 << 20


@pytest.mark.usefixtures("small", "space")
def test_lost_answers_are_an_error_of_the_kernel(monkeypatch):
    """Not one of the system's that nobody expects: with too much sent at once."""
    monkeypatch.setattr(netlink, "_UNREAD_MAX", MANY)
    with netlink.Netlink() as sock, pytest.raises(KernelError) as caught:
        sock.batch([delete_link("none")] * MANY)

    assert errno.ENOBUFS == caught.value.errno


@pytest.mark.usefixtures("space")
@pytest.mark.parametrize("what", ["batch", "dump"])
def test_silence_ends(monkeypatch, what):
    """An answer that never comes is an error after a while; here the question is not sent."""
    monkeypatch.setattr(netlink, "_PATIENCE", 0.05)
    monkeypatch.setattr(netlink.Netlink, "_send", lambda _self, _data: None)
    ask = {"batch": lambda s: s.batch([delete_link("none")]), "dump": observe.links}[what]
    with netlink.Netlink() as sock, pytest.raises(KernelError) as caught:
        ask(sock)

    assert errno.ETIMEDOUT == caught.value.errno


@pytest.mark.usefixtures("space")
def test_a_socket_that_cannot_send_is_an_error_of_the_kernel():
    """A request longer than the send buffer is refused by name."""
    with netlink.Netlink() as sock:
        sock._sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
        with pytest.raises(KernelError) as caught:
            sock.batch(add(1000))

    assert errno.EMSGSIZE == caught.value.errno
