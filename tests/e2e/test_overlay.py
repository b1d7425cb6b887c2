"""Containers on several hosts: names, carriers, packet sizes, addresses, isolation."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from ipaddress import ip_address, ip_network
from itertools import cycle
from typing import Any

import pytest

from seaway.errors import Conflict, Exhausted, SeawayError
from tests.support.capture import capturing, packet
from tests.support.fleet import (
    Fleet,
    attach,
    belongings,
    client,
    elements,
    guest,
    guests,
    routes,
    running_fleet,
)
from tests.support.netns import Namespace, namespaces, wait_until
from tests.support.resolve import look_up, naming
from tests.support.site import CLIENT, INTERNET, INTERNET6, NOTHING, Container
from tests.support.talk import answering, reach, recording, tell

HOSTS = ("192.0.2.1", "192.0.2.2", "192.0.2.3")
HOSTS6 = ("2001:db8:5ea::1", "2001:db8:5ea::2", "2001:db8:5ea::3")
WORLD = (*HOSTS, *HOSTS6)
UPSTREAM = ("--dns", INTERNET)  # knows no name at all
SOON = 0.3  # seconds to wait for an answer that must not come
VXLAN, WIREGUARD = 7903, (7904, 7905)

NETWORKS = {
    "sea": (),
    "clear": ("-o", "encrypted=false"),
    "tubes": ("-o", "encrypted=false", "-o", "carrier=vxlan"),
    "straight": ("-o", "encrypted=false", "-o", "carrier=direct"),
}
CARRIED = {"sea": "wireguard", "clear": "direct", "tubes": "vxlan", "straight": "direct"}
MTU = {
    "sea": 1500 - 80,  # hosts have IPv6: 40 IP, 8 UDP, 32 WireGuard
    "clear": 1500 - 70,  # it may have to go by VXLAN: 40 IP, 8 UDP, 8 VXLAN, 14 Ethernet
    "tubes": 1500 - 70,
    "straight": 1500,
}


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three hosts in a cluster, and servers on ``outside``."""
    with (
        running_fleet("ov-overlay") as fleet,
        answering(fleet.outside, "internet", tcp=(90,), udp=(90,)),
        naming(fleet.outside, INTERNET, {}),
    ):
        yield fleet


@pytest.fixture(scope="module")
def town(fleet: Fleet) -> Iterator[dict[str, Container]]:
    """A container on each host, "one" to "three", which are on all of NETWORKS.

    "two" has aliases and a published port; "one" and "two" answer.
    """
    with ExitStack() as stack:
        for (name, flags), site in zip(NETWORKS.items(), cycle(fleet.hosts), strict=False):
            stack.enter_context(site.networks(name, flags=("-d", "overlay", *flags)))
        found = {}
        for name, site in zip(("one", "two", "three"), fleet.hosts, strict=True):
            flags = [word for network in NETWORKS for word in ("--network", network)]
            flags += UPSTREAM
            if name == "two":
                flags[1] = "name=sea,alias=deuce,alias=pair"
                flags += ["-p", "8080:80", "--hostname", "two-1.example.org"]
            found[name] = stack.enter_context(site.container(name, *flags))
        for name in ("one", "two"):
            stack.enter_context(answering(found[name], name, tcp=(80,), udp=(80,)))
        yield found


def ask(container: Container, *questions: str) -> list[str]:
    """Ask the container's own name server, from inside it."""
    return look_up(container, container.view()["resolver"], *questions)


def at(container: Container, network: str) -> tuple[str, str]:
    """The container's addresses on a network."""
    endpoint = container.on(network)
    return endpoint["ipv4"], endpoint["ipv6"]


def targets(addresses: tuple[str, str], port: int = 80) -> list[str]:
    """Both transports at each of *addresses*."""
    places = (addresses[0], f"[{addresses[1]}]")
    return [f"{kind}://{place}:{port}" for kind in ("tcp", "udp") for place in places]


