"""Who cannot reach whom, and who joins without a network of their own."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager

import pytest

from seaway.plan.host import GATEWAY_MAC
from tests.support.frames import advertisement, send, udp
from tests.support.netns import Refused, namespaces, wait_until
from tests.support.site import CLIENT, CLIENT6, HOST, HOST6, INTERNET, INTERNET6, running_site
from tests.support.talk import answering, reach, recording, tell

STRANGE, STRANGE6 = "198.51.100.66", "2001:db8:bad::66"  # nobody's here
SLEEP = ("sleep", "1000")
SOON = 0.3  # seconds to wait for an answer that must not come


@pytest.fixture(scope="module")
def site():
    """A host for this module, with servers on it and on ``outside``."""
    with (
        running_site("ee-isolation") as site,
        answering(site.host, "host", tcp=(90,)),
        answering(site.outside, "internet", tcp=(90,), udp=(90,)),
    ):
        yield site


@pytest.fixture(scope="module")
def town(site):
    """Two containers on "red", one on "blue" which publishes 9080, two on the internal "cellar"."""
    with (
        site.networks("red", "blue"),
        site.networks("cellar", flags=("--internal",)),
        site.container("red1", "--network", "red") as red1,
        site.container("red2", "--network", "red") as red2,
        site.container("blue1", "--network", "blue", "-p", "9080:80") as blue1,
        site.container("cellar1", "--network", "cellar") as cellar1,
        site.container("cellar2", "--network", "cellar") as cellar2,
        answering(red2, "red2", tcp=(80,), udp=(80,)),
        answering(blue1, "blue1", tcp=(80, 81), udp=(80,)),
        answering(cellar2, "cellar2", tcp=(80,), udp=(80,)),
    ):
        yield {c.name: c for c in (red1, red2, blue1, cellar1, cellar2)}


def at(container, network):
    """The container's address and bracketed IPv6 address."""
    endpoint = container.on(network)
    return endpoint["ipv4"], f"[{endpoint['ipv6']}]"


def everywhere(places, port):
    """Both transports at each of *places*."""
    return [f"{kind}://{place}:{port}" for kind in ("tcp", "udp") for place in places]


# -- networks ----------------------------------------------------------------------------------


def test_networks_cannot_reach_each_other(site, town):
    """Containers of one network talk; to those of another nothing gets through but is counted."""
    red, blue = at(town["red2"], "red"), at(town["blue1"], "blue")
    assert ["red2"] * 4 == [r.split()[0] for r in reach(town["red1"], *everywhere(red, 80))]

    before = site.drops("isolated")
    assert ["silence"] * 4 == reach(town["red1"], *everywhere(blue, 80), seconds=SOON)
    with pytest.raises(Refused):
        town["red1"].run(f"ping -c 1 -W 0.3 {blue[0]}")
    assert before + 5 <= site.drops("isolated")


def test_published_ports_join_networks(site, town):
    """Another network's published port is reached at the host's address, others are not."""
    assert ["blue1", "blue1"] == [
        reply.split()[0]
        for reply in reach(town["red1"], f"tcp://{HOST}:9080", f"tcp://[{HOST6}]:9080")
    ]
    assert ["refused"] == reach(town["red1"], f"tcp://{HOST}:81")


def test_the_way_out_is_masqueraded(site, town):
    """Containers reach the internet over both families, with the host's address."""
    assert [f"internet 90 {HOST}", f"internet 90 {HOST6}", f"internet 90 {HOST}"] == reach(
        town["red1"], f"tcp://{INTERNET}:90", f"tcp://[{INTERNET6}]:90", f"udp://{CLIENT}:90"
    )


def test_without_masquerade_the_own_address_goes_out(site):
    """With -o masquerade=false the container's address arrives, where the way back is known."""
    with (
        site.networks("plain", flags=("-o", "masquerade=false")),
        site.container("plain1", "--network", "plain") as plain1,
    ):
        own = plain1.on("plain")
        site.outside.run(f"ip route add {own['ipv4']} via {HOST}")
        site.outside.run(f"ip -6 route add {own['ipv6']} via {HOST6}")
        assert [f"internet 90 {own['ipv4']}", f"internet 90 {own['ipv6']}"] == reach(
            plain1, f"tcp://{INTERNET}:90", f"tcp://[{INTERNET6}]:90"
        )


