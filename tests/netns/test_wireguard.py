"""WireGuard between two hosts, by the kernel and by wireguard-go.

box a --- host a === underlay (IPv4 and IPv6) === host b --- box b
"""

from __future__ import annotations

import base64
import itertools
import os
import signal
import stat
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from seaway.errors import KernelError, Unsupported
from seaway.kernel import netns, observe, wireguard
from seaway.plan.diff import Diff
from seaway.plan.resources import (
    Link,
    LinkAddress,
    LinkKind,
    Route,
    WireGuardDevice,
    WireGuardPeer,
    describe,
)
from tests.support.ears import Ears
from tests.support.netns import Refused, wait_until
from tests.support.tunnel import Side, block, talk, tunnel_address, two_hosts
from tests.support.wireguard import WAYS, WIREGUARD_GO, needs_wireguard, running, use

MTU = 1420
PORT = 7904
_serial = itertools.count()


IN_A_PROCESS = pytest.mark.parametrize("sides", [WIREGUARD_GO], indirect=True)
"""For tests of what the kernel's WireGuard cannot suffer."""


class Keys:
    """A key for each side, and the name of each side's link, used once."""

    def __init__(self, folder) -> None:
        batch = f"{os.getpid() % 100000}{next(_serial) % 1000}"
        self.link = {n: f"sww-t{n}{batch}" for n in (1, 2)}
        self.path = {n: folder / f"{n}.key" for n in (1, 2)}
        self.public = {n: wireguard.make_key(self.path[n]) for n in (1, 2)}

    def device(self, side: Side, **more) -> tuple[Link, WireGuardDevice]:
        """A side's link, with its key."""
        name = self.link[side.number]
        public, path = self.public[side.number], str(self.path[side.number])
        key = WireGuardDevice(link=name, private_key_path=path, public_key=public, port=PORT)
        link = Link(name=name, kind=LinkKind.WIREGUARD, mtu=MTU)
        return link, replace(key, **more)

    def peer(self, side: Side, other: Side, family: int = 4) -> WireGuardPeer:
        """The other as a side knows it."""
        return WireGuardPeer(
            link=self.link[side.number],
            public_key=self.public[other.number],
            endpoint=(ip_address(other.underlay(family)), PORT),
            allowed=(*(block(other, 4), ip_network(tunnel_address(other, 4)), block(other, 6)),),
        )

    def wants(self, side: Side, other: Side, family: int = 4):
        """All that a side wants to reach the other."""
        name = self.link[side.number]
        yield from self.device(side)
        yield LinkAddress(link=name, address=tunnel_address(side, 4), prefixlen=32)
        yield self.peer(side, other, family)
        for version in (4, 6):
            yield Route(to=block(other, version), link=name)


@pytest.fixture(scope="module")
def site():
    """The machines."""
    with two_hosts() as both:
        yield both


@pytest.fixture(params=WAYS)
def sides(request, site, monkeypatch, tmp_path):
    """Two hosts without any tunnel, before and after, and their keys."""
    use(request.param, monkeypatch)
    a, b = site
    a.keys = b.keys = keys = Keys(tmp_path)
    a.way = request.param
    yield a, b
    for side in site:
        side.wanted = ()
        side.settle()
        wireguard.end(keys.link[side.number])  # where one was killed, its socket is left
        wait_until(lambda name=keys.link[side.number]: not running(name))


@pytest.fixture
def joined(sides):
    """Two hosts with a tunnel over IPv4."""
    a, b = sides
    a.wanted, b.wanted = [*a.keys.wants(a, b)], [*a.keys.wants(b, a)]
    a.settle()
    b.settle()
    return a, b


def seen(side):
    """Return the one peer a side has."""
    with netns.inside(str(side.host.path)):
        (peer,) = wireguard.peers(side.keys.link[side.number])
    return peer


def test_boxes_talk(joined):
    """Both IP versions inside; both sides tell of a handshake, and of bytes."""
    a, b = joined

    talk(a, b)
    talk(b, a)

    for side in joined:
        peer = seen(side)
        assert peer.handshake > 0
        assert peer.received > 0
        assert peer.sent > 0


