"""From the desired state to what the name server answers."""

from __future__ import annotations

from ipaddress import ip_address

from seaway.agent.names import INSIDE, Names, names_of, resolver_of
from seaway.dns.answer import Directory
from seaway.model.sandbox import Phase
from tests.support.core import FakeServer
from tests.support.model import macvlan, network, on, sandbox

FRONT, BACK = network("front", 1), network("back", 2)


def test_a_container_s_names():
    """Name first, then aliases, short id, hostname in full and its first label; each once."""
    web = sandbox("Web", hostname="www.example.org", container="feedbeef" * 8)

    assert (
        *("web", "db", "feedbeeffeed"),
        *("www.example.org", "www"),
    ) == names_of(web, ["db", "WEB"])
    assert ("web",) == names_of(sandbox("web"), [])


def test_the_resolver_is_one_gateway():
    """Of the network with the default route; inside the namespace where there is none of ours."""
    web = sandbox("web")

    assert ip_address("10.77.2.1") == resolver_of([on(web, FRONT, 2), on(web, BACK, 2, "eth1")])
    assert INSIDE == resolver_of([on(web, macvlan("wire", "192.0.2.0/24"), 2)])
    assert resolver_of([]) is None


def test_gateways_are_listened_on():
    """Both families, unless the host has no IPv6; no more once the network has gone."""
    server = FakeServer()
    names = Names(Directory(), server)
    names.networks([FRONT, macvlan("wire", "192.0.2.0/24", "192.0.2.1")], ipv6=True)

    assert {"10.77.1.1", "fd77:1::1"} == {str(a) for a in server.addresses}
    names.forget_network(FRONT)
    names.networks([BACK], ipv6=False)
    assert {"10.77.2.1"} == {str(a) for a in server.addresses}


def test_only_a_running_container_is_answered_for():
    """A created or stopped one has no names, but may ask (it is about to run)."""

    class Remembering(Directory):
        """Keeps what it was told last."""

        def put(self, owner, members, *args, **kwargs):
            """Remember."""
            self.last = members

    directory = Remembering()
    names = Names(directory, FakeServer())
    said = {}
    for phase in Phase:
        web = sandbox("web", phase=phase)
        names.put(web, [on(web, FRONT, 2)])
        (member,) = directory.last
        said[phase] = member.names
        assert 2 == len(member.asks_from)

    assert {Phase.CREATED: (), Phase.RUNNING: ("web",), Phase.STOPPED: ()} == said
