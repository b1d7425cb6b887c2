"""Two hosts in a cluster, as ``seaway lab up`` makes them, joined by the kernel's WireGuard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from seaway.lab import agents, cluster
from tests.support import site
from tests.support.capture import capturing
from tests.support.fleet import Fleet, guest, running_fleet
from tests.support.flow import flowing
from tests.support.netns import wait_until
from tests.support.site import Container, Site
from tests.support.talk import answering, reach, recording, tell

SLOW = 120.0  # seconds; what takes two on a machine takes thirty on one that is emulated


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Host1 and host2, with all the time they need."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(agents, "READY_SECONDS", SLOW)
        patch.setattr(cluster, "COMPLETE_SECONDS", SLOW)
        patch.setattr(cluster, "_ASK_SECONDS", SLOW)
        patch.setattr(site, "_SECONDS", SLOW)
        with running_fleet("vm-cluster", 2) as both:
            yield both


@pytest.fixture(scope="module")
def pair(fleet) -> Iterator[tuple[Container, Container]]:
    """A guest on each host, both on the encrypted network "sea"."""
    one, two = fleet.hosts
    with one.networks("sea", flags=("-d", "overlay")):
        with guest(one, "one", "sea") as a, guest(two, "two", "sea") as b:
            yield a, b


@pytest.mark.needs_kernel("wireguard")
def test_an_overlay_network_is_carried_by_the_kernel(fleet, pair):
    """Members on two hosts reach each other; nothing of it can be read on the wire between them."""
    a, b = pair
    own, other = a.on("sea"), b.on("sea")
    targets = [f"tcp://{other['ipv4']}:80", f"udp://[{other['ipv6']}]:80"]
    said = [f"two 80 {own['ipv4']}", f"two 80 {own['ipv6']}"]
    with answering(b, "two", tcp=(80,), udp=(80,)):
        assert said == reach(a, *targets, seconds=10)
    with recording(b, 70) as heard, capturing(fleet.wire, "host1") as frames:
        tell(a, other["ipv4"], 70, "secret words")
        assert f"{own['ipv4']} secret words" == heard()
        seen = frames()

    assert all(tunnels(host) for host in fleet.hosts)
    assert seen
    assert not [frame for frame in seen if b"secret words" in frame]


@pytest.mark.needs_kernel("wireguard")
def test_the_kernel_s_keys_change_while_packets_flow(fleet, pair):
    """Each host has another tunnel in the end, and not one packet was lost on the way."""
    a, b = pair
    before = [tunnels(host) for host in fleet.hosts]
    other = b.on("sea")
    with flowing(a, b, [other["ipv4"], other["ipv6"]], pace=0.1) as flow:
        fleet.hosts[0].seaway("cluster", "keys", "rotate")
        for host, old in zip(fleet.hosts, before, strict=True):
            wait_until(lambda h=host, o=old: tunnels(h) and not tunnels(h) & o, SLOW, "new keys")
        assert {} == flow.lost()


def tunnels(host: Site) -> set[str]:
    """A host's WireGuard links, as far as they are the kernel's."""
    lines = host.host.run("ip -o link show type wireguard").splitlines()
    return {line.split(": ")[1] for line in lines}