def test_boxes_talk_over_ipv6(sides):
    """An underlay of IPv6 alone does."""
    a, b = sides
    a.wanted, b.wanted = [*a.keys.wants(a, b, 6)], [*a.keys.wants(b, a, 6)]
    a.settle()
    b.settle()

    talk(a, b)

    assert (ip_address("2001:db8::2"), PORT) == seen(a).endpoint


def test_the_link_is_as_it_should_be(joined):
    """The MTU and queue of any tunnel, no address of the kernel's own, no filter, one process."""
    a, _ = joined
    link = a.keys.link[1]

    shown = a.host.run(f"ip -d link show dev {link}")

    assert f"mtu {MTU} " in shown
    assert "qlen 1000" in shown
    assert not a.host.run(f"ip -o -6 address show dev {link}")
    assert "0" == a.host.run(f"sysctl -n net.ipv4.conf.{link}.rp_filter").strip()
    assert (a.way == wireguard.WIREGUARD_GO) == len(running(link))


def test_bulk_data_passes(joined):
    """Packets of the whole MTU, by TCP."""
    a, b = joined
    with b.box.serving(80, "x" * 60000):
        got = a.box.python(
            "import socket\n"
            "s = socket.create_connection(('10.78.2.2', 80), 3); n = 0\n"
            "while d := s.recv(65536): n += len(d)\n"
            "print(n)"
        )

    assert "60000" == got


def test_nothing_is_said_in_clear(joined):
    """What is on the wire has none of what the boxes say."""
    a, b = joined
    sniffer = (
        "import socket\n"
        "s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))\n"
        "s.bind(('eth0', 0)); s.settimeout(5); print('ready', flush=True); n = 0\n"
        "while n < 4:\n"
        "    d = s.recv(65536); n += 1; print(b'secret' in d, flush=True)\n"
    )
    with b.host.started("python3", "-c", sniffer) as sniffing, b.box.serving(80, "secret" * 99):
        assert sniffing.stdout.readline() == "ready\n"
        assert a.box.ask("10.78.2.2", 80).startswith("secret")
        assert ["False\n"] * 4 == [sniffing.stdout.readline() for _ in range(4)]


def test_applying_twice_is_fine(joined):
    """Carried out again by somebody who did not look, a plan changes nothing."""
    a, b = joined
    before = running(a.keys.link[1])
    with netns.inside(str(a.host.path)):
        a.applier.apply(Diff(create=tuple(a.wanted)))
        a.applier.apply(Diff(change=tuple((item, item) for item in a.wanted)))

    a.settle()

    assert before == running(a.keys.link[1])
    talk(a, b)


BREAK = {
    "peer removed": "wg set {link} peer {peer} remove",
    "peer's addresses": "wg set {link} peer {peer} allowed-ips 10.78.2.0/25",
    "peer's keepalive": "wg set {link} peer {peer} persistent-keepalive 7",
    "peer added": "wg set {link} peer {stranger} allowed-ips 10.99.0.0/24",
    "peer's addresses taken": "wg set {link} peer {stranger} allowed-ips 10.78.2.0/24",
    "key removed": "wg set {link} private-key /dev/null",
    "port changed": "wg set {link} listen-port 7999",
    "link deleted": "ip link del {link}",
    "link down": "ip link set {link} down",
    "link's MTU": "ip link set {link} mtu 1300",
    "route deleted": "ip route del 10.78.2.0/24",
    "address deleted": "ip address del 169.254.64.1/32 dev {link}",
}


@pytest.mark.parametrize("kind", BREAK)
def test_what_others_break_is_put_right(joined, kind):
    """One look finds it and repairs it, and packets flow again."""
    a, b = joined
    stranger = "3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08="
    link, peer = a.keys.link[1], a.keys.public[2]
    a.host.run(BREAK[kind].format(link=link, peer=peer, stranger=stranger))
    assert a.look()

    a.settle()

    talk(a, b)
    assert peer == seen(a).public_key