def met(source: Container, target: Container, network: str) -> bool:
    """Wait until another host has heard of a container's first address: some milliseconds."""
    for address in filter(None, at(target, network)):
        wait_until(lambda a=address: " 0% packet loss" in ping(source, a, 100, SOON), 3)
    return True


# -- the five commands -------------------------------------------------------------------------


def test_the_commands_of_the_first_page(fleet):
    """A network of one's own addresses; a container on one host fetches from one on another."""
    first, second, third = fleet.hosts
    create = (
        "network create -d overlay --attachable --subnet=10.10.20.0/24 --gateway=10.10.20.1 "
        "--ip-range=10.10.20.128/25 my-custom-overlay"
    )
    run = "run -itd --name my-container --network my-custom-overlay busybox"
    fetch = "exec my-container wget -qO- http://web"
    page = 'echo "it works" > /srv/index.html; exec httpd -f -p 80 -h /srv'

    assert "my-custom-overlay" == first.seaway(*create.split())
    third.seaway(*run.split())
    second.seaway(
        *("run", "-d", "--name", "web", "--network", "my-custom-overlay"),
        *("busybox", "sh", "-c", f"mkdir -p /srv; {page}"),
    )
    wait_until(lambda: "it works" == third.attempt(*fetch.split()).out.strip(), 3)
    for site, name in ((third, "my-container"), (second, "web")):
        found = Container(site, name).on("my-custom-overlay")
        assert ip_address(found["ipv4"]) in ip_network("10.10.20.128/25")
        assert "10.10.20.1" == found["gateway4"]
    third.seaway("rm", "-f", "my-container")
    second.seaway("rm", "-f", "web")
    assert "my-custom-overlay" == second.seaway("network", "rm", "my-custom-overlay")


# -- names -------------------------------------------------------------------------------------


def test_a_container_is_found_from_other_hosts(town):
    """By name, alias, host name, short id, each alone and with the network; and back."""
    v4, v6 = at(town["two"], "sea")
    short = town["two"].view()["container"][:12]
    names = ("two", "deuce", "PAIR", "two-1.example.org", "two-1", short)
    names = tuple(f"{name}.sea" for name in names)

    assert [v4] * len(names) == ask(town["three"], *(f"{name} A" for name in names))
    assert [v6, v6] == ask(town["three"], "two.sea AAAA", "deuce.sea AAAA tcp")
    assert ["two.sea.", "two.sea."] == ask(town["three"], f"{v4} PTR", f"{v6} PTR")
    assert v4 in town["one"].inside("nslookup", "deuce")


def test_names_of_other_hosts_are_told_on_their_network_only(fleet, town):
    """A container that is not on a network learns nothing of who is, on whatever host."""
    v4, _ = at(town["two"], "sea")
    first, second, third = fleet.hosts
    with second.networks("lake", flags=("-d", "overlay")):
        with (
            guest(third, "ashore", "lake", dns=[INTERNET]) as ashore,
            guest(first, "boat", "lake") as boat,
        ):
            assert ["NXDOMAIN"] * 4 == ask(ashore, "two A", "two.sea A", "deuce AAAA", f"{v4} PTR")
            assert [at(boat, "lake")[0]] == ask(ashore, "boat A")
            assert ["NXDOMAIN"] == ask(town["one"], "boat A")


_TTL = """
import sys, dns.message, dns.query
reply = dns.query.udp(dns.message.make_query(sys.argv[2], "A"), sys.argv[1], timeout=3)
print(reply.answer[0].ttl)
"""


def test_answers_are_kept_for_seconds_only(town):
    """The time to live is as short for other hosts' names as for this host's own."""
    resolver = town["one"].view()["resolver"]
    assert ["5", "5"] == [town["one"].python(_TTL, resolver, name) for name in ("one", "two")]