# -- internal ----------------------------------------------------------------------------------


def test_an_internal_network_has_no_way_out(site, town):
    """Its members reach each other and the host's gateway address, and nothing beyond."""
    friend, red = at(town["cellar2"], "cellar"), at(town["red2"], "red")
    assert ["cellar2"] * 4 == [
        r.split()[0] for r in reach(town["cellar1"], *everywhere(friend, 80))
    ]
    gateway = town["cellar1"].on("cellar")["gateway4"]
    assert ["host"] == [r.split()[0] for r in reach(town["cellar1"], f"tcp://{gateway}:90")]

    # it has no default route; with one of its own making it gets no further
    town["cellar1"].run(f"ip route add default via {gateway}")
    town["cellar1"].run("ip -6 route add default via fe80::1 dev eth0")
    before = site.drops("internal")
    beyond = [f"tcp://{INTERNET}:90", f"tcp://[{INTERNET6}]:90", f"udp://{CLIENT}:90"]
    beyond += [f"tcp://{HOST}:9080", f"tcp://[{HOST6}]:9080", *everywhere(red, 80)]
    assert {"silence"} == set(reach(town["cellar1"], *beyond, seconds=SOON))
    assert before + len(beyond) <= site.drops("internal")


def test_an_internal_network_has_no_way_in(site, town):
    """The host reaches its members; the LAN and other networks do not, even by a route."""
    inner = at(town["cellar2"], "cellar")
    assert ["cellar2"] * 4 == [r.split()[0] for r in reach(site.host, *everywhere(inner, 80))]

    site.outside.run(f"ip route add {inner[0]} via {HOST}")
    site.outside.run(f"ip -6 route add {inner[1].strip('[]')} via {HOST6}")
    before = site.drops("internal")
    assert ["silence"] * 4 == reach(site.outside, *everywhere(inner, 80), seconds=SOON)
    assert ["silence"] * 4 == reach(town["red1"], *everywhere(inner, 80), seconds=SOON)
    assert before + 8 <= site.drops("internal")


def test_an_internal_network_forwards_no_names(site, town):
    """Its members find each other by name; for names of the world they get no answer."""
    assert at(town["cellar2"], "cellar")[0] in town["cellar1"].inside("nslookup", "cellar2")
    with pytest.raises(Refused, match="SERVFAIL"):
        town["cellar1"].inside("nslookup", "example.com")


# -- liars -------------------------------------------------------------------------------------


def test_spoofed_packets_are_dropped_and_counted(site, town):
    """A container sends from its own addresses and MAC only."""
    liar, victim = town["red1"].on("red"), town["red2"].on("red")
    own = (liar["mac"], GATEWAY_MAC)
    false = ("02:00:00:00:00:99", GATEWAY_MAC)
    lies = [
        udp(own, STRANGE, victim["ipv4"], 70),
        udp(own, STRANGE, CLIENT, 70),
        udp(own, town["blue1"].on("blue")["ipv4"], victim["ipv4"], 70),
        udp(own, victim["ipv4"], CLIENT, 70),  # another's address
        udp(own, victim["gateway4"], victim["ipv4"], 70),
        udp(own, "127.0.0.1", victim["ipv4"], 70),
        udp(false, liar["ipv4"], victim["ipv4"], 70),
        udp(own, STRANGE6, victim["ipv6"], 70),
        udp(own, STRANGE6, CLIENT6, 70),
        udp(own, victim["ipv6"], CLIENT6, 70),
        udp(own, "fe80::1", victim["ipv6"], 70),
        udp(false, liar["ipv6"], victim["ipv6"], 70),
    ]
    with recording(town["red2"], 70) as heard, recording(site.outside, 70) as heard_outside:
        before = site.drops("spoofed")
        send(town["red1"], "eth0", lies)
        tell(town["red1"], victim["ipv4"], 70, "honest")
        tell(town["red1"], CLIENT, 70, "honest")

        assert f"{liar['ipv4']} honest" == heard()
        assert f"{HOST} honest" == heard_outside()
        assert before + len(lies) == site.drops("spoofed")