@IN_A_PROCESS
def test_a_wireguard_go_that_was_killed_is_made_anew(joined):
    """Its link goes with it, and one look brings all of it back."""
    a, b = joined
    (pid,) = running(a.keys.link[1])
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: a.keys.link[1] not in a.host.run("ip -o link"))

    a.settle()

    assert [pid] != running(a.keys.link[1])
    talk(a, b)


@IN_A_PROCESS
def test_a_wireguard_go_that_was_killed_is_heard_of(joined):
    """Its link's end is announced, which asks for the look that repairs it."""
    a, _ = joined
    link = a.keys.link[1]
    ears = Ears(a.host)
    ears.known.update({item.key: item for item in a.wanted})

    def work():
        (pid,) = running(link)
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: link not in a.host.run("ip -o link"))

    assert f"link {link} was changed" in ears.after(work)


@IN_A_PROCESS
def test_a_wireguard_go_whose_socket_was_deleted_is_made_anew(joined):
    """Its socket deleted, it ends, as it says in its book; one look brings it back."""
    a, b = joined
    (wireguard.SOCKETS / f"{a.keys.link[1]}.sock").unlink()
    wait_until(lambda: not running(a.keys.link[1]))

    a.settle()

    talk(a, b)


def test_a_stranger_with_our_name_is_replaced(sides):
    """A link of another kind, or a tun with nobody behind it, does not pass for ours."""
    a, b = sides
    a.host.run(f"ip tuntap add dev {a.keys.link[1]} mode tun")
    b.host.run(f"ip link add {a.keys.link[2]} type bridge")
    a.wanted, b.wanted = [*a.keys.wants(a, b)], [*a.keys.wants(b, a)]

    for side in (a, b):
        side.settle()

    talk(a, b)


def test_an_endpoint_of_the_plan_is_set(joined):
    """The other host moves: the plan's new address is told, though the old one was in use."""
    a, b = joined
    talk(a, b)
    b.host.run("ip address replace 192.0.2.22/24 dev eth0")
    moved = replace(a.keys.peer(a, b), endpoint=(ip_address("192.0.2.22"), PORT))
    with netns.inside(str(a.host.path)):
        a.applier.apply(Diff(change=((a.keys.peer(a, b), moved),)))

    assert (ip_address("192.0.2.22"), PORT) == seen(a).endpoint


def test_a_peer_that_roams_is_left_where_it_is(joined):
    """Heard from another address, it is answered there, and no look takes that back."""
    a, b = joined
    talk(a, b)
    wrong = replace(a.keys.peer(a, b), endpoint=(ip_address("192.0.2.77"), 1))
    a.wanted = [wrong if isinstance(w, WireGuardPeer) else w for w in a.wanted]

    assert not a.look()

    behind = replace(a.keys.peer(a, b), endpoint=None)
    a.wanted = [behind if isinstance(w, WireGuardPeer) else w for w in a.wanted]
    assert not a.look()


def test_a_silent_peer_gets_the_endpoint_of_the_plan(sides):
    """Nothing was ever heard of it, so the plan knows better."""
    a, b = sides
    a.wanted = [*a.keys.device(a), a.keys.peer(a, b)]
    a.settle()
    a.host.run(f"wg set {a.keys.link[1]} peer {a.keys.public[2]} endpoint 192.0.2.77:1")
    assert a.look()

    a.settle()

    assert (ip_address("192.0.2.2"), PORT) == seen(a).endpoint


def test_a_key_is_exchanged(joined):
    """Another key in the plan is another key on the link; peers stay."""
    a, b = joined
    a.keys.public[1] = wireguard.make_key(a.keys.path[1])
    a.wanted, b.wanted = [*a.keys.wants(a, b)], [*a.keys.wants(b, a)]
    a.settle()
    b.settle()

    talk(a, b)


