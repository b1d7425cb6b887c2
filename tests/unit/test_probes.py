"""Proving ways to other hosts: what follows from what comes back."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from types import SimpleNamespace

import pytest

from seaway.agent.probes import Probes, _blame
from seaway.kernel.echo import Echoed
from seaway.model.cluster import Carrier, Host, HostId
from seaway.plan.carriers import UnderlayPath, Way


def host(number: int) -> Host:
    return Host(
        id=HostId(f"{number:012x}"),
        name=f"host{number}",
        number=number,
        addresses=(ip_address(f"192.0.2.{number}"),),
    )


def way(carrier: Carrier = Carrier.VXLAN) -> Way:
    path = UnderlayPath(
        to=ip_address("192.0.2.2"),
        link="eth0",
        source=ip_address("192.0.2.1"),
        mtu=1500,
        on_link=True,
    )
    return Way(carrier=carrier, path=path)


class Ship:
    """A membership, as far as probes look at it."""

    def __init__(self):
        self.overlay = SimpleNamespace(checksums=True, trust_hardware=self.trust)
        self.told = []

    def trust(self, trusted):
        """Do as told."""
        self.overlay.checksums = trusted

    def core_events(self, kind, **_facts):
        """Remember."""
        self.told.append(kind)


@pytest.fixture
def ship():
    return Ship()


def check(ship, probes, peer, *, arrives):
    async def refused(*_):
        return arrives

    probes._refused = refused
    return asyncio.run(probes._check_sums(peer, way(), 1450))


def test_hardware_that_spoils_checksums_is_kept_out(ship):
    """It is told so once, and stays so when packets arrive without it."""
    probes = Probes(ship)

    assert "hardware that spoils checksums" in check(ship, probes, host(2), arrives=False)
    assert not ship.overlay.checksums

    assert check(ship, probes, host(2), arrives=True) == ""
    assert not ship.overlay.checksums
    assert ["checksum_offload_off"] == ship.told


def test_a_host_that_refuses_nothing_proves_nothing(ship):
    """If it is not better without the hardware, that is let in again, and not blamed once more."""
    probes = Probes(ship)
    check(ship, probes, host(2), arrives=False)

    assert check(ship, probes, host(2), arrives=False) == ""
    assert ship.overlay.checksums
    assert check(ship, probes, host(2), arrives=False) == ""
    assert ship.overlay.checksums


def test_one_silent_host_does_not_clear_another(ship):
    """While packets to one host arrive only without the hardware, it stays out."""
    probes = Probes(ship)
    check(ship, probes, host(2), arrives=False)
    check(ship, probes, host(3), arrives=False)
    check(ship, probes, host(3), arrives=False)

    assert not ship.overlay.checksums


@pytest.mark.parametrize(
    ("full", "small", "words"),
    [
        (Echoed(too_large=True), Echoed(), "do not fit the way to host2 by vxlan any more"),
        (Echoed(), Echoed(seconds=0.001), "something on the way carries less than 1500 bytes"),
        (Echoed(), Echoed(error="No route to host"), "nothing can be sent to host2 by vxlan: No"),
        (Echoed(), Echoed(), "nothing comes back from host2 by vxlan: is it up, and do firewalls"),
    ],
)
def test_who_is_to_blame(full, small, words):
    """What got lost, and what did not, says where to look."""
    assert words in _blame(host(2), way(), 1450, full, small)