def test_router_advertisements_of_a_container_go_nowhere(site):
    """A container cannot make itself a router, not even for a host that listens to routers."""
    accept = "net.ipv6.conf.default.accept_ra"
    was = site.host.run(f"sysctl -n {accept}").strip()
    site.host.run(f"sysctl -qw {accept}=2")
    try:
        with site.container("rogue") as rogue, site.container("victim") as victim:
            before = site.drops("spoofed")
            link_local = rogue.run("ip -o -6 address show dev eth0 scope link").split()[3]
            mac = rogue.on()["mac"]
            send(
                rogue,
                "eth0",
                [
                    advertisement(mac, link_local.partition("/")[0], "2001:db8:bad::"),
                    advertisement(mac, "fe80::1", "2001:db8:bad::"),
                ],
            )

            assert before + 2 == site.drops("spoofed")
            for space in (site.host, victim):
                assert "2001:db8:bad:" not in space.run("ip -6 address")
                assert "proto ra" not in space.run("ip -6 route")
    finally:
        site.host.run(f"sysctl -qw {accept}={was}")


_EAGER = """
import socket, sys
frame = bytes.fromhex(sys.argv[1])
s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
print("ready", flush=True)
while True:
    try:
        s.bind(("eth0", 0))
        break
    except OSError:
        pass
sent = 0
while sent < 20000:
    try:
        sent += s.send(frame) > 0
    except OSError:
        pass
print(sent, flush=True)
"""


def test_an_endpoint_is_fenced_before_its_link_is_up(site):
    """A guest that lies from the first moment on gets not one packet through."""
    with namespaces("guest") as (guest,), recording(site.outside, 71) as heard:
        lie = udp(("02:00:00:00:00:99", GATEWAY_MAC), STRANGE, CLIENT, 71, b"lie")
        before = site.drops("spoofed")
        with guest.started(sys.executable, "-c", _EAGER, lie.hex()) as eager:
            assert "ready" == eager.stdout.readline().strip()
            site.seaway("attach", "--name", "guest", str(guest.path))
            assert "20000" == eager.stdout.readline().strip()

        assert before < site.drops("spoofed")
        tell(guest, CLIENT, 71, "honest")
        assert f"{HOST} honest" == heard()
        site.seaway("detach", "guest")


# -- macvlan -----------------------------------------------------------------------------------


def test_a_macvlan_container_is_on_the_wire(site):
    """It is reached from outside at its own address, and finds others by name at 127.0.0.11."""
    flags = ("-d", "macvlan", "-o", "parent=eth0", "--subnet", "192.0.2.0/24")
    flags += ("--gateway", CLIENT, "--ip-range", "192.0.2.64/27")
    flags += ("--subnet", "2001:db8:5ea::/64", "--ip-range", "2001:db8:5ea::ff00/120")
    with (
        site.networks("lan", flags=flags),
        site.container("lan1", "--network", "lan") as lan1,
        site.container("lan2", "--network", "lan", "--ip", "192.0.2.99") as lan2,
        answering(lan2, "lan2", tcp=(80,)),
    ):
        own = lan1.on("lan")
        assert own["ipv4"].startswith("192.0.2.")
        assert own["mac"] in lan1.run("ip -o link show dev eth0")
        assert "192.0.2.99" == lan2.on("lan")["ipv4"]
        assert [f"lan2 80 {CLIENT}"] == reach(site.outside, "tcp://192.0.2.99:80")
        assert [f"lan2 80 {own['ipv4']}"] == reach(lan1, "tcp://192.0.2.99:80")
        assert [f"internet 90 {own['ipv4']}"] == reach(lan1, f"tcp://{INTERNET}:90")

        assert "nameserver 127.0.0.11" in lan1.inside("cat", "/etc/resolv.conf")
        assert "192.0.2.99" in lan1.inside("nslookup", "lan2")
        assert lan1.inside("nc", "lan2", "80").endswith((own["ipv4"], own["ipv6"]))
        assert [f"lan2 80 {CLIENT6}"] == reach(site.outside, f"tcp://[{lan2.on('lan')['ipv6']}]:80")

        site.seaway("stop", "-t", "0", "lan1")
        site.seaway("start", "lan1")
        assert "192.0.2.99" in lan1.inside("nslookup", "lan2.lan")
        assert own["mac"] in lan1.run("ip -o link show dev eth0")