def test_a_block_moves_to_another_peer(joined):
    """Whoever has it now gets its packets, in whatever order the two are told."""
    a, b = joined
    public = wireguard.make_key(a.keys.path[1].with_name("third"))
    third = replace(a.keys.peer(a, b), public_key=public, allowed=(block(b, 6),), endpoint=None)
    rest = replace(a.keys.peer(a, b), allowed=a.keys.peer(a, b).allowed[:2])

    a.wanted = [third, *(rest if isinstance(w, WireGuardPeer) else w for w in a.wanted)]
    a.settle()

    a.wanted = [*a.keys.wants(a, b)]
    a.settle()
    talk(a, b)


def test_a_port_that_is_taken_is_refused(sides):
    """The error says so; it works when the port is free."""
    a, b = sides
    a.wanted = [*a.keys.wants(a, b)]
    with a.host.serving(PORT, kind="udp"), pytest.raises(KernelError, match="in use"):
        a.apply()

    a.settle()


def test_a_bad_key_is_not_repeated(sides):
    """A file that holds no key is refused without telling what it holds."""
    a, b = sides
    a.keys.path[1].write_text("hunter2\n")
    a.wanted = [*a.keys.wants(a, b)]

    with pytest.raises(KernelError) as refusal:
        a.apply()

    assert "hunter2" not in str(refusal.value)
    assert "key" in str(refusal.value)


def test_nothing_is_left(joined):
    """Link, process and socket go with the plan."""
    a, b = joined
    a.wanted = ()

    a.settle()

    assert "sww-" not in a.host.run("ip -o link")
    assert "proto 86" not in a.host.run("ip route") + a.host.run("ip -6 route")
    wait_until(lambda: not running(a.keys.link[1]))
    assert not (wireguard.SOCKETS / f"{a.keys.link[1]}.sock").exists()
    with pytest.raises(Refused):
        talk(a, b)


def test_an_agent_that_starts_finds_what_is_there(joined):
    """Another Applier, as after a restart, has nothing to do and starts nothing."""
    a, _ = joined
    before = running(a.keys.link[1])
    with netns.inside(str(a.host.path)):
        found = observe.host(a.applier.netlink)

    assert {item.key for item in a.wanted} <= {item.key for item in found}
    assert before == running(a.keys.link[1])


def test_no_secret_is_in_a_plan(joined):
    """Neither in its lines nor in what is observed."""
    a, _ = joined
    secret = a.keys.path[1].read_text().strip()
    with netns.inside(str(a.host.path)):
        found = [*observe.host(a.applier.netlink), *a.wanted]

    assert secret not in "".join(map(describe, found)) + repr(found)
    assert 0o600 == stat.S_IMODE(a.keys.path[1].stat().st_mode)


@needs_wireguard
def test_keys(tmp_path):
    """Made in a file of one's own; the public one is found again from it."""
    path = tmp_path / "key"

    first = wireguard.make_key(path)

    assert first == wireguard.public_key(path)
    assert first != wireguard.make_key(path)
    path.write_text("no key\n")
    with pytest.raises(KernelError) as refusal:
        wireguard.public_key(path)
    assert "no key" not in str(refusal.value)
    with pytest.raises(KernelError, match="No such file"):
        wireguard.public_key(tmp_path / "gone")


def test_without_tools(monkeypatch, tmp_path):
    """What is missing is said, with what to do."""
    monkeypatch.setenv("PATH", str(tmp_path))

    assert "" == wireguard.available()
    assert "install wireguard-tools" in wireguard.why_not()
    with pytest.raises(Unsupported, match="install wireguard-tools"):
        wireguard.make_key(tmp_path / "key")


def test_a_thousand_peers(sides):
    """They are set by one command, and one look finds them as they should be."""
    a, _ = sides
    a.wanted = [*a.keys.device(a), *many(a, 1000)]

    a.settle()

    a.wanted = [*a.keys.device(a), *many(a, 990)]
    a.settle()


def many(side, count):
    """So many peers that nobody has ever seen."""
    for n in range(count):
        yield WireGuardPeer(
            link=side.keys.link[1],
            public_key=base64.b64encode(n.to_bytes(31, "big") + b"\1").decode(),
            endpoint=(ip_address("198.18.0.0") + n, PORT),
            allowed=(ip_network((int(ip_address("10.128.0.0")) + (n << 8), 24)),),
        )
