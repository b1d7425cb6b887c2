"""Attaching namespaces that are not empty: what is in there stays as it is."""

import pytest

from seaway.errors import Conflict
from tests.support.agent import agent_on
from tests.support.netns import cable, namespaces


@pytest.fixture
def site():
    """A host, and a guest that has an eth0 to somewhere else."""
    with namespaces("host", "guest", "elsewhere") as (host, guest, elsewhere):
        cable(guest, "eth0", "198.51.100.2/24", elsewhere, "eth0", "198.51.100.1/24")
        with agent_on(host) as agent:
            agent.guest = guest
            yield agent


def test_a_free_interface_name_is_chosen(site):
    """The guest's own eth0 keeps its name and address; ours is the next one."""
    made = site.attach("guest", site.guest)

    assert "eth1" == made["networks"][0]["interface"]
    assert "198.51.100.2/24" in site.guest.run("ip -4 -br address show dev eth0")
    assert [] == site.plan()
    site.delete("sandboxes/guest")
    assert "198.51.100.2/24" in site.guest.run("ip -4 -br address show dev eth0")


def test_a_taken_interface_name_is_refused(site):
    """Asked for by name, it is a clash, and nothing is left of the attempt."""
    wanted = {"network": "bridge", "ifname": "eth0"}
    body = {"name": "guest", "netns": str(site.guest.path), "networks": [wanted]}

    with pytest.raises(Conflict, match="there is an interface 'eth0' in guest already"):
        site.post("sandboxes", body)
    assert [] == site.get("sandboxes")


def test_a_default_route_is_not_taken_away(site):
    """A guest with a way out of its own is refused; the route stays."""
    site.guest.run("ip route add default via 198.51.100.1")

    with pytest.raises(Conflict, match="a default route of its own, by eth0"):
        site.attach("guest", site.guest)
    assert "default via 198.51.100.1 dev eth0" in site.guest.run("ip route")
