"""Networks: subnets, addresses, several at once, and the way out that moves with them."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from tests.support.site import CLIENT, CLIENT6, HOST, HOST6, INTERNET, INTERNET6, running_site
from tests.support.talk import answering, reach

SLEEP = ("sleep", "1000")


@pytest.fixture(scope="module")
def site():
    """A host for this module, with a server on ``outside``."""
    with running_site("ee-networks") as site, answering(site.outside, "internet", tcp=(90,)):
        yield site


def refused(site, *words):
    """Run a command that fails: one line on stderr, status 1, and nothing changed."""
    before = site.snapshot()
    done = site.attempt(*words)
    assert (1, "", 1) == (done.status, done.out, done.err.count("\n")), done
    assert before == site.snapshot()
    return done.err.strip()


def exits(container):
    """The links that the default routes leave by, IPv4 and IPv6."""
    return [
        line.partition(" dev ")[2].split()[0]
        for version in ("-4", "-6")
        for line in container.run(f"ip {version} route show default").splitlines()
    ]


# -- subnets -----------------------------------------------------------------------------------


def test_a_network_has_both_families_unless_told_otherwise(site):
    """Without flags: a free /24, and a /64 of the host's own ULA; each family can be left out."""
    with (
        site.networks("both", "again"),
        site.networks("four", flags=("--ipv6=false",)),
        site.networks("six", flags=("--ipv4=false",)),
    ):
        shown = {n["Name"]: n["Subnets"].split(", ") for n in site.json("network", "ls")}
        v4, v6 = map(ip_network, shown["both"])
        assert (24, 64) == (v4.prefixlen, v6.prefixlen)
        assert v4.is_private
        assert v6.subnet_of(ip_network("fd00::/8"))
        assert v6.supernet(new_prefix=48) == ip_network(shown["bridge"][1]).supernet(new_prefix=48)
        assert not set(shown["both"]) & set(shown["again"])
        assert [4] == [ip_network(s).version for s in shown["four"]]
        assert [6] == [ip_network(s).version for s in shown["six"]]
        with site.container("c4", "--network", "four") as c4:
            assert ("", True) == (c4.on("four")["ipv6"], bool(c4.on("four")["ipv4"]))
            assert "inet6 fd" not in c4.run("ip address")
        with site.container("c6", "--network", "six") as c6:
            assert "inet " not in c6.run("ip address show dev eth0")
            assert [f"internet 90 {HOST6}"] == reach(c6, f"tcp://[{INTERNET6}]:90")


def test_subnet_gateway_range_and_reserved_addresses(site):
    """Addresses come from --ip-range, and never are the gateway or an --aux-address."""
    flags = ("--subnet", "10.10.0.0/24", "--gateway", "10.10.0.1", "--ip-range", "10.10.0.128/29")
    flags += ("--aux-address", "printer=10.10.0.129", "--aux-address", "door=10.10.0.131")
    flags += ("--subnet", "fd00:5ea:10::/64", "--gateway", "fd00:5ea:10::53")
    flags += ("--ip-range", "fd00:5ea:10::ff00/120")
    with site.networks("backend", flags=flags):
        got = []
        for n in range(3):
            site.seaway("run", "-d", "--name", f"b{n}", "--network", "backend", "busybox", *SLEEP)
            (endpoint,) = site.inspect(f"b{n}")["networks"]
            got.append((endpoint["ipv4"], endpoint["ipv6"], endpoint["gateway6"]))
        assert ["10.10.0.128", "10.10.0.130", "10.10.0.132"] == [v4 for v4, _, _ in got]
        assert all(ip_address(v6) in ip_network("fd00:5ea:10::ff00/120") for _, v6, _ in got)
        assert {"fd00:5ea:10::53"} == {gateway for _, _, gateway in got}
        subnet = site.network("backend")["subnets"][0]
        assert "10.10.0.128/29" == subnet["ip_range"]
        assert {"printer": "10.10.0.129", "door": "10.10.0.131"} == subnet["aux_addresses"]
        assert "printer" in refused(
            site, "run", "-d", "--network", "backend", "--ip", "10.10.0.129", "busybox"
        )
        site.seaway("rm", "-f", "b0", "b1", "b2")


