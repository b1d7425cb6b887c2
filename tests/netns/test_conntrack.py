"""Flows are cut when their port moves, and no others.

outside 192.0.2.200 --- 192.0.2.1 eth0 host          a, b (to be attached)
        2001:db8::200   2001:db8::1
"""

from __future__ import annotations

import errno
from collections import Counter
from dataclasses import replace

import pytest

from seaway.errors import KernelError
from seaway.kernel import conntrack
from seaway.kernel.netlink import Netlink
from tests.support.model import network, on, sandbox
from tests.support.netns import cable, namespaces
from tests.support.world import world

FRONT, BACK = network("front", 1), network("back", 2)
PORT = 5353
TALK = """
import socket, sys
for place in sys.argv[1:]:
    kind, _, where = place.partition("/")
    address, _, port = where.rpartition("_")
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    s = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
    s.settimeout(0.1)
    try:
        s.connect((address, int(port)))
        s.send(b"?")
    except OSError:
        pass
"""


@pytest.fixture
def site():
    """The machines, the host with a second address, and a world with two networks."""
    with namespaces("outside", "host", "a", "b") as (outside, host, a, b):
        cable(
            *(outside, "eth0", "192.0.2.200/24,2001:db8::200/64"),
            *(host, "eth0", "192.0.2.1/24,192.0.2.77/24,2001:db8::1/64"),
        )
        with world(host) as it:
            it.outside, it.host, it.a, it.b = outside, host, a, b
            it.networks = [FRONT, BACK]
            it.settle()
            yield it


def box(space, name, *publish):
    """A sandbox in one of the test's namespaces."""
    return sandbox(name, list(publish), netns=str(space.path))


def say(space, *places):
    """Send a datagram, or begin a connection, to each "udp/ADDRESS_PORT"; answers do not matter."""
    space.python(TALK, *places)


def flows(site, version=4, port=PORT):
    """UDP flows to *port* as the host tracks them: a flow that was cut and came back differs."""
    found = conntrack.udp_flows(site.applier.conntrack, version)
    return {str(flow.to[0]): flow.id for flow in found if flow.to[1] == port}


def test_flows_of_others_to_the_same_port_stay(site):
    """A port is published that containers and the host itself use elsewhere: only flows to an
    address of this host begin anew."""
    web, db = box(site.a, "web", f"{PORT}:53/udp"), box(site.b, "db")
    site.put(db, on(db, FRONT, 3))
    site.settle()
    say(site.b, f"udp/192.0.2.200_{PORT}", f"udp/2001:db8::200_{PORT}")
    say(site.host, f"udp/192.0.2.200_{PORT + 1}")
    say(site.outside, f"udp/192.0.2.1_{PORT}", f"udp/2001:db8::1_{PORT}")
    before = flows(site), flows(site, 6)
    assert {"192.0.2.200", "192.0.2.1"} == before[0].keys()
    assert {"2001:db8::200", "2001:db8::1"} == before[1].keys()

    site.put(web, on(web, FRONT, 2))
    site.settle()

    assert {"192.0.2.200": before[0]["192.0.2.200"]} == flows(site)
    assert {"2001:db8::200": before[1]["2001:db8::200"]} == flows(site, 6)
    assert {"192.0.2.200"} == flows(site, port=PORT + 1).keys()


@pytest.mark.parametrize("ports", [f"{PORT}:53/udp", "5350-5359:5350-5359/udp"])
def test_the_same_port_of_another_address_stays(site, ports):
    """Two containers with one port on two addresses of the host: one comes, moves and goes
    without cutting the other's flow."""
    web, db = box(site.a, "web", f"192.0.2.1:{ports}"), box(site.b, "db")
    site.put(web, on(web, FRONT, 2))
    site.put(db, on(db, FRONT, 3))
    site.settle()
    say(site.outside, f"udp/192.0.2.1_{PORT}", f"udp/192.0.2.77_{PORT}")
    first = flows(site)
    assert {"192.0.2.1", "192.0.2.77"} == first.keys()

    published = replace(box(site.b, "db", f"192.0.2.77:{ports}"), id=db.id)
    for attachments in ([on(db, FRONT, 3)], [on(db, BACK, 3, "eth1")]):
        site.put(published, *attachments)
        site.settle()
        assert {"192.0.2.1": first["192.0.2.1"]} == flows(site)
        say(site.outside, f"udp/192.0.2.77_{PORT}")
        assert {"192.0.2.1", "192.0.2.77"} == flows(site).keys()
    site.sandboxes.pop("db")
    site.settle()
    assert {"192.0.2.1": first["192.0.2.1"]} == flows(site)


