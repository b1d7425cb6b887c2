"""From a plan to the kernel and back: what was applied is what is observed.

    outside 192.0.2.200 --- 192.0.2.1 eth0 host          a, b (to be attached)

Every test ends with an empty second plan; ``settle()`` checks that each time.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from seaway.errors import KernelError, NotFound
from seaway.kernel import observe
from seaway.plan.resources import TABLE
from seaway.plan.sandboxes import veth_name
from tests.support.conversation import UDP_CLIENT, conversation
from tests.support.model import macvlan, network, on, sandbox, subnet
from tests.support.netns import cable, namespaces
from tests.support.world import world

FRONT, BACK = network("front", 1), network("back", 2)


@pytest.fixture
def site():
    """The machines, and the world of the host."""
    with namespaces("outside", "host", "a", "b") as (outside, host, a, b):
        cable(
            *(outside, "eth0", "192.0.2.200/24,2001:db8::200/64"),
            *(host, "eth0", "192.0.2.1/24,2001:db8::1/64"),
        )
        with world(host) as it:
            it.outside, it.host, it.a, it.b = outside, host, a, b
            it.networks = [FRONT, BACK]
            yield it


def box(space, name="web", publish=(), **more):
    """A sandbox in one of the test's namespaces."""
    return sandbox(name, publish, netns=str(space.path), **more)


def traces(site):
    """Whatever of ours is in the kernel."""
    return [*observe.host(site.applier.netlink), *observe.elements(observe.table(site.applier.nft))]


def names_of_links(space):
    """As ip(8) writes them, e.g. "eth0@if7"."""
    return [line.split(":")[1].strip() for line in space.run("ip -o link").splitlines()]


def test_a_second_look_finds_nothing_to_do(site):
    """Endpoints on two networks with every kind of port: applied once, and that was all."""
    ports = ["8080:80", "53:53/udp", "9000-9009:9000-9009", "7000-7002:70-72", "127.0.0.1:81:80"]
    ports += ["[::1]:82:80", "[2001:db8::1]:83:80", "84:80,from=192.0.2.0/24,from=2001:db8::/64"]
    web, db = box(site.a, "web", ports), box(site.b, "db", ["6379:6379/sctp"])
    site.put(web, on(web, FRONT, 2), on(web, BACK, 2, "eth1"))
    site.put(db, on(db, BACK, 3))

    first = site.settle()

    assert first.create
    assert not site.settle()


def test_applying_twice_is_fine(site):
    """The same plan carried out again, by somebody who did not look, changes nothing."""
    web = box(site.a, "web", ["8080:80", "9000-9009:9000-9009"])
    site.put(web, on(web, FRONT, 2), on(web, BACK, 2, "eth1"))
    plan = site.kernel.look()

    site.applier.apply(plan)
    site.applier.apply(plan)

    site.settle()


def test_an_endpoint_talks_and_is_reached(site):
    """Members reach each other and their gateway; a published port is reached from outside."""
    web, db = box(site.a, "web", ["8080:80"]), box(site.b, "db")
    site.put(web, on(web, FRONT, 2))
    site.put(db, on(db, FRONT, 3))
    site.settle()

    with site.a.serving(80), site.a.serving(81, address="::"):
        assert "10.77.1.3" == site.b.ask("10.77.1.2", 80)
        assert "fd77:1::3" == site.b.ask("fd77:1::2", 81)
        assert "192.0.2.200" == site.outside.ask("192.0.2.1", 8080)


def test_all_goes_when_nothing_is_wanted(site):
    """Without networks and sandboxes only what every host has is left."""
    bare = traces(site)
    site.networks = []
    site.settle()
    empty = traces(site)
    site.networks = [FRONT, BACK]
    web = box(site.a, "web", ["8080:80", "9000-9009:9000-9009/udp"])
    site.put(web, on(web, FRONT, 2), on(web, BACK, 2, "eth1"))
    site.settle()

    site.networks, site.sandboxes = [], {}
    site.settle()

    assert not bare
    assert empty == traces(site)
    assert ["lo"] == names_of_links(site.a)


def test_a_namespace_of_our_making(site):
    """It is made, configured, kept, and removed with everything in it."""
    path = str(site.folder / "made")
    web = sandbox("web", netns=path, made_netns=True, sysctls={"net.ipv4.ip_default_ttl": "77"})
    site.put(web, on(web, FRONT, 2))
    site.settle()
    inside = ["nsenter", f"--net={path}", "--"]

    assert "77" == site.host.run([*inside, "cat", "/proc/sys/net/ipv4/ip_default_ttl"]).strip()
    assert "10.77.1.2/32" in site.host.run([*inside, "ip", "-o", "address"])

    site.sandboxes = {}
    site.settle()

    assert [] == list(site.folder.iterdir())
    assert "swv-" not in site.host.run("ip -o link")


