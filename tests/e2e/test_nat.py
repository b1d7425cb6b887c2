"""Hosts behind NATs: what works, and what is refused with a reason.

host1 is on the wire; host2 and host3 are behind one NAT, and host4 behind another.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from seaway.lab import agents, cluster, faults
from seaway.lab.lifecycle import silent
from tests.support.expiry import expire
from tests.support.fleet import Fleet, guest, running_fleet
from tests.support.flow import flowing
from tests.support.netns import wait_until
from tests.support.resolve import look_up
from tests.support.site import Container, Site
from tests.support.underlay import ROUTER_4, second_link, side_address

OTHER_NAT = "192.0.2.101"
SOON = 0.3  # seconds to wait for an answer that must not come
NETWORKS = {"sea": (), "clear": ("-o", "encrypted=false")}
NAMES = ("one", "two", "three", "four")
FAMILIES = ("ipv4", "ipv6")


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Four hosts in one cluster."""
    with (
        running_fleet("fa-nat", 4, cluster=False) as fleet,
        second_link(fleet.lab, "host2", "host3", "host4", nat=True) as router,
    ):
        # To others two NATs are two addresses.
        router.run(f"ip addr add {OTHER_NAT}/24 dev eth0")
        apart = f"ip saddr {side_address('host4')} oifname eth0 snat to {OTHER_NAT}"
        router.run(f"nft insert rule ip nat post {apart}")
        cluster.form(fleet.lab, silent, stores=1)
        yield fleet
        for site in reversed(fleet.hosts):  # as they were before
            site.attempt("cluster", "leave", "--force")


@pytest.fixture(scope="module")
def guests(fleet: Fleet) -> Iterator[list[Container]]:
    """One on each host, on both networks."""
    with ExitStack() as stack:
        for name, flags in NETWORKS.items():
            stack.enter_context(fleet.hosts[0].networks(name, flags=("-d", "overlay", *flags)))
        yield [
            stack.enter_context(guest(site, name, *NETWORKS))
            for name, site in zip(NAMES, fleet.hosts, strict=True)
        ]


def at(container: Container, network: str) -> list[str]:
    """Its addresses on a network."""
    return [container.on(network)[version] for version in FAMILIES]


def reaches(source: Container, target: Container, network: str) -> None:
    """All that is sent comes back, soon after the hosts know each other."""
    with flowing(source, target, at(target, network)) as flow:
        wait_until(lambda: {} == flow.lost(), 10, f"{source.name} to {target.name}")
        assert {} == flow.lost()


def ways(site: Site, host: str) -> dict[str, tuple[str, str]]:
    """What carries each network to a host, and why nothing does."""
    paths = site.ask(f"/v1/nodes/{host}")["paths"]
    return {p["network"]: (p["carrier"], p["reason"]) for p in paths if p["ip"] == 4}


def test_what_others_see_is_known(fleet):
    """The NAT's address is in the host's record, beside its own."""
    nodes = [fleet.hosts[0].ask(f"/v1/nodes/host{n}") for n in (1, 2, 3, 4)]
    assert ["", ROUTER_4, ROUTER_4, OTHER_NAT] == [n["behind"] for n in nodes]
    assert [side_address(f"host{n}") for n in (2, 3, 4)] == [n["addresses"][0] for n in nodes[1:]]
    assert ["host1"] == [s["host"] for s in fleet.hosts[3].ask("/v1/cluster")["stores"]]


@pytest.mark.parametrize(("a", "b"), [(0, 1), (1, 0), (2, 0), (0, 3), (3, 0), (1, 2), (2, 1)])
def test_what_is_encrypted_passes(guests, a, b):
    """Whoever speaks first, also between two behind the same NAT; names work too."""
    reaches(guests[a], guests[b], "sea")
    found = look_up(guests[a], guests[a].view()["resolver"], f"{NAMES[b]}.sea A")
    assert [guests[b].on("sea")["ipv4"]] == found


def test_what_is_in_clear_passes_behind_one_nat_only(fleet, guests):
    """Through it, it is refused with the reason; status says so on either side."""
    first, second, third, _ = fleet.hosts
    reaches(guests[1], guests[2], "clear")
    assert ("direct", "") == ways(second, "host3")["clear"]
    for site, host, inner in ((first, "host2", "host2"), (third, "host1", "host3")):
        carrier, reason = ways(site, host)["clear"]
        assert "" == carrier
        assert reason.startswith(f"{inner} is behind a NAT, which only encrypted packets pass")
        assert f"clear does not reach {host}: {reason}" in problems(site)
        assert reason in site.attempt("node", "inspect", host).out


def test_hosts_behind_different_nats_do_not_meet(fleet, guests):
    """Nothing goes between them, and both say why and what to do."""
    _, second, _, fourth = fleet.hosts
    for site, host in ((second, "host4"), (fourth, "host2")):
        for network in NETWORKS:
            carrier, reason = ways(site, host)[network]
            assert "" == carrier
            assert "behind different NATs: let one of them be reached from outside" in reason
            assert f"{network} does not reach {host}: {reason}" in problems(site)
    ping = f"ping -n -c 1 -W 1 {guests[3].on('sea')['ipv4']} || true"
    assert "100% packet loss" in guests[1].shell(ping)


def test_a_certificate_that_expired_meanwhile_is_renewed(fleet, guests):
    """A host that runs no part of the store was away for longer than its certificate lasts: it
    gets another one, and is a member as before."""
    first, *_, fourth = fleet.hosts
    faults.kill(fleet.lab, "host4")
    expire(fourth, by=first)
    agents.start([fourth.machine])  # faults.start() would give it its usual addresses
    wait_until(lambda: fourth.ask("/v1/cluster")["online"], 15)
    assert fourth.ask("/v1/cluster")["certificate_expires"] > time.time()
    reaches(guests[3], guests[0], "sea")


def problems(site: Site) -> list[str]:
    """What is wrong, as `seaway status` has it."""
    status = json.loads(site.attempt("status", "--format", "json").out)
    return [p["error"] for p in status["problems"]]