@pytest.mark.parametrize(
    ("subnet", "addresses"),
    [
        ("10.98.0.0/30", ["10.98.0.2"]),
        ("10.98.0.0/31", ["10.98.0.1"]),  # RFC 3021: both are usable
        ("fd00:5ea:98::/126", ["fd00:5ea:98::2", "fd00:5ea:98::3"]),
    ],
)
def test_small_subnets_hold_what_they_can(site, subnet, addresses):
    """A subnet hands out every address but its own and the gateway's, then says who has them."""
    key = "ipv6" if ":" in subnet else "ipv4"
    only = "--ipv4=false" if ":" in subnet else "--ipv6=false"
    with site.networks("tiny", flags=("--subnet", subnet, only)):
        for n, address in enumerate(addresses):
            site.seaway("run", "-d", "--name", f"t{n}", "--network", "tiny", "busybox", *SLEEP)
            assert address == site.inspect(f"t{n}")["networks"][0][key]
        told = refused(site, "run", "-d", "--network", "tiny", "--name", "late", "busybox")
        assert f"no addresses left in {subnet}" in told
        assert all(f"t{n}" in told for n in range(len(addresses)))
        assert "bytes from" in site.host.run(f"ping -c 1 -W 2 {addresses[0]}")
        site.seaway("rm", "-f", *(f"t{n}" for n in range(len(addresses))))


def test_a_subnet_that_overlaps_is_refused_by_name(site):
    """Routes, name servers and other networks are in the way, and the message says which."""
    site.host.run(f"ip route add 10.77.0.0/16 via {CLIENT}")
    servers = [
        line.split()[1]
        for line in Path("/etc/resolv.conf").read_text().splitlines()
        if line.startswith("nameserver ")
    ]
    servers = [s for s in servers if ip_address(s).version == 4 and not s.startswith("127.")]
    with site.networks("here", flags=("--subnet", "10.55.0.0/20")):
        cases = {
            "192.0.2.128/25": "the route via eth0",
            "10.77.7.0/24": "the route via eth0",
            "10.0.0.0/8": "",
            "10.55.1.0/24": "network here",
            "2001:db8:5ea::/48": "the route via eth0",
            **{f"{server}/32": "name server" for server in servers[:1]},
        }
        for subnet, by in cases.items():
            told = refused(site, "network", "create", "--subnet", subnet, "late")
            assert f"subnet {subnet} overlaps " in told
            assert by in told
    site.host.run(f"ip route del 10.77.0.0/16 via {CLIENT}")


def test_pools_keep_away_from_routes(site):
    """A network without --subnet gets a range that no route of the host covers."""
    site.host.run(f"ip route add 10.83.0.0/16 via {CLIENT}")
    with site.networks("aside"):
        (v4, _) = site.network("aside")["subnets"]
        assert not ip_network(v4["subnet"]).overlaps(ip_network("10.83.0.0/16"))
    site.host.run(f"ip route del 10.83.0.0/16 via {CLIENT}")


# -- life of networks --------------------------------------------------------------------------