def test_a_macvlan_is_on_the_wire(site):
    """It has its own address there, talks to the neighbours, and goes with its endpoint."""
    wire = macvlan("wire", "192.0.2.0/24", "192.0.2.200")
    web = box(site.a)
    site.networks = [wire]
    site.put(web, on(web, wire, 77))
    site.settle()

    with site.outside.serving(80):
        assert "192.0.2.77" == site.a.ask("192.0.2.200", 80)
    assert "default via 192.0.2.200" in site.a.run("ip route")

    site.put(web)
    site.settle()

    site.sandboxes = {}
    site.settle()


def test_a_macvlan_applied_twice(site):
    """It is there already, up and with the name that the host's own link has: that is fine."""
    wire = macvlan("wire", "192.0.2.0/24", "192.0.2.200")
    web = box(site.a)
    site.networks = [wire]
    site.put(web, on(web, wire, 77))
    plan = site.kernel.look()

    site.applier.apply(plan)
    site.applier.apply(plan)

    site.settle()
    assert {"lo", "eth0"} == {name.split("@")[0] for name in names_of_links(site.a)}


def test_a_macvlan_without_its_parent_is_refused(site):
    """The error names the interface; other endpoints of the same plan stand all the same."""
    wire = macvlan("wire", "192.0.2.0/24", parent="eth7")
    web, db = box(site.a), box(site.b, "db")
    site.networks = [wire, FRONT]
    site.put(web, on(web, wire, 77))
    site.put(db, on(db, FRONT, 3))

    with pytest.raises(NotFound, match="eth7"):
        site.settle()

    assert "10.77.1.3/32" in site.b.run("ip -o address")
    site.sandboxes.pop("web")
    site.settle()


@pytest.mark.parametrize("mtu", ["1400", "9000"])
def test_another_mtu_is_set_at_both_ends(site, mtu):
    """A network's new MTU reaches the veth and its other end."""
    web = box(site.a)
    site.put(web, on(web, FRONT, 2))
    site.settle()

    wide = replace(FRONT, options={"mtu": mtu})
    site.networks = [wide]
    site.put(web, on(web, wide, 2))
    site.settle()

    assert f"mtu {mtu} " in site.host.run(
        f"ip -o link show {veth_name(on(web, FRONT, 2).endpoint)}"
    )
    assert f"mtu {mtu} " in site.a.run("ip -o link show eth0")


def test_the_default_route_moves(site):
    """Whoever has the highest priority has it, in both families; ports follow it."""
    web = box(site.a, "web", ["8080:80"])
    site.put(web, on(web, FRONT, 2), on(web, BACK, 2, "eth1"))
    site.settle()
    before = site.a.run("ip route show default") + site.a.run("ip -6 route show default")

    site.put(web, on(web, FRONT, 2, gw_priority=1), on(web, BACK, 2, "eth1"))
    site.settle()
    after = site.a.run("ip route show default") + site.a.run("ip -6 route show default")

    assert 2 == before.count("eth1")
    assert 2 == after.count("eth0")
    assert 2 == len(after.splitlines())
    with site.a.serving(80):
        assert "192.0.2.200" == site.outside.ask("192.0.2.1", 8080)


def test_the_default_route_survives_its_endpoint(site):
    """When the endpoint that has it goes, the next one gets it."""
    web = box(site.a, "web", ["8080:80"])
    site.put(web, on(web, BACK, 2), on(web, FRONT, 2, "eth1"))
    site.settle()

    site.put(web, on(web, FRONT, 2, "eth1"))
    site.settle()

    assert "dev eth1" in site.a.run("ip route show default")
    assert "dev eth1" in site.a.run("ip -6 route show default")
    assert "eth0" not in site.a.run("ip -o link")
    with site.a.serving(80):
        assert "192.0.2.200" == site.outside.ask("192.0.2.1", 8080)


def test_a_gateway_moves(site):
    """A network with another gateway address: the old one answers no more."""
    web = box(site.a)
    site.put(web, on(web, FRONT, 2))
    site.settle()

    moved = replace(FRONT, subnets=(subnet("10.77.1.0/24", "10.77.1.254"), FRONT.subnets[1]))
    site.networks = [moved]
    site.put(web, on(web, moved, 2))
    site.settle()

    addresses = site.host.run("ip -o address show swg0")
    assert "10.77.1.254/32" in addresses
    assert "10.77.1.1/32" not in addresses
    assert "via 10.77.1.254" in site.a.run("ip route show default")


