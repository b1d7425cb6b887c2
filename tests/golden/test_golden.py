"""The exact text of plans and nft transactions, one file for each scenario.

``make golden`` writes the files anew; read the diff before committing it.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from seaway.kernel.apply import nft_text
from seaway.model.cluster import Block
from seaway.plan.diff import Diff, diff
from seaway.plan.host import HostFacts, plan_host
from seaway.plan.networks import plan_network
from seaway.plan.overlay import PrivateKey, Tunnels, plan_hosts, plan_peer, plan_tunnels
from seaway.plan.resources import Resource
from seaway.plan.ruleset import ruleset
from seaway.plan.sandboxes import plan_sandbox
from tests.support.model import macvlan, network, on, sandbox, subnet
from tests.support.overlay import CLUSTER, here, host, key, overlay, paths, there

HERE = Path(__file__).parent
HOST, NO_IPV6 = HostFacts(), HostFacts(ipv6=False, mtu=1400)
FRONT, BACK = network("front", 1), network("back", 2)
ONLY4 = network("only4", 3, subnets=(subnet("10.77.3.0/24", "10.77.3.254"),))
INSIDE = network("inside", 4, internal=True)
WIRE = macvlan("wire", "192.0.2.0/24", "192.0.2.1")
WEB = sandbox("web", ["8080:80"])
EVERY_FORM = sandbox(
    "web",
    [
        *("8080:80", "53:53/udp", "9:9/sctp", "127.0.0.1:81:80", "[::1]:82:80"),
        *("9000-9099:9000-9099", "7000-7001:70-71", "192.0.2.1:6000-6009:6000-6009/udp"),
        "84:80,from=192.0.2.0/24,from=198.51.100.7,from=2001:db8::/64",
    ],
)

BLUE, GREEN = overlay("blue", 7), overlay("green", 8, clear=True)
TUNNELLED = overlay("tunnelled", 9, clear=True, carrier="vxlan")
HOST1, HOST2 = host("host1", 1), host("host2", 2)
ONLY_IPV6 = [host(f"host{n}", n, [f"2001:db8::{n}"]) for n in (1, 2)]
NEW_KEYS = [replace(h, keys=(key(h.number, 4), key(h.number, 5))) for h in (HOST1, HOST2)]
HIDDEN = host("host2", 2, ["10.0.0.2"], behind=ip_address("198.51.100.1"))
BORROWED = Block(network=GREEN.id, cidr=ip_network("10.77.8.7/32"), host=HOST2.id)


def created(*plans: tuple[Resource, ...]) -> Diff:
    """Everything is new."""
    return diff([item for plan in plans for item in plan], ())


def moved(before: tuple[Resource, ...], after: tuple[Resource, ...]) -> Diff:
    """From one desired state to another."""
    return diff(after, before)


def of(who=WEB, *attachments, host=HOST):
    """The plan of a sandbox."""
    return plan_sandbox(who, attachments, host)


def peer(me, other, *networks, **more):
    """The plan of what leads from one host to another."""
    return plan_peer(here(me), there(other, *networks, **{"me": me} | more))


def tunnels(me=HOST1, vxlan=(), generations=(), **more):
    """The plan of a host's own tunnels."""
    keys = [PrivateKey(key=key(me.number, g), path=f"/keys/{g}") for g in generations]
    return plan_tunnels(here(me), Tunnels(vxlan=frozenset(vxlan), keys=tuple(keys), **more))