def test_networks_are_listed_inspected_and_removed(site):
    """ls and inspect show them; rm refuses one in use by name; prune takes those nobody is on."""
    with site.networks("used", "idle1", "idle2", flags=("--label", "tier=test")):
        with site.container("user1", "--network", "used") as user1:
            (row,) = [n for n in site.json("network", "ls") if n["Name"] == "used"]
            assert ("bridge", "1", "tier=test") == (row["Driver"], row["Containers"], row["Labels"])
            shown = site.network("used")
            assert user1.on("used")["ipv4"] == shown["containers"]["user1"]["ipv4"]
            assert "exists already" in refused(site, "network", "create", "used")
            assert "user1" in refused(site, "network", "rm", "used")
            assert "cannot be removed" in refused(site, "network", "rm", "bridge")
            assert ["idle1", "idle2"] == site.seaway("network", "prune", "-f").split()
        assert {"used", "bridge", "host", "none"} == {n["Name"] for n in site.json("network", "ls")}
        assert "used" == site.seaway("network", "rm", "used")
        assert "used" in refused(site, "network", "rm", "used")
        assert "" == site.seaway("network", "rm", "-f", "used")


def test_the_mtu_of_a_network_holds_at_both_ends(site):
    """-o mtu, also in Docker's spelling, is the MTU of the container's link and of the host's."""
    for n, option in enumerate(("mtu=1400", "com.docker.network.driver.mtu=1400")):
        with site.networks(f"slim{n}", flags=("-o", option)):
            with site.container("thin", "--network", f"slim{n}") as thin:
                assert "mtu 1400" in thin.run("ip link show dev eth0")
                link = thin.on(f"slim{n}")["host_interface"]
                assert "mtu 1400" in site.host.run(f"ip link show dev {link}")


# -- addresses ---------------------------------------------------------------------------------


def test_chosen_addresses_survive_a_stop_and_go_to_nobody_else(site):
    """--ip, --ip6 and --mac-address are kept while the container is stopped, and over restarts."""
    flags = ("--network", "fixed", "--ip", "10.44.0.2", "--ip6", "fd00:5ea:44::2")
    flags += ("--mac-address", "02:42:AC:11:00:44")
    subnets = ("--subnet", "10.44.0.0/29", "--subnet", "fd00:5ea:44::/64")
    with site.networks("fixed", flags=subnets), site.container("fix", *flags) as fix:

        def given():
            link = fix.run("ip address show dev eth0")
            return all(
                text in link
                for text in ("inet 10.44.0.2/32", "inet6 fd00:5ea:44::2/128", "02:42:ac:11:00:44")
            )

        assert given()
        site.seaway("stop", "-t", "0", "fix")
        for n in range(3):  # round and round the subnet: .3 .4 .5, .6 and then?
            with site.container(f"f{n}", "--network", "fixed") as other:
                assert other.on("fixed")["ipv4"] != "10.44.0.2"
        for words in (("--ip", "10.44.0.2"), ("--ip6", "fd00:5ea:44::2")):
            told = refused(site, "run", "-d", "--network", "fixed", *words, "busybox")
            assert f"{words[1]} is held by fix" in told
        names = [f"g{n}" for n in range(4)]
        for name in names:
            site.seaway("run", "-d", "--name", name, "--network", "fixed", "busybox", *SLEEP)
        told = refused(site, "run", "-d", "--network", "fixed", "busybox")
        assert "no addresses left in 10.44.0.0/29: held by fix, g0, g1, g2, g3" in told
        site.seaway("rm", "-f", *names)

        site.seaway("start", "fix")
        assert given()
        assert "bytes from" in site.host.run("ping -c 1 -W 2 10.44.0.2")


def test_given_addresses_stay_the_same_over_a_restart(site):
    """What a container was given by itself - both addresses and the MAC - it keeps, too."""
    with site.networks("keep"), site.container("keeper", "--network", "keep") as keeper:
        before, link = keeper.on("keep"), keeper.run("ip -o address show dev eth0")
        site.seaway("stop", "-t", "0", "keeper")
        with site.container("thief", "--network", "keep") as thief:
            assert before["ipv4"] != thief.on("keep")["ipv4"]
        site.seaway("start", "keeper")
        assert before == keeper.on("keep")
        assert link == keeper.run("ip -o address show dev eth0")