# -- no network of their own -------------------------------------------------------------------


def test_host_none_and_another_containers_network(site, town):
    """--network host, none and container:NAME give the host's, no, and that container's network."""

    def addresses(network: str) -> str:
        command = ("run", "--rm", "--network", network, "busybox", "ip", "-o", "address")
        return site.seaway(*command)

    assert f"{HOST}/24" in addresses("host")
    assert "eth0" not in addresses("none")
    red2 = town["red2"].on("red")
    shared = addresses("container:red2")
    assert f"{red2['ipv4']}/32" in shared
    assert red2["ipv6"] in shared
    # ... so loopback is shared, too
    command = ("run", "--rm", "--network", "container:red2", "busybox", "nc", "127.0.0.1", "80")
    assert "red2 80 127.0.0.1" == site.seaway(*command)


def test_containers_without_a_network_of_ours_are_managed_too(site):
    """Containers with --network host or none are listed, inspected, stopped and removed."""
    for name in ("host", "none"):
        site.seaway("run", "-d", "--name", f"on-{name}", "--network", name, "busybox", *SLEEP)
    rows = {c["Names"]: c["Networks"] for c in site.json("ps")}
    assert {"on-host": "host", "on-none": "none"}.items() <= rows.items()
    assert "none" == site.inspect("on-none")["engine"]["HostConfig"]["NetworkMode"]

    site.seaway("stop", "-t", "0", "on-none")
    states = {c["Names"]: c["State"] for c in site.json("ps", "-a")}
    assert ("stopped", "running") == (states["on-none"], states["on-host"])
    site.seaway("start", "on-none")
    site.seaway("rm", "-f", "on-none", "on-host")
    assert not {"on-none", "on-host"} & {c["Names"] for c in site.json("ps", "-a")}


# -- guests ------------------------------------------------------------------------------------


def test_a_namespace_takes_part_and_leaves(site, town):
    """What is attached has addresses, a name and ports; detached, its namespace is as before."""
    with namespaces("vm") as (vm,), answering(vm, "vm", tcp=(80,)):
        untouched = vm.run("ip -o address")
        printed = site.seaway(
            "attach", "--name", "vm1", "--network", "red", "-p", "9090:80", str(vm.path)
        )

        name, v4, v6 = printed.split()
        assert "vm1" == name
        assert [f"vm 80 {town['red1'].on('red')['ipv4']}"] == reach(town["red1"], f"tcp://{v4}:80")
        assert ["vm 80 " + CLIENT6] == reach(site.outside, f"tcp://[{HOST6}]:9090")
        assert v4 in town["red1"].inside("nslookup", "vm1")
        assert v6 in vm.run("ip -o address")
        told = site.attempt("attach", str(vm.path))
        assert (1, 1) == (told.status, told.err.count("\n"))
        assert "vm1" in told.err

        assert "vm1" == site.seaway("detach", "vm1")
        assert untouched == vm.run("ip -o address")
        assert ["refused"] == reach(site.outside, f"tcp://{HOST}:9090")


@contextmanager
def process_with_a_network_of_its_own():
    """A sleeping process in a new network namespace."""
    process = subprocess.Popen(["unshare", "-n", "sleep", "1000"])
    try:
        home = f"/proc/{process.pid}/exe"
        wait_until(
            lambda: subprocess.run(
                ["readlink", home], capture_output=True, text=True
            ).stdout.endswith("sleep\n")
        )
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_process_takes_part_until_it_ends(site, town):
    """A process attached by number has a network, and is forgotten when it ends."""
    before = site.snapshot()
    with process_with_a_network_of_its_own() as process:
        site.seaway(
            "attach", "--name", "job", "--network", "red", "-p", "9091:80", str(process.pid)
        )
        job = site.inspect("job")
        assert "running" == job["phase"]
        assert job["networks"][0]["ipv4"] in town["red1"].inside("nslookup", "job")
        site.host.run(f"ping -c 1 -W 2 {job['networks'][0]['ipv4']}")
        assert "Nothing" in site.seaway("plan")

        process.kill()
        process.wait()
        wait_until(lambda: "job" not in {c["Names"] for c in site.json("ps", "-a")})
    wait_until(lambda: before == site.snapshot(), what="nothing is left of the process")