def test_an_address_moves_from_one_container_to_another(site):
    """The new holder is reached at once; the old one is not believed any more."""
    web, db = box(site.a), box(site.b, "db")
    site.put(web, on(web, FRONT, 2))
    site.put(db, on(db, FRONT, 3))
    site.settle()

    taken = {"v4": ip_address("10.77.1.2"), "v6": ip_address("fd77:1::2")}
    site.sandboxes.pop("web")
    site.put(db, on(db, FRONT, 3, **taken))
    site.settle()

    with site.b.serving(80):
        assert "ok" == site.host.python(
            "import socket; socket.create_connection(('10.77.1.2', 80), 2); print('ok')"
        )


def test_a_udp_flow_moves_with_its_port(site):
    """A client that keeps sending from one port is answered by the new container at once."""
    web, db = box(site.a, "web", ["5353:53/udp"]), box(site.b, "db")
    site.put(web, on(web, FRONT, 2))
    site.put(db, on(db, FRONT, 3))
    site.settle()
    with (
        site.a.serving(53, "old", "udp"),
        site.b.serving(53, "new", "udp"),
        conversation(site.outside, UDP_CLIENT, "192.0.2.1", "5353") as ask,
    ):
        assert "old" == ask()

        site.put(replace(web, asked=(), published=()), on(web, FRONT, 2))
        site.put(replace(web, id=db.id, name="db", netns=db.netns), on(db, FRONT, 3))
        site.settle()

        assert "new" == ask()


def test_a_set_whose_type_changed_is_made_anew(site):
    """An upgrade that types a set differently replaces the table, elements and all, in one look."""
    web = box(site.a, "web", ["8080:80"])
    site.put(web, on(web, FRONT, 2))
    site.settle()
    rules = site.applier.nft
    rules.run(f"delete table inet {TABLE}")
    rules.run(
        f"table inet {TABLE} {{ set from4 {{ type ipv4_addr; }}\n"
        "set odd { type ipv4_addr; elements = { 10.0.0.1 } \n}\n}"
    )

    site.kernel.audit("upgrade")
    site.kernel.audit("the rest")

    assert [] == site.todo()
    assert "set odd" not in rules.run(f"list table inet {TABLE}")


BREAK = {
    "table flushed": ("nft flush table inet seaway", 1),
    "table deleted": ("nft delete table inet seaway", 10),
    "rule deleted": ("nft flush chain inet seaway raw_prerouting", 1),
    "rule added": ("nft insert rule inet seaway forward accept", 1),
    "chain added": ("nft add chain inet seaway mine", 1),
    "set flushed": ("nft flush set inet seaway from4", 2),
    "port deleted": ("nft delete element inet seaway publish_any4 {{ tcp . 8080 }}", 1),
    "port added": ("nft add element inet seaway publish_any4 {{ tcp . 99 : 10.77.1.2 . 80 }}", 1),
    "route deleted": ("ip route del 10.77.1.2", 1),
    "route changed": ("ip route replace 10.77.1.2 dev lo proto 86", 1),
    "route added": ("ip route add 10.99.0.1 dev lo proto 86", 1),
    "subnet's route deleted": ("ip route del unreachable 10.77.1.0/24 metric 4000000000", 1),
    "IPv6 route deleted": ("ip -6 route del fd77:1::2", 1),
    "gateway's link down": ("ip link set swg0 down", 1),
    "gateway's link deleted": ("ip link del swg0", 5),
    "gateway's address deleted": ("ip address del 10.77.1.1/32 dev swg0", 1),
    "gateway's address added": ("ip address add 10.77.1.9/32 dev swg0", 1),
    "link down": ("ip link set {veth} down", 2),
    "link deleted": ("ip link del {veth}", 8),
    "link's mtu": ("ip link set {veth} mtu 1300", 1),
    "link's MAC": ("ip link set {veth} address 02:00:00:00:00:09", 1),
    "neighbour deleted": ("ip neigh del 10.77.1.2 dev {veth}", 1),
    "router's address deleted": ("ip address del fe80::1/64 dev {veth}", 1),
    "forwarding off": ("sysctl -qw net.ipv4.ip_forward=0", 1),
    "IPv6 forwarding off": ("sysctl -qw net.ipv6.conf.all.forwarding=0", 1),
}