def test_names_come_and_go_at_once_everywhere(fleet, town):
    """A new container is found on another host in a moment; one that ended is no more."""
    site, observer = fleet.hosts[1], town["three"]
    with site.container("brief", "--network", "sea") as brief:
        v4 = at(brief, "sea")[0]
        wait_until(lambda: [v4] == ask(observer, "brief A"), 3)
        site.seaway("stop", "-t", "0", "brief")
        wait_until(lambda: ["NXDOMAIN", "NXDOMAIN"] == ask(observer, "brief A", f"{v4} PTR"), 3)
        site.seaway("start", "brief")
        wait_until(lambda: [v4] == ask(observer, "brief A"), 3)
    wait_until(lambda: ["NXDOMAIN"] == ask(observer, "brief A"), 3)


# -- connect and disconnect ----------------------------------------------------------------------


def test_a_running_container_is_connected_and_disconnected(fleet, town):
    """It is reached and found from other hosts as soon as it is connected, and not after."""
    first, second, _ = fleet.hosts
    with (
        second.networks("late", flags=("-d", "overlay")),
        first.container("mover", "--network", "bridge") as mover,
        guest(second, "waiting", "late", dns=[INTERNET]) as waiting,
        answering(mover, "mover", tcp=(80,), udp=(80,)),
    ):
        first.seaway("network", "connect", "--alias", "shaker", "late", "mover")
        v4, v6 = at(mover, "late")
        wait_until(lambda: [v4, v4] == ask(waiting, "mover A", "shaker A"), 3)
        assert ["mover"] * 4 == [r.split()[0] for r in reach(waiting, *targets((v4, v6)))]

        first.seaway("network", "disconnect", "late", "mover")
        wait_until(lambda: ["NXDOMAIN", "NXDOMAIN"] == ask(waiting, "mover A", "shaker A"), 3)
        assert "mover 80" not in " ".join(reach(waiting, *targets((v4, v6)), seconds=SOON))
        assert ["bridge"] == [n["network"] for n in mover.view()["networks"]]


def test_a_network_is_there_on_all_hosts_at_once(fleet):
    """A network that was just created is used on another host without waiting, also if one of the
    same name was just removed."""
    first, second, _ = fleet.hosts
    with namespaces("eager") as (space,):
        for _ in range(5):
            client(first).request("POST", "/v1/networks", {"name": "new", "driver": "overlay"})
            attach(second, "eager", space, "new")
            client(second).request("DELETE", "/v1/sandboxes/eager")
            client(first).request("DELETE", "/v1/networks/new")


def create(fleet: Fleet, names: tuple[str, ...], **more: Any) -> list[str]:
    """Create a network on each host, at the same instant; "" or the error for each."""

    def run(n: int) -> str:
        request = {"name": names[n], "driver": "overlay"} | more
        try:
            client(fleet.hosts[n]).request("POST", "/v1/networks", request)
        except Conflict as err:
            return str(err)
        return ""

    with ThreadPoolExecutor(len(names)) as pool:
        return list(pool.map(run, range(len(names))))


def test_networks_made_at_the_same_instant(fleet):
    """Three hosts make three networks that do not overlap; of three with one name or one subnet
    there is one."""
    first = fleet.hosts[0]
    assert ["", "", ""] == create(fleet, ("m1", "m2", "m3"))
    subnets = [
        ip_network(s["subnet"]) for n in (1, 2, 3) for s in first.network(f"m{n}")["subnets"]
    ]
    assert 6 == len(set(subnets))
    for names, more in ((("n",) * 3, {}), (("n1", "n2", "n3"), {"subnets": ["10.13.0.0/24"]})):
        found = create(fleet, names, **more)
        assert 1 == found.count(""), found
        for name in set(names):
            first.attempt("network", "rm", name)
    first.seaway("network", "rm", "m1", "m2", "m3")