def test_what_did_not_move_stays(site):
    """A port whose element is made again, as after somebody flushed the map, keeps its flows."""
    web = box(site.a, "web", f"{PORT}:53/udp")
    site.put(web, on(web, FRONT, 2))
    site.settle()
    say(site.outside, f"udp/192.0.2.1_{PORT}", f"udp/2001:db8::1_{PORT}")
    before = flows(site), flows(site, 6)
    assert 1 == len(before[0]) == len(before[1])

    for digit in "46":
        site.host.run(f"nft flush map inet seaway publish_any{digit}")
    site.settle()

    assert before == (flows(site), flows(site, 6))


@pytest.mark.parametrize("version", [4, 6])
def test_the_kernel_s_filter_agrees_with_a_full_list(site, monkeypatch, version):
    """For every port the same flows, of UDP alone, and the kernel sends no more than those."""
    address = {4: "192.0.2.1", 6: "2001:db8::1"}[version]
    ports = (53, PORT, 0x3514, 65535)  # the third is 5173, and its bytes swapped are 0x1435
    say(site.outside, *(f"udp/{address}_{port}" for port in (*ports, 0x1435)))
    say(site.outside, *(f"tcp/{address}_{port}" for port in ports))
    sock = site.applier.conntrack
    seen = Counter()
    dump = Netlink.dump

    def unfiltered(self, kind, body):
        return dump(self, kind, body[:4])  # struct nfgenmsg

    def counted(self, kind, body):
        for found in dump(self, kind, body):
            seen["all"] += 1
            yield found

    monkeypatch.setattr(Netlink, "dump", unfiltered)
    every = list(conntrack.udp_flows(sock, version))
    assert {*ports, 0x1435} == {flow.to[1] for flow in every}
    monkeypatch.setattr(Netlink, "dump", counted)
    assert every == list(conntrack.udp_flows(sock, version))
    assert len(ports) + 1 == seen.pop("all")
    for port in (*ports, 1):
        found = list(conntrack.udp_flows(sock, version, port))
        assert [flow for flow in every if flow.to[1] == port] == found
    assert len(ports) == seen["all"]


def test_a_range_is_one_look_at_the_table(site, monkeypatch):
    """A thousand ports are published without asking the kernel a thousand times."""
    web = box(site.a, "web", "5000-5999:5000-5999/udp")
    say(site.outside, f"udp/192.0.2.1_{PORT}", "udp/192.0.2.1_6000")
    site.put(web, on(web, FRONT, 2))
    looks = Counter()
    dump = Netlink.dump

    def counted(self, kind, body):
        looks[self] += 1
        return dump(self, kind, body)

    monkeypatch.setattr(Netlink, "dump", counted)
    site.kernel.audit("the test")

    assert 2 == looks[site.applier.conntrack], "one for each family"
    assert {} == flows(site)
    assert {"192.0.2.1"} == flows(site, port=6000).keys()


def test_a_kernel_without_the_filter(site, monkeypatch):
    """Before Linux 5.8 it is refused: then the flows are picked out here."""
    say(site.outside, f"udp/192.0.2.1_{PORT}", f"udp/192.0.2.1_{PORT + 1}")
    dump = Netlink.dump

    def old(self, kind, body):
        if len(body) > 4:  # struct nfgenmsg
            raise KernelError("dump", "conntrack", errno.EOPNOTSUPP)
        return dump(self, kind, body)

    monkeypatch.setattr(Netlink, "dump", old)
    (found,) = conntrack.udp_flows(site.applier.conntrack, 4, PORT)
    assert PORT == found.to[1]
