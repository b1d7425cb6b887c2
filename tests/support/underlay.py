"""Underlays that a lab does not have by itself: hosts on a second link, behind a router or a NAT.

Put them there before the cluster is formed, which then knows their addresses:

    with running_lab("x", 3) as lab, second_link(lab, "host2", "host3", nat=True):
        cluster.form(lab, lifecycle.silent, stores=1)  # those behind a NAT run none

          wire                        side
    host1, outside --- router --- host2, host3
     192.0.2.0/24   .100     .254   198.51.100.0/24
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress

from seaway.lab import wire
from seaway.lab.topology import OUTSIDE, WIRE, Lab, Machine
from seaway.model.names import mac_for
from tests.support.netns import Namespace, Refused, namespaces, wait_until

SIDE_4, SIDE_6 = "198.51.100.{}", "2001:db8:51de::{}"  # TEST-NET-2, RFC 5737; RFC 3849
ROUTER_4, ROUTER_6 = "192.0.2.100", "2001:db8:5ea::100"
_SIDE_6_LINK = "2001:db8:51de::/64"
_ROUTER_NUMBER = 254

_NAT = """
table ip nat { chain post { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }
table ip6 nat { chain post { type nat hook postrouting priority 100; oifname eth0 masquerade; }; }
"""


def side_address(host: str, version: int = 4) -> str:
    """Where a host is on the second link."""
    return (SIDE_4 if version == 4 else SIDE_6).format(host.removeprefix("host"))


@contextmanager
def second_link(lab: Lab, *hosts: str, nat: bool = False) -> Iterator[Namespace]:
    """Put *hosts* on a link of their own while this lasts.

    Args:
        nat: They reach the others, who see the router's address, and nobody reaches them
            first.  Without, the router just routes, both ways.

    Yields:
        The router's namespace: eth0 is on the wire, eth1 on the second link.
    """
    cables = Namespace(lab.wire_netns.name)
    moved = [lab.host(name) for name in hosts]
    stayed = [m for m in lab.machines if m.name not in hosts]
    with namespaces("router") as (router,):
        cables.run("ip link add side type bridge stp_state 0 forward_delay 0 mcast_snooping 0")
        cables.run("ip link set side up")
        _plug(router, cables, "eth0", WIRE, (f"{ROUTER_4}/24", f"{ROUTER_6}/64"))
        _plug(router, cables, "eth1", "side", _on_side(_ROUTER_NUMBER))
        _route(router, lab, nat=nat)
        try:
            _move(cables, moved)
            if not nat:
                _teach(stayed, "replace")
            yield router
        finally:
            if not nat:
                _teach(stayed, "del")
            _move_back(lab, cables, moved)
            cables.run("ip link del side")


def _on_side(number: int | str) -> tuple[str, str]:
    return f"{SIDE_4.format(number)}/24", f"{SIDE_6.format(number)}/64"


def _plug(
    router: Namespace, cables: Namespace, link: str, bridge: str, addresses: Sequence[str]
) -> None:
    port = f"router-{bridge}"
    # The same each time: neighbours remember it.
    peer = f"{link} address {mac_for(f'lab/{cables.name}/{bridge}')} netns {router.name}"
    cables.run(f"ip link add {port} type veth peer name {peer}")
    cables.run(f"ip link set {port} master {bridge} up")
    router.run(f"sysctl -eqw net.ipv6.conf.{link}.accept_dad=0")
    for address in addresses:
        router.run(f"ip addr add {address} dev {link}")
    router.run(f"ip link set {link} up")
    wait_until(lambda: "state UP" in router.run(f"ip -o link show dev {link}"))


def _route(router: Namespace, lab: Lab, *, nat: bool) -> None:
    router.run("sysctl -qw net.ipv4.ip_forward=1 net.ipv6.conf.all.forwarding=1")
    outside = lab.machine(OUTSIDE)
    for gateway in (outside.v4.ip, outside.v6.ip):
        router.run(f"ip route replace default via {gateway} dev eth0")
    if nat:
        router.run("nft -f -", stdin=_NAT)


def _move(cables: Namespace, hosts: Sequence[Machine]) -> None:
    for host in hosts:
        space = Namespace(host.netns.name)
        cables.run(f"ip link set {host.name} master side")
        space.run(f"ip addr flush dev {wire.LINK} scope global")
        for address in _on_side(host.name.removeprefix("host")):
            nodad = "nodad" if ":" in address else ""
            space.run(f"ip addr add {address} dev {wire.LINK} {nodad}")
        for pattern in (SIDE_4, SIDE_6):
            gateway = pattern.format(_ROUTER_NUMBER)
            space.run(f"ip route replace default via {gateway} dev {wire.LINK}")


def _move_back(lab: Lab, cables: Namespace, hosts: Sequence[Machine]) -> None:
    for host in hosts:
        space = Namespace(host.netns.name)
        cables.run(f"ip link set {host.name} master {WIRE}")
        space.run(f"ip addr flush dev {wire.LINK} scope global")
        for line in wire.address_lines(host, lab.machine(OUTSIDE)):
            space.run(f"ip {line}")


def _teach(machines: Sequence[Machine], verb: str) -> None:
    """Tell those on the wire how to reach the second link."""
    for machine in machines:
        space = Namespace(machine.netns.name)
        for link, router in ((SIDE_4.format(0) + "/24", ROUTER_4), (_SIDE_6_LINK, ROUTER_6)):
            with suppress(Refused) if verb == "del" else nullcontext():  # gone with an address
                space.run(f"ip route {verb} {link} via {router} dev {wire.LINK}")