def test_a_subnet_that_a_host_has_otherwise(fleet):
    """A host with a network or a route of its own there refuses to take part; others do not."""
    first, second, third = fleet.hosts
    with (
        second.networks("own", flags=("--subnet", "10.14.0.0/24")),
        first.networks("shared", flags=("-d", "overlay", "--subnet", "10.14.0.0/16")),
        guest(first, "q1", "shared") as q1,
        guest(third, "q3", "shared") as q3,
        namespaces("q2") as (space,),
    ):
        with pytest.raises(Conflict, match=r"10\.14\.0\.0/24, network own"):
            attach(second, "q2", space, "shared")
        assert met(q1, q3, "shared")
        assert NOTHING == second.seaway("plan")


@pytest.mark.parametrize("version", [4, 6])
def test_networks_of_one_ip_version(fleet, version):
    """Containers of two hosts talk over IPv4 or IPv6 alone."""
    first, second, _ = fleet.hosts
    with (
        first.networks("only", flags=("-d", "overlay", f"--ipv{10 - version}=false")),
        guest(first, "o1", "only", dns=[INTERNET]) as o1,
        guest(second, "o2", "only") as o2,
    ):
        (own,) = filter(None, at(o2, "only"))
        assert str(version) == str(ip_address(own).version)
        wait_until(lambda: " 0% packet loss" in ping(o1, own, 1300), 2)
        assert own in ask(o1, "o2 A", "o2 AAAA")


# -- looking at networks, removing them -----------------------------------------------------------


def test_every_host_shows_all_members_and_where_they_are(fleet, town):
    """`network inspect` and `ls` are the same on all hosts."""
    for site in fleet.hosts:
        found = site.network("sea")["containers"]
        assert {"one": "host1", "two": "host2", "three": "host3"} == {
            name: member["host"] for name, member in found.items()
        }
        assert at(town["two"], "sea") == (found["two"]["ipv4"], found["two"]["ipv6"])
        rows = {n["Name"]: n for n in site.json("network", "ls")}
        assert ("3", "cluster") == (rows["sea"]["Containers"], rows["sea"]["Scope"])


def test_a_network_in_use_anywhere_is_not_removed(fleet):
    """`rm` says who is on it and where; `prune` leaves it, and takes those nobody is on."""
    first, second, third = fleet.hosts
    with second.networks("used", "unused", flags=("-d", "overlay")):
        with guest(third, "user", "used"):
            done = first.attempt("network", "rm", "used")
            assert (1, 1) == (done.status, done.err.count("\n"))
            assert "user (on host3)" in done.err
            assert "unused" in first.seaway("network", "prune", "-f").split()
            left = {n["Name"] for n in second.json("network", "ls")}
            assert "used" in left
            assert "unused" not in left
        assert "used" == first.seaway("network", "rm", "used")
        wait_until(lambda: "used" not in {n["name"] for n in third.ask("/v1/networks")}, 3)


# -- carriers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_containers_of_three_hosts_talk(town, network):
    """Over both families and both transports; the server sees the client's own address."""
    own, target = at(town["three"], network), at(town["two"], network)
    assert [f"two 80 {own[0]}", f"two 80 {own[1]}"] * 2 == reach(town["three"], *targets(target))
    own, target = at(town["two"], network), at(town["one"], network)
    assert [f"one 80 {own[0]}", f"one 80 {own[1]}"] * 2 == reach(town["two"], *targets(target))