def test_the_long_form_says_it_all_for_one_network(site):
    """--network name=...,alias=...,ip=... sets what the flags set for the first network only."""
    subnets = ("--subnet", "10.45.0.0/24", "--subnet", "fd00:5ea:45::/64")
    with (
        site.networks("plain"),
        site.networks("exact", flags=subnets),
        site.container(
            "long",
            *("--network", "name=plain,alias=one", "--network-alias", "uno"),
            "--network",
            "name=exact,alias=two,alias=due,ip=10.45.0.77,ip6=fd00:5ea:45::77,"
            "mac-address=02:42:ac:11:00:77,gw-priority=1,interface=lan7",
        ) as long,
    ):
        plain, exact = long.on("plain"), long.on("exact")
        assert {"one", "uno"} <= set(plain["names"])
        assert {"two", "due"} <= set(exact["names"])
        assert not {"two", "due"} & set(plain["names"])
        assert ("10.45.0.77", "fd00:5ea:45::77") == (exact["ipv4"], exact["ipv6"])
        link = long.run("ip address show dev lan7")
        assert "02:42:ac:11:00:77" in link
        assert "10.45.0.77/32" in link
        assert ["lan7", "lan7"] == exits(long)
        assert "inet " in long.run("ip address show dev eth0")


# -- several networks --------------------------------------------------------------------------


def test_a_container_is_reached_on_each_of_its_networks(site):
    """A container on several networks has a link on each, and answers there from there."""
    with (
        site.networks("n1", "n2", "n3"),
        site.container(
            "multi", *(w for n in ("n1", "n2", "n3") for w in ("--network", n))
        ) as multi,
        answering(multi, "multi", tcp=(80,)),
    ):
        for number, network in enumerate(("n1", "n2", "n3")):
            endpoint = multi.on(network)
            assert f"eth{number}" == endpoint["interface"]
            with site.container("peer", "--network", network) as peer:
                own = peer.on(network)
                assert [f"multi 80 {own['ipv4']}", f"multi 80 {own['ipv6']}"] == reach(
                    peer, f"tcp://{endpoint['ipv4']}:80", f"tcp://[{endpoint['ipv6']}]:80"
                )
        assert "twice" in refused(
            site, "run", "-d", "--network", "n1", "--network", "n1", "busybox"
        )


def test_the_way_out_and_the_ports_move_with_the_networks(site):
    """connect and disconnect move the default route and the published ports while it runs."""
    url, url6 = f"tcp://{HOST}:9080", f"tcp://[{HOST6}]:9080"
    ports = ("-p", "9080:80", "-p", "9080:80/udp")
    with (
        site.networks("mid", "zed"),
        site.container("mover", "--network", "zed", *ports) as mover,
        answering(mover, "mover", tcp=(80,), udp=(80,)),
    ):

        def serves_by(network):
            """Whether this network is the way out and in, for both families and for good."""
            endpoint = mover.on(network)
            assert [4, 6] == endpoint["default_route"]
            assert [endpoint["interface"]] * 2 == exits(mover)
            assert [f"internet 90 {HOST}", f"internet 90 {HOST6}"] == reach(
                mover, f"tcp://{INTERNET}:90", f"tcp://[{INTERNET6}]:90"
            )
            assert [f"mover 80 {CLIENT}", f"mover 80 {CLIENT6}", f"mover 80 {CLIENT}"] == reach(
                site.outside, url, url6, url.replace("tcp", "udp")
            )
            assert [f"mover 80 {endpoint['gateway4']}"] == reach(site.host, "tcp://127.0.0.1:9080")
            assert "Nothing" in site.seaway("plan")
            return True

        assert serves_by("zed")
        site.seaway("network", "connect", "mid", "mover")
        assert serves_by("mid")  # by name, for want of a priority
        site.seaway("network", "disconnect", "mid", "mover")
        assert serves_by("zed")
        site.seaway("network", "connect", "--gw-priority", "-1", "mid", "mover")
        assert serves_by("zed")
        site.seaway("network", "disconnect", "zed", "mover")
        assert serves_by("mid")
        site.seaway("network", "connect", "--gw-priority", "7", "zed", "mover")
        assert serves_by("zed")

        site.seaway("network", "disconnect", "mid", "mover")
        site.seaway("network", "disconnect", "zed", "mover")
        assert [] == exits(mover)
        assert ["refused", "refused"] != reach(mover, f"tcp://{INTERNET}:90", seconds=0.3)
        assert "Nothing" in site.seaway("plan")
        site.seaway("network", "connect", "mid", "mover")
        assert serves_by("mid")