@pytest.mark.parametrize("kind", BREAK)
def test_what_others_break_on_the_host_is_put_right(site, kind):
    """One look finds it and repairs all of it, and packets flow again."""
    command, at_least = BREAK[kind]
    web = box(site.a, "web", ["8080:80"])
    site.put(web, on(web, FRONT, 2), on(web, BACK, 2, "eth1"))
    site.settle()

    site.host.run(command.format(veth=veth_name(on(web, FRONT, 2).endpoint)))

    assert len(site.todo()) >= at_least
    site.settle()
    with site.a.serving(80), site.a.serving(81, address="::"):
        assert "192.0.2.200" == site.outside.ask("192.0.2.1", 8080)
        hello = "import socket; socket.create_connection(('{}', {}), 2)"
        site.host.python(hello.format("10.77.1.2", 80))
        site.host.python(hello.format("fd77:1::2", 81))


@pytest.mark.parametrize(
    "command",
    [
        "ip link set eth0 down",
        "ip link del eth0",
        "ip address flush dev eth0",
        "ip route del default",
        "ip route del 10.77.1.1",
        "ip -6 route del default",
        "ip neigh flush dev eth0 nud permanent",
        "ip link set eth0 address 02:00:00:00:00:09",
        "ip link set eth0 name eth9",
    ],
)
def test_what_is_broken_inside_is_put_right(site, command):
    """A container that spoils its own end gets it back with the next full look."""
    web = box(site.a)
    site.put(web, on(web, FRONT, 2))
    site.settle()

    try:
        site.a.run(command)
    except AssertionError:
        site.a.run("ip link set eth0 down")
        site.a.run(command)

    assert site.todo()
    site.settle()
    with site.a.serving(80), site.a.serving(81, address="::"):
        hello = "import socket; socket.create_connection(('{}', {}), 2)"
        site.host.python(hello.format("10.77.1.2", 80))
        site.host.python(hello.format("fd77:1::2", 81))


def test_what_is_not_ours_is_left_alone(site):
    """Other tables, links, addresses, routes and neighbours are neither seen nor touched."""
    for command in (
        "nft add table inet other",
        "nft add set inet other from4 { type ipv4_addr; }",
        "nft add element inet other from4 { 10.0.0.1 }",
        "ip link add mine type bridge",
        "sysctl -qw net.ipv6.conf.mine.accept_dad=0",  # no address changes while we look
        "ip address add 10.50.0.1/24 dev mine",
        "ip link set mine up",
        "ip route add 10.51.0.0/24 via 10.50.0.2 dev mine onlink",
        "ip neigh add 10.50.0.3 lladdr 02:00:00:00:00:03 dev mine nud permanent",
    ):
        site.host.run(command)
    listings = ("nft list table inet other", "ip -o address show mine", "ip route", "ip neigh")
    before = [site.host.run(command) for command in listings]
    web = box(site.a)
    site.put(web, on(web, FRONT, 2))
    site.settle()

    site.networks, site.sandboxes = [], {}
    site.settle()

    after = [site.host.run(command) for command in listings]
    assert before[:2] == after[:2]
    assert "10.51.0.0/24 via 10.50.0.2 dev mine" in after[2]
    assert "10.50.0.3 dev mine lladdr 02:00:00:00:00:03 PERMANENT" in after[3]


def test_a_refused_sandbox_does_not_harm_the_others(site):
    """What one namespace refuses is reported; everybody else gets what is theirs, and what
    should go goes."""
    web, db, bad = box(site.a, "web", ["8080:80"]), box(site.b, "db"), box(site.b, "bad")
    site.put(web, on(web, FRONT, 2))
    site.settle()

    site.sandboxes = {}
    site.put(bad, on(bad, FRONT, 4, ifname="lo"))
    site.put(db, on(db, FRONT, 3))
    with pytest.raises(KernelError, match="an interface lo of its own"):
        site.kernel.audit("the test")
    found = site.host.run("ip -o link")
    assert veth_name(on(web, FRONT, 2).endpoint) not in found
    assert veth_name(on(db, FRONT, 3).endpoint) in found
    assert "10.77.1.3" in site.b.run("ip -o address show dev eth0")

    site.sandboxes = {}
    site.settle()
    assert "swv-" not in site.host.run("ip -o link")


def test_a_port_answers_members_of_every_network(site):
    """A container on two networks answers clients on both at its published port, also where
    reverse path filtering is on, as systemd has it."""
    site.host.run("sysctl -qw net.ipv4.conf.default.rp_filter=2")
    web, db = box(site.a, "web", ["8080:80", "8081:81"]), box(site.b, "db")
    site.put(web, on(web, FRONT, 2), on(web, BACK, 2, "eth1"))
    for there in (FRONT, BACK):
        site.put(db, on(db, there, 3))
        site.settle()

        with site.a.serving(80), site.a.serving(81, address="::"):
            assert site.b.ask("192.0.2.1", 8080)
            assert site.b.ask("2001:db8::1", 8081)
        site.sandboxes.pop("db")
        site.settle()