@pytest.mark.parametrize("network", NETWORKS)
def test_what_is_on_the_wire(fleet, town, network):
    """Encrypted: nothing of a packet; direct: the packet itself; VXLAN: all of it, in UDP."""
    mark = f"words of {network}"
    own, target = at(town["one"], network), at(town["two"], network)
    with recording(town["two"], 70) as heard, capturing(fleet.wire, "host1") as frames:
        for source, to in zip(own, target, strict=True):
            tell(town["one"], to, 70, mark)
            assert f"{source} {mark}" == heard()
        seen = frames()

    read = [p for p in map(packet, seen) if p]
    spoken = [p for f in seen if mark.encode() in f and (p := packet(f))]
    ports = {p.port for p in read if p.proto == 17 and p.source in WORLD}
    inner = {p.source for p in read if p.proto == 17} & set(own)
    if CARRIED[network] == "wireguard":
        assert [] == spoken
        assert set() == inner
        assert ports & set(WIREGUARD)
        assert not any(ip_address(a).packed in frame for a in own for frame in seen)
    elif CARRIED[network] == "vxlan":
        assert {(HOSTS[0], HOSTS[1], VXLAN)} == {(p.source, p.target, p.port) for p in spoken}
        assert 2 == len(spoken)
    else:
        assert list(zip(own, target, strict=True)) == [(p.source, p.target) for p in spoken]


# -- packet sizes --------------------------------------------------------------------------------


def mtu_of(container: Container, network: str) -> int:
    """The MTU that the container's interface says."""
    link = container.on(network)["interface"]
    return int(re.findall(r" mtu (\d+) ", container.run(f"ip -o link show dev {link}"))[0])


def ping(space: Namespace, target: str, size: int, seconds: float = 1) -> str:
    """Send one IP packet of *size* bytes that must not be cut; what ping says, good or bad."""
    head = 48 if ":" in target else 28
    command = f"ping -n -c 1 -W {seconds} -M do -s {size - head} {target}"
    return space.shell(f"{command} 2>&1 || true")


@pytest.mark.parametrize("network", NETWORKS)
def test_full_packets_pass(town, network):
    """The interface has exactly what the carrier leaves of 1500 bytes, and that much passes."""
    assert MTU[network] == mtu_of(town["three"], network)
    for address in at(town["two"], network):
        assert " 0% packet loss" in ping(town["three"], address, MTU[network])
        refused = ping(town["three"], address, MTU[network] + 1, SOON)
        assert "message too long" in refused.lower()


_TRANSFER = """
import socket, sys
address, mib = sys.argv[1], int(sys.argv[2])
with socket.create_connection((address, 81), 10) as s:
    s.settimeout(20)
    for _ in range(mib):
        s.sendall(bytes(1 << 20))
    s.shutdown(socket.SHUT_WR)
    back = 0
    while piece := s.recv(1 << 16):
        back += len(piece)
print(back)
"""
_ECHO = """
import socket
s = socket.create_server(("::", 81), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
while True:
    c, _ = s.accept()
    kept = []
    while piece := c.recv(1 << 16):
        kept.append(piece)
    for piece in kept:
        c.sendall(piece)
    c.close()
"""


def transfer(
    source: Namespace, target: Namespace, addresses: tuple[str, ...], mib: int = 2
) -> None:
    """Send so much over TCP to each address and have it back."""
    with target.started(sys.executable, "-c", _ECHO) as echo:
        assert "ready" == echo.stdout.readline().strip()
        for address in addresses:
            assert str(mib << 20) == source.python(_TRANSFER, address, str(mib))


@pytest.mark.parametrize("network", NETWORKS)
def test_much_data_passes(town, network):
    """Megabytes over TCP, both ways and over both families."""
    transfer(town["three"], town["one"], at(town["one"], network))


def test_a_narrower_link_below(fleet, town):
    """With an MTU of 1400 on one host large packets are refused with the right number there, and
    large transfers pass both ways."""
    site = fleet.hosts[1]
    site.host.run("ip link set eth0 mtu 1400")
    try:
        for network in NETWORKS:
            fits = MTU[network] - 100
            wait_until(lambda n=network, f=fits: f == mtu_of(town["two"], n), 5, network)
            for address in at(town["one"], network):
                said = ping(town["two"], address, fits + 1, SOON)
                assert str(fits) in re.findall(r"mtu ?[=:] ?(\d+)", said), said
                assert " 0% packet loss" in ping(town["two"], address, fits)
            transfer(town["two"], town["one"], at(town["one"], network), 1)
            transfer(town["one"], town["two"], at(town["two"], network)[:1], 1)
    finally:
        site.host.run("ip link set eth0 mtu 1500")
    for network in NETWORKS:
        wait_until(lambda n=network: MTU[n] == mtu_of(town["two"], n), 5, network)


