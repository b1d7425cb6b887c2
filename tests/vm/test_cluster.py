"""Two hosts in a cluster, as ``seaway lab up`` makes them, joined by the kernel's WireGuard."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from seaway.lab import agents, cluster
from tests.support import site
from tests.support.capture import capturing
from tests.support.fleet import Fleet, guest, running_fleet
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


@pytest.mark.needs_kernel("wireguard")
def test_an_overlay_network_is_carried_by_the_kernel(fleet):
    """Members on two hosts reach each other; nothing of it can be read on the wire between them."""
    one, two = fleet.hosts
    with (
        one.networks("sea", flags=("-d", "overlay")),
        guest(one, "one", "sea") as a,
        guest(two, "two", "sea") as b,
        answering(b, "two", tcp=(80,), udp=(80,)),
    ):
        own, other = a.on("sea"), b.on("sea")
        targets = [f"tcp://{other['ipv4']}:80", f"udp://[{other['ipv6']}]:80"]
        said = [f"two 80 {own['ipv4']}", f"two 80 {own['ipv6']}"]

        assert said == reach(a, *targets, seconds=10)
        with recording(b, 70) as heard, capturing(fleet.wire, "host1") as frames:
            tell(a, other["ipv4"], 70, "secret words")
            assert f"{own['ipv4']} secret words" == heard()
            seen = frames()

        for host in (one, two):
            assert "sww-" in host.host.run("ip -o link show type wireguard")
    assert seen
    assert not [frame for frame in seen if b"secret words" in frame]