def test_gateway_order(site):
    """First the priority, then a way out, then both families, then the name decide who is it."""
    with (
        site.networks("a-inner", flags=("--internal",)),
        site.networks("b-four", flags=("--ipv6=false",)),
        site.networks("c-both", "d-both"),
    ):
        every = ("a-inner", "b-four", "d-both", "c-both")
        with site.container("order", *(w for n in every for w in ("--network", n))) as order:
            assert [order.on("c-both")["interface"]] * 2 == exits(order)
            site.seaway("network", "disconnect", "c-both", "order")
            assert [order.on("d-both")["interface"]] * 2 == exits(order)
            site.seaway("network", "disconnect", "d-both", "order")
            assert [order.on("b-four")["interface"]] == exits(order)
            site.seaway("network", "disconnect", "b-four", "order")
            assert [] == exits(order)
        flags = ("--network", "name=b-four,gw-priority=10", "--network", "c-both")
        with site.container("first", *flags) as first:
            assert [first.on("b-four")["interface"], first.on("c-both")["interface"]] == exits(
                first
            )


def test_networks_of_a_stopped_container_can_change(site):
    """connect and disconnect work on a stopped container, and hold once it is started."""
    subnets = ("--subnet", "10.46.0.0/24", "--subnet", "fd00:5ea:46::/64")
    with (
        site.networks("old"),
        site.networks("new", flags=subnets),
        site.container("still", "--network", "old", "-p", "9081:80") as still,
    ):
        site.seaway("stop", "-t", "0", "still")
        site.seaway("network", "connect", "--ip", "10.46.0.9", "--alias", "quiet", "new", "still")
        site.seaway("network", "disconnect", "old", "still")
        site.seaway("start", "still")
        links = still.run("ip -o address")
        assert "10.46.0.9/32" in links
        assert 1 == links.count("scope global dynamic") + links.count("inet 10.")
        assert "quiet" in still.on("new")["names"]
        with answering(still, "still", tcp=(80,)):
            assert [f"still 80 {CLIENT}"] == reach(site.outside, f"tcp://{HOST}:9081")
        told = refused(site, "network", "disconnect", "old", "still")
        assert "is not connected" in told
        site.seaway("network", "disconnect", "-f", "old", "still")
        assert "already" in refused(site, "network", "connect", "new", "still")


def test_sysctls_are_set_inside_and_do_not_disturb_us(site):
    """--sysctl net.* holds in the container; one without IPv6 is simply without IPv6."""
    flags = ("--sysctl", "net.ipv4.ip_unprivileged_port_start=42")
    with site.container("tuned", *flags) as tuned:
        assert "42" in tuned.run("sysctl -n net.ipv4.ip_unprivileged_port_start")
    with site.container("no6", "--sysctl", "net.ipv6.conf.all.disable_ipv6=1") as no6:
        assert "inet6" not in no6.run("ip address")
        assert [f"internet 90 {HOST}"] == reach(no6, f"tcp://{INTERNET}:90")
        assert "" == no6.on()["ipv6"]
        assert "Nothing" in site.seaway("plan")
        assert "healthy" in site.seaway("status")
    flags = ("--sysctl", "net.ipv6.conf.default.disable_ipv6=1", "--ip6", "fd00::9")
    assert "turns IPv6 off" in refused(site, "run", "-d", *flags, "busybox")