# -- addresses -----------------------------------------------------------------------------------


def test_each_host_has_its_own_block(fleet, town):
    """Addresses of a host's containers are near each other, and apart from other hosts'."""
    blocks = [
        {b["block"] for b in node["blocks"] if b["network"] == "sea"}
        for node in (fleet.hosts[0].ask(f"/v1/nodes/host{n}") for n in (1, 2, 3))
    ]
    for name, mine in zip(("one", "two", "three"), blocks, strict=True):
        assert 2 == len(mine)
        assert all(any(ip_address(a) in ip_network(b) for b in mine) for a in at(town[name], "sea"))
    assert 6 == len(set().union(*blocks))


def test_more_containers_elsewhere_change_nothing_here(fleet, town):
    """Other hosts have one route for each block; five more containers add no kernel object."""
    here, there = fleet.hosts[2], fleet.hosts[1]
    node = here.ask("/v1/nodes/host2")
    ways = [b["block"] for b in node["blocks"] if b["network"] == "sea"]
    assert sorted(ways) == sorted(r.split()[0] for r in routes(here) if r.split()[0] in ways)
    before = routes(here), elements(here), here.host.run("ip neigh show nud permanent")

    with guests(there, [f"extra{n}" for n in range(5)], "sea") as extra:
        found = [at(c, "sea")[0] for c in extra]
        wait_until(lambda: found[-1:] == ask(town["three"], "extra4 A"), 3)
        assert before == (
            routes(here),
            elements(here),
            here.host.run("ip neigh show nud permanent"),
        )
        for address in found:
            assert " 0% packet loss" in ping(town["three"], address, 100)
        assert " 0% packet loss" in ping(extra[0], found[1], 100)  # on the same host


def test_an_address_of_ones_choice_on_any_host(fleet, town):
    """--ip anywhere in the subnet: in another host's block, outside the range, and given back."""
    first, second, third = fleet.hosts
    ranged = ("-d", "overlay", "--subnet", "10.11.0.0/24", "--ip-range", "10.11.0.128/25")
    before = belongings(third)
    with first.networks("pick", flags=ranged):
        with (
            guest(first, "p1", "pick") as p1,
            guest(second, "p2", "pick", ip="10.11.0.9") as p2,
            answering(p1, "p1", tcp=(80,)),
            answering(p2, "p2", tcp=(80,)),
        ):
            inside = str(ip_address(at(p1, "pick")[0]) + 3)
            with guest(third, "p3", "pick", ip=inside) as p3, answering(p3, "p3", tcp=(80,)):
                assert inside == at(p3, "pick")[0]
                assert met(p1, p3, "pick")
                assert met(p2, p3, "pick")
                for client_, own in ((p1, at(p1, "pick")[0]), (p2, "10.11.0.9"), (p3, inside)):
                    others = {"p1": at(p1, "pick")[0], "p2": "10.11.0.9", "p3": inside}
                    others.pop(client_.name)
                    assert [f"{n} 80 {own}" for n in others] == reach(
                        client_, *(f"tcp://{a}:80" for a in others.values())
                    )
                # ... and its rightful owner does not hand it out
                with guests(first, [f"p1{n}" for n in range(4)], "pick") as more:
                    assert inside not in {at(c, "pick")[0] for c in more}
            for outside in ("10.11.1.5", "10.11.0.1", "10.11.0.255"):
                with namespaces("bad") as (space,), pytest.raises(SeawayError, match=outside):
                    attach(second, "bad", space, "pick", ip=outside)
            # given back: the next one may have it, on any host
            with guest(second, "p4", "pick", ip=inside) as p4:
                assert met(p1, p4, "pick")
        first.seaway("network", "rm", "pick")
        wait_until(lambda: before == belongings(third), 3)
        assert NOTHING == third.seaway("plan")


