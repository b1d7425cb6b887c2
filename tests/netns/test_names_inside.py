"""The name server of containers that no gateway serves: sockets inside their own namespace."""

from __future__ import annotations

from contextlib import contextmanager

from seaway.agent.names import INSIDE, Names
from seaway.dns.answer import Directory
from tests.support.core import FakeServer
from tests.support.model import macvlan, on, sandbox
from tests.support.netns import namespaces

WIRE = macvlan("wire", "192.0.2.0/24")


class Server(FakeServer):
    """Keeps the sockets it is handed."""

    def __init__(self):
        super().__init__()
        self.sockets = {}

    def listen_in(self, sockets, owner):
        """As the real one: an owner's earlier sockets are closed."""
        self.close_owner(owner)
        self.sockets[owner] = sockets

    def close_owner(self, owner):
        """Close them."""
        for sock in self.sockets.pop(owner, ()):
            sock.close()


@contextmanager
def listening(*names):
    """Names, and a namespace for each of *names*."""
    with namespaces(*names) as spaces:
        server = Server()
        yield Names(Directory(), server), server, *spaces
        for owner in list(server.sockets):
            server.close_owner(owner)


def inside(space):
    """The UDP addresses bound there."""
    return space.run("ss -Huln")


def test_a_problem_goes_with_its_sandbox():
    """Somebody in there has the address: told while the sandbox is there, or until it is free."""
    with listening("box") as (names, _server, box):
        web = sandbox("web", netns=str(box.path))
        for solve in (lambda: names.remove(web), lambda: names.put(web, [on(web, WIRE, 2)])):
            with box.serving(53, kind="udp", address=str(INSIDE)):
                names.put(web, [on(web, WIRE, 2)])
                assert ["web"] == list(names.errors)
                names.put(web, [on(web, WIRE, 2)])
                assert ["web"] == list(names.errors)
            solve()
            assert {} == names.errors


def test_a_namespace_made_anew_is_listened_in():
    """And no longer in the one before it."""
    with listening("before", "after") as (names, server, before, after):
        for space in (before, before, after):
            web = sandbox("web", netns=str(space.path))
            names.put(web, [on(web, WIRE, 2)])
            assert str(INSIDE) in inside(space)
        assert str(INSIDE) not in inside(before)

        names.remove(web)
        assert {} == server.sockets
