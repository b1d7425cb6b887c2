"""Two hosts on an underlay that say what they want of each other, and a container behind each.

    box a --- host a === underlay === host b --- box b

Nothing of Seaway but plans and the kernel: ``settle()`` applies what a side wants, and checks
that a second plan is empty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from ipaddress import ip_address, ip_network

from seaway.kernel import netns, observe
from seaway.kernel.apply import Applier
from seaway.plan.diff import Diff, diff
from seaway.plan.resources import Resource
from tests.support.netns import Namespace, cable, namespaces

MTU = 1500


class Side:
    """One of the two hosts.

    Attributes:
        number: 1 or 2, in all its addresses.
        host, box: Its namespaces; the box has 10.78.<number>.2 and fd78:<number>::2.
        wanted: To be set by the test.
    """

    def __init__(self, number: int, host: Namespace, box: Namespace) -> None:
        self.number, self.host, self.box = number, host, box
        self.wanted: Sequence[Resource] = ()
        with netns.inside(str(host.path)):
            self.applier = Applier()

    def look(self) -> Diff:
        """Compare what is wanted with what there is."""
        with netns.inside(str(self.host.path)):
            return diff(self.wanted, observe.host(self.applier.netlink))

    def apply(self) -> None:
        """Do what look() says, once."""
        with netns.inside(str(self.host.path)):
            plan = diff(self.wanted, observe.host(self.applier.netlink))
            self.applier.remove_links(self.applier.apply(plan))

    def settle(self) -> None:
        """Do it, and see that nothing is left to do."""
        self.apply()
        left = self.look().lines()
        assert not left, f"a second plan is not empty: {left}"

    def underlay(self, version: int) -> str:
        """Return its address there."""
        return f"192.0.2.{self.number}" if version == 4 else f"2001:db8::{self.number}"


@contextmanager
def two_hosts() -> Iterator[tuple[Side, Side]]:
    """Make them; what they have made of their own is gone at the end."""
    with namespaces("a", "b", "box-a", "box-b") as (a, b, box_a, box_b):
        cable(a, "eth0", "192.0.2.1/24,2001:db8::1/64", b, "eth0", "192.0.2.2/24,2001:db8::2/64")
        sides = (Side(1, a, box_a), Side(2, b, box_b))
        for side in sides:
            n = side.number
            cable(
                *(side.host, "box", f"10.78.{n}.1/24,fd78:{n}::1/64"),
                *(side.box, "eth0", f"10.78.{n}.2/24,fd78:{n}::2/64"),
            )
            side.host.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
            side.box.run(f"ip route add default via 10.78.{n}.1")
            side.box.run(f"ip route add default via fd78:{n}::1")
        try:
            yield sides
        finally:
            for side in sides:
                side.wanted = ()
                side.apply()
                side.applier.close()


def block(side: Side, version: int):
    """Return the addresses behind *side*."""
    return ip_network(f"10.78.{side.number}.0/24" if version == 4 else f"fd78:{side.number}::/64")


def tunnel_address(side: Side, version: int):
    """Return its own address on every tunnel."""
    return ip_address(
        f"169.254.64.{side.number}" if version == 4 else f"fe80::5357:0:{side.number}"
    )


def talk(a: Side, b: Side) -> None:
    """See that each box reaches the other, by both IP versions, and is seen as itself."""
    with b.box.serving(80), b.box.serving(81, address="::"):
        assert f"10.78.{a.number}.2" == a.box.ask(f"10.78.{b.number}.2", 80)
        assert f"fd78:{a.number}::2" == a.box.ask(f"fd78:{b.number}::2", 81)