def race(fleet: Fleet, names: tuple[str, ...], **more: str) -> list[str]:
    """Attach one guest on each host to "sea", at the same instant; "" or the error for each."""
    with namespaces(*(f"runner{n}" for n in range(len(names)))) as spaces:

        def run(n: int) -> str:
            try:
                attach(fleet.hosts[n], names[n], spaces[n], "sea", **more)
            except Conflict as err:
                return str(err)
            return ""

        with ThreadPoolExecutor(len(names)) as pool:
            found = list(pool.map(run, range(len(names))))
        for site, name, said in zip(fleet.hosts, names, found, strict=True):
            if not said:
                client(site).request("DELETE", f"/v1/sandboxes/{name}")
    return found


def test_of_three_that_want_one_address_one_gets_it(fleet, town):
    """The others are told who has it, and where."""
    wanted = str(ip_address(at(town["one"], "sea")[0]) + 7)
    for _ in range(3):
        found = race(fleet, ("r1", "r2", "r3"), ip=wanted)
        winner = found.index("") + 1
        losers = [said for said in found if said]
        assert 2 == len(losers), found
        assert all(wanted in s and f"r{winner} on host{winner}" in s for s in losers), found


def test_of_three_with_one_name_one_gets_it(fleet, town):
    """A name is one container's on a network; another network has its own."""
    for _ in range(3):
        found = race(fleet, ("same", "same", "same"))
        winner = found.index("") + 1
        losers = [said for said in found if said]
        assert 2 == len(losers), found
        assert all(f"same already on host{winner}" in said for said in losers), found
    first, second, _ = fleet.hosts
    with guest(first, "same", "sea"), guest(second, "same", "tubes"):
        pass


def test_a_small_network_is_used_to_its_last_address(fleet):
    """Hosts without a block borrow single addresses; the next container is told that none is left,
    and one that goes makes room."""
    flags = ("-d", "overlay", "--subnet", "10.12.0.0/29", "--ipv6=false")
    with fleet.hosts[0].networks("small", flags=flags), ExitStack() as stack:
        order = [fleet.hosts[n % 3] for n in range(5)]
        made = [stack.enter_context(guest(s, f"s{n}", "small")) for n, s in enumerate(order)]
        usable = {f"10.12.0.{n}" for n in range(2, 7)}
        assert usable == {at(c, "small")[0] for c in made}
        for site in fleet.hosts:
            with namespaces("more") as (space,), pytest.raises(Exhausted, match=r"10\.12\.0\.0/29"):
                attach(site, "more", space, "small")
        assert all(met(c, made[-1], "small") for c in made[:-1])
        for c in made:
            reached = [ping(c, a, 100) for a in usable - {at(c, "small")[0]}]
            assert all(" 0% packet loss" in said for said in reached)

        gone = at(made[3], "small")[0]
        client(fleet.hosts[0]).request("DELETE", "/v1/sandboxes/s3")
        with guest(fleet.hosts[2], "s6", "small") as late:
            assert gone == at(late, "small")[0]
            wait_until(lambda: " 0% packet loss" in ping(made[1], gone, 100, SOON), 3)


# -- who cannot reach whom -----------------------------------------------------------------------