SCENARIOS: dict[str, Callable[[], Diff]] = {
    "host": lambda: created(plan_host(HOST)),
    "host-without-ipv6": lambda: created(plan_host(NO_IPV6)),
    "network": lambda: created(plan_network(FRONT, HOST)),
    "network-without-ipv6": lambda: created(plan_network(FRONT, NO_IPV6)),
    "network-internal": lambda: created(plan_network(INSIDE, HOST)),
    "network-macvlan": lambda: created(plan_network(WIRE, HOST)),
    "network-removed": lambda: diff((), plan_network(FRONT, HOST)),
    "attach": lambda: created(of(WEB, on(WEB, FRONT, 2))),
    "attach-without-ipv6": lambda: created(of(WEB, on(WEB, FRONT, 2), host=NO_IPV6)),
    "attach-made-namespace": lambda: created(
        of(
            replace(WEB, made_netns=True, sysctls={"net.ipv4.ip_default_ttl": "9"}),
            on(WEB, ONLY4, 2),
        )
    ),
    "attach-internal": lambda: created(of(WEB, on(WEB, INSIDE, 2))),
    "attach-macvlan": lambda: created(of(WEB, on(WEB, WIRE, 9))),
    "attach-two-networks": lambda: created(of(WEB, on(WEB, FRONT, 2), on(WEB, BACK, 2, "eth1"))),
    "attach-every-kind-of-port": lambda: created(of(EVERY_FORM, on(EVERY_FORM, FRONT, 2))),
    "detach": lambda: diff((), of(WEB, on(WEB, FRONT, 2))),
    "connect": lambda: moved(
        of(WEB, on(WEB, FRONT, 2)), of(WEB, on(WEB, FRONT, 2), on(WEB, BACK, 2, "eth1"))
    ),
    "disconnect-the-exit": lambda: moved(
        of(WEB, on(WEB, FRONT, 2), on(WEB, BACK, 2, "eth1")), of(WEB, on(WEB, FRONT, 2))
    ),
    "gateway-priority": lambda: moved(
        of(WEB, on(WEB, FRONT, 2), on(WEB, BACK, 2, "eth1")),
        of(WEB, on(WEB, FRONT, 2, gw_priority=1), on(WEB, BACK, 2, "eth1")),
    ),
    "stop": lambda: moved(
        of(WEB, on(WEB, FRONT, 2)), of(replace(WEB, published=()), on(WEB, FRONT, 2))
    ),
    "mtu": lambda: moved(
        of(WEB, on(WEB, FRONT, 2)),
        of(WEB, on(WEB, replace(FRONT, options={"mtu": "9000"}), 2)),
    ),
    "network-overlay": lambda: created(plan_network(BLUE, HOST)),
    "network-overlay-in-clear": lambda: created(plan_network(GREEN, HOST)),
    "attach-overlay": lambda: created(of(WEB, on(WEB, BLUE, 18))),
    "overlay-tunnels": lambda: created(tunnels(HOST1, (4, 6), (0, 1), links=frozenset({"eth0"}))),
    "overlay-tunnels-bad-checksums": lambda: moved(
        tunnels(vxlan=[4]), tunnels(vxlan=[4], checksums=False)
    ),
    "overlay-hosts": lambda: created(plan_hosts(CLUSTER, (*HOST2.addresses, *HOST1.addresses))),
    "overlay-direct": lambda: created(peer(HOST1, HOST2, GREEN)),
    "overlay-vxlan": lambda: created(peer(HOST1, HOST2, TUNNELLED)),
    "overlay-wireguard": lambda: created(peer(HOST1, HOST2, BLUE)),
    "overlay-all-carriers": lambda: created(peer(HOST1, HOST2, BLUE, GREEN, TUNNELLED)),
    "overlay-rotation": lambda: moved(
        peer(*NEW_KEYS, BLUE, generation=4), peer(*NEW_KEYS, BLUE, generation=5)
    ),
    "overlay-borrowed": lambda: moved(
        peer(HOST1, HOST2, GREEN), peer(HOST1, HOST2, networks=((GREEN, (BORROWED,)),))
    ),
    "overlay-ipv6-underlay": lambda: created(peer(*ONLY_IPV6, BLUE, TUNNELLED)),
    "overlay-narrow-path": lambda: moved(
        peer(HOST1, HOST2, BLUE, TUNNELLED),
        peer(HOST1, HOST2, BLUE, TUNNELLED, paths=paths(HOST1, HOST2, mtu=1400)),
    ),
    "overlay-nat-peer": lambda: created(peer(HOST1, HIDDEN, BLUE, GREEN)),
    "overlay-behind-nat": lambda: created(peer(HIDDEN, HOST1, BLUE, GREEN)),
    "overlay-refused": lambda: moved(
        peer(HOST1, HOST2, BLUE), peer(HOST1, replace(HOST2, keys=()), BLUE)
    ),
    "overlay-peer-removed": lambda: diff((), peer(HOST1, HOST2, BLUE, GREEN, TUNNELLED)),
}


def check(name: str, text: str) -> None:
    """Compare with the file, or write it."""
    path = HERE / f"{name}.txt"
    if os.environ.get("SEAWAY_GOLDEN") == "write":
        path.write_text(text)
    assert path.exists(), f"{path.name} is missing: run 'make golden' and read what it wrote"
    assert path.read_text() == text


@pytest.mark.parametrize("name", SCENARIOS)
def test_a_plan_and_its_transaction(name):
    """Each step with its reason, then what nft is told, as in the scenario's file."""
    plan = SCENARIOS[name]()
    rules = nft_text(plan).replace(ruleset().text, "(the ruleset: see ruleset.txt)")

    check(name, "\n".join(["# plan", *plan.lines(), "", "# nft", rules, ""]))


def test_the_ruleset():
    """The fixed part of our table, as in ruleset.txt."""
    check("ruleset", ruleset().text + "\n")


def test_no_scenario_is_left_over():
    """Every file belongs to a scenario."""
    assert {*SCENARIOS, "ruleset"} == {path.stem for path in HERE.glob("*.txt")}
