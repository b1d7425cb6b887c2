"""Somebody else touches what is ours: a running agent sees it and repairs it within a second.

outside 192.0.2.200 --- 192.0.2.1 eth0 host (agent)          box (attached)
"""

from __future__ import annotations

import time

import pytest

from tests.support.agent import agent_on
from tests.support.netns import cable, namespaces, wait_until


@pytest.fixture(scope="module")
def site():
    """An agent with one attached namespace that publishes a port."""
    with namespaces("outside", "host", "box") as (outside, host, box):
        cable(
            *(outside, "eth0", "192.0.2.200/24,2001:db8::200/64"),
            *(host, "eth0", "192.0.2.1/24,2001:db8::1/64"),
        )
        with agent_on(host) as agent, box.serving(80), box.serving(81, address="::"):
            agent.outside, agent.box = outside, box
            agent.network("front", 1)
            agent.made = agent.attach("web", box, "front", publish=["8080:80", "5353:53/udp"])
            yield agent


BREAK = {
    "table flushed": "nft flush table inet seaway",
    "table deleted": "nft delete table inet seaway",
    "chain flushed": "nft flush chain inet seaway forward",
    "rule added": "nft insert rule inet seaway forward accept",
    "element deleted": "nft delete element inet seaway publish_any4 {{ tcp . 8080 }}",
    "set flushed": "nft flush set inet seaway from4",
    "whole ruleset flushed": "nft flush ruleset",
    "route deleted": "ip route del 10.77.1.2",
    "IPv6 route deleted": "ip -6 route del fd77:1::2",
    "subnet's route deleted": "ip route del unreachable 10.77.1.0/24 metric 4000000000",
    "link down": "ip link set {veth} down",
    "link deleted": "ip link del {veth}",
    "gateway's link down": "ip link set swg0 down",
    "gateway's link deleted": "ip link del swg0",
    "gateway's address deleted": "ip address del 10.77.1.1/32 dev swg0",
    "gateway's IPv6 address deleted": "ip address del fd77:1::1/128 dev swg0",
    "router's address deleted": "ip address del fe80::1/64 dev {veth}",
    "IPv4 forwarding off": "sysctl -qw net.ipv4.ip_forward=0",
    "IPv6 forwarding off": "sysctl -qw net.ipv6.conf.all.forwarding=0",
    "neighbour deleted": "ip neigh del 10.77.1.2 dev {veth}",
    "IPv6 neighbour deleted": "ip neigh del fd77:1::2 dev {veth}",
    "neighbour moved": "ip neigh replace 10.77.1.2 lladdr 02:00:00:00:00:99 dev {veth}",
    "route replaced": "ip route replace 10.77.1.2/32 dev eth0",
    "IPv6 route replaced": "ip route replace fd77:1::2/128 dev eth0",
    "link's MTU changed": "ip link set {veth} mtu 1300",
    "link's MAC changed": "ip link set {veth} address 02:00:00:00:00:99",
    "gateway's link MTU changed": "ip link set swg0 mtu 1300",
}


@pytest.mark.parametrize("kind", BREAK)
def test_drift_is_repaired_within_a_second(site, kind):
    """The plan is empty again, status and events tell, and packets flow."""
    before, events = site.status(), len(site.events("kernel_repaired"))
    veth = site.made["networks"][0]["host_interface"]

    site.host.run(BREAK[kind].format(veth=veth))
    broken = time.monotonic()
    wait_until(lambda: site.status()["repairs"] > before["repairs"], what=kind)
    wait_until(lambda: not site.plan(), what="an empty plan")

    assert time.monotonic() - broken < 1
    assert site.status()["healthy"]
    (event, *_) = site.events("kernel_repaired")[events:]
    assert event["facts"]["why"]
    assert int(event["facts"]["steps"]) > 0
    assert "192.0.2.200" == site.outside.ask("192.0.2.1", 8080)
    site.host.python("import socket; socket.create_connection(('fd77:1::2', 81), 2)")


def test_what_others_do_to_their_own_is_no_drift(site):
    """Links, routes, addresses and tables that are not ours come and go without a look."""
    before = site.status()["repairs"]
    for command in (
        "ip link add mine type bridge",
        "ip address add 10.50.0.1/24 dev mine",
        "ip link set mine up",
        "ip route add 10.51.0.0/24 via 10.50.0.2 dev mine onlink",
        "nft add table inet other",
        "nft add chain inet other c",
        "ip link set mine down",
        "ip link del mine",
        "nft delete table inet other",
    ):
        site.host.run(command)
    site.host.run("ip link del swg0")  # which is ours, and comes after all of those

    wait_until(lambda: site.status()["repairs"] > before)
    (*_, event) = site.events("kernel_repaired")
    assert "swg0" in event["facts"]["why"]
    wait_until(lambda: not site.plan())


def test_a_namespace_that_goes_takes_its_endpoint_along(site):
    """An attached namespace that is deleted is forgotten, and nothing of it is left."""
    with namespaces("gone") as (gone,):
        made = site.attach("fleeting", gone, "front", publish=["8090:80"])
    veth = made["networks"][0]["host_interface"]

    wait_until(lambda: veth not in site.host.run("ip -o link"))
    wait_until(lambda: len(site.get("sandboxes")) == 1 and not site.plan(), what="all gone")
    assert "8090" not in site.host.run("nft list map inet seaway publish_any4")

    assert ["web"] == [s["name"] for s in site.get("sandboxes")]
    assert ":8090" not in site.host.run("ss -Htln")
    assert site.status()["healthy"]


def test_a_burst_of_changes_is_one_look(site):
    """All routes of ours deleted at once are put right, in a handful of looks."""
    before = len(site.events("kernel_repaired"))
    site.host.run("ip -6 route flush proto 86")
    site.host.run("ip route flush proto 86")

    wait_until(lambda: not site.plan() and "10.77.1.2" in site.host.run("ip route"))
    assert len(site.events("kernel_repaired")) - before <= 3


def test_a_namespace_that_goes_before_a_look_is_forgotten(site):
    """The look comes first, the announcement that its link has gone after it."""
    for _ in range(5):
        with namespaces("gone") as (gone,):
            site.attach("fleeting", gone, "front")
        site.plan()
        wait_until(lambda: len(site.get("sandboxes")) == 1, what="forgotten")