def test_networks_cannot_reach_each_other(fleet, town):
    """Not two overlay networks, on one host or two; nor an overlay network and a host's own."""
    first = fleet.hosts[0]
    with (
        first.networks("else", flags=("-d", "overlay", "-o", "encrypted=false")),
        first.networks("yard"),
        guest(first, "alien", "else") as alien,
        guest(first, "local", "yard") as local,
        answering(alien, "alien", tcp=(80,), udp=(80,)),
        answering(local, "local", tcp=(80,), udp=(80,)),
    ):
        before = first.drops("isolated")
        wanted = [
            t
            for name in ("one", "two")
            for n in ("sea", "clear")
            for t in targets(at(town[name], n))
        ]
        for stranger in (alien, local):
            assert {"silence"} == set(reach(stranger, *wanted, seconds=SOON))
        assert before + 2 * len(wanted) <= first.drops("isolated")
        back = [*targets(at(alien, "else")), *targets(at(local, "yard"))]
        assert {"silence"} == set(reach(town["one"], *back, seconds=SOON))
        back = targets(at(alien, "else"))
        assert {"silence"} == set(reach(town["two"], *back, seconds=SOON))


def test_an_internal_network_spans_hosts_and_ends_there(fleet, town):
    """Its members on all hosts reach each other; there is no way out."""
    first, second, _ = fleet.hosts
    with (
        first.networks("cellar", flags=("-d", "overlay", "--internal")),
        guest(first, "c1", "cellar") as c1,
        guest(second, "c2", "cellar") as c2,
        answering(c2, "c2", tcp=(80,), udp=(80,)),
    ):
        assert met(c1, c2, "cellar")
        assert ["c2"] * 4 == [r.split()[0] for r in reach(c1, *targets(at(c2, "cellar")))]
        assert [at(c2, "cellar")[0]] == ask(c1, "c2 A")
        outward = [f"tcp://{INTERNET}:90", f"tcp://[{INTERNET6}]:90", f"udp://{CLIENT}:90"]
        assert "internet" not in " ".join(reach(c1, *outward, seconds=SOON))
        c1.run(f"ip route add default via {c1.on('cellar')['gateway4']}")
        assert {"silence"} == set(reach(c1, outward[0], outward[2], seconds=SOON))


def test_strangers_on_the_wire_are_not_let_in(fleet, town):
    """A machine that is no host cannot send to containers, though it has a route."""
    first = fleet.hosts[0]
    before = first.drops("isolated")
    wanted = [t for network in NETWORKS for t in targets(at(town["one"], network))]
    ways = [
        f"{address} via {HOSTS6[0] if ':' in address else HOSTS[0]}"
        for network in NETWORKS
        for address in at(town["one"], network)
    ]
    for way in ways:
        fleet.outside.run(f"ip route add {way}")
    try:
        assert {"silence"} == set(reach(fleet.outside, *wanted, seconds=SOON))
        assert before + len(wanted) <= first.drops("isolated")
    finally:
        for way in ways:
            fleet.outside.run(f"ip route del {way}")


# -- the world ----------------------------------------------------------------------------------


def test_the_way_out_is_the_containers_own_host(town):
    """Packets to the world leave from the host it runs on, with that host's addresses."""
    out = (f"tcp://{INTERNET}:90", f"tcp://[{INTERNET6}]:90", f"udp://{CLIENT}:90")
    for name, v4, v6 in zip(("one", "two", "three"), HOSTS, HOSTS6, strict=True):
        assert [f"internet 90 {v4}", f"internet 90 {v6}", f"internet 90 {v4}"] == reach(
            town[name], *out
        )


def test_a_published_port_is_at_the_containers_own_host(fleet, town):
    """From outside, from its host, and from containers of other hosts and networks."""
    there, there6 = f"tcp://{HOSTS[1]}:8080", f"tcp://[{HOSTS6[1]}]:8080"
    assert [f"two 80 {CLIENT}"] == reach(fleet.outside, there)
    assert ["two", "two"] == [r.split()[0] for r in reach(fleet.outside, there, there6)]
    for space in (fleet.hosts[1].host, fleet.hosts[0].host, town["one"], town["two"]):
        assert ["two", "two"] == [r.split()[0] for r in reach(space, there, there6)]
    assert ["refused"] == reach(fleet.outside, f"tcp://{HOSTS[0]}:8080")
