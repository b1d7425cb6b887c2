"""Names: what is found, by whom, from when until when, and who is asked for the rest."""

from __future__ import annotations

import pytest

from tests.support.netns import Refused, wait_until
from tests.support.resolve import look_up, naming
from tests.support.site import HOST, HOST6, INTERNET, INTERNET6, Container, running_site

WORLD = {
    "example.com": "198.51.100.7",
    "many.example": " ".join(f"198.51.100.{n}" for n in range(1, 60)),
}
UPSTREAM = ("--dns", INTERNET)


@pytest.fixture(scope="module")
def site():
    """A host for this module, and a name server on ``outside``."""
    with running_site("ee-names") as site, naming(site.outside, INTERNET, WORLD):
        yield site


@pytest.fixture(scope="module")
def town(site):
    """A client on "front", a database on "back", and a web server on both."""
    with (
        site.networks("front", "back"),
        site.container("client", "--network", "front", *UPSTREAM) as client,
        site.container(
            "db",
            *("--network", "back", "--network-alias", "database", "--hostname", "pg", *UPSTREAM),
        ) as db,
        site.container(
            "web",
            *("--network", "name=front,alias=www,alias=shop", "--network", "name=back,alias=app"),
            *("--hostname", "web-1.example.org", *UPSTREAM),
            image="nginx",
        ) as web,
    ):
        yield {c.name: c for c in (client, db, web)}


def server_of(container: Container) -> str:
    """The name server a container was given."""
    return container.view()["resolver"]


def ask(container: Container, *questions: str, seconds: float = 3) -> list[str]:
    """Ask the container's own name server, from inside it."""
    return look_up(container, server_of(container), *questions, seconds=seconds)


# -- who is found ------------------------------------------------------------------------------


def test_a_container_is_found_by_each_of_its_names(town):
    """Name, aliases, host name, short id, each alone and with the network; over UDP and TCP."""
    web = town["web"].on("front")
    short = town["web"].view()["container"][:12]
    names = ("web", "www", "shop", "WeB", "web-1.example.org", "web-1", short)
    names += tuple(f"{name}.front" for name in ("web", "www", "shop", "web-1", short))
    for over in ("", " tcp"):
        assert [web["ipv4"]] * len(names) == ask(town["client"], *(f"{n} A{over}" for n in names))
        assert [web["ipv6"]] * 2 == ask(town["client"], f"web AAAA{over}", f"www.front AAAA{over}")


def test_addresses_lead_back_to_names(town):
    """A reverse question for an address of the asker's networks gives NAME.NETWORK."""
    front, back = town["web"].on("front"), town["db"].on("back")

    assert ["web.front.", "web.front."] == ask(
        town["client"], f"{front['ipv4']} PTR", f"{front['ipv6']} PTR"
    )
    # of other networks, and of nobody, it is not told, nor is anybody else asked
    nobody = front["ipv4"].rpartition(".")[0] + ".250"
    assert ["NXDOMAIN"] * 2 == ask(town["client"], f"{back['ipv4']} PTR", f"{nobody} PTR")


def test_names_mean_what_they_mean_on_the_networks_of_who_asks(town):
    """An address is told to members of its network only, whichever server they ask."""
    front, back = town["web"].on("front"), town["web"].on("back")
    db = town["db"].on("back")

    assert [front["ipv4"], "NXDOMAIN", "NXDOMAIN", "NXDOMAIN"] == ask(
        town["client"], "web A", "web.back A", "db A", "app A"
    )
    assert [back["ipv4"], back["ipv4"], "NXDOMAIN"] == ask(
        town["db"], "web A", "app A", "web.front A"
    )
    assert [db["ipv4"]] * 3 == ask(town["web"], "db A", "database A", "pg A")
    # the other network's gateway answers the same
    assert [front["ipv4"]] == look_up(town["client"], front["gateway4"], "web A")
    assert ["NXDOMAIN"] == look_up(town["client"], back["gateway4"], "db A")
    assert [front["ipv4"]] == look_up(town["client"], back["gateway6"], "web A")


def test_strangers_are_not_answered(site, town):
    """Whoever is no container of ours gets no answer, so nobody on the LAN can use the server."""
    gateway = town["web"].on("front")["gateway4"]
    site.outside.run(f"ip route add {gateway} via {HOST}")

    assert {"REFUSED"} == set(look_up(site.outside, gateway, "web A", "example.com A"))
    assert ["ConnectionRefusedError"] == look_up(site.outside, HOST, "web A tcp")


def test_a_family_that_is_missing_is_no_data(site):
    """Where a name has no address of the asked family, the answer says so, not "no such name"."""
    with (
        site.networks("only4", flags=("--ipv6=false",)),
        site.networks("only6", flags=("--ipv4=false",)),
        site.container("four", "--network", "only4") as four,
        site.container("six", "--network", "only6") as six,
    ):
        assert [four.on("only4")["ipv4"], "NODATA", "NODATA"] == ask(
            four, "four A", "four AAAA", "four MX"
        )
        assert ["NODATA", six.on("only6")["ipv6"]] == ask(six, "six A", "six AAAA")
        assert "nameserver fd" in six.inside("cat", "/etc/resolv.conf")
        assert six.on("only6")["ipv6"] in six.inside("nslookup", "six")


def test_two_containers_may_share_an_alias(site, town):
    """An alias that two containers have leads to both."""
    with (
        site.container("a1", "--network", "front", "--network-alias", "pool") as a1,
        site.container("a2", "--network", "front", "--network-alias", "pool") as a2,
    ):
        both = sorted(c.on("front")["ipv4"] for c in (a1, a2))
        assert [" ".join(both)] == ask(town["client"], "pool A")


# -- from when, until when ---------------------------------------------------------------------


def test_a_name_answers_as_soon_as_run_returns(site, town):
    """The first question after ``run -d`` finds the container, the first after ``rm`` does not."""
    for round_ in range(3):
        with site.container("new", "--network", "front") as new:
            address = new.on("front")["ipv4"]
            assert [address, address] == ask(town["client"], "new A", "new.front A"), round_
        assert ["NXDOMAIN", "NXDOMAIN", "NXDOMAIN"] == ask(
            town["client"], "new A", "new.front A", f"{address} PTR"
        )


def test_a_stopped_container_has_no_name(site, town):
    """Its names go with ``stop``, or when its process ends, and come back with ``start``."""
    with site.container("tired", "--network", "front") as tired:
        address = tired.on("front")["ipv4"]
        assert [address] == ask(town["client"], "tired A")
        site.seaway("stop", "-t", "0", "tired")
        assert ["NXDOMAIN"] == ask(town["client"], "tired A")
        site.seaway("start", "tired")
        assert [address] == ask(town["client"], "tired A")
    with site.container("short", "--network", "front", command=("true",)):
        wait_until(lambda: ["NXDOMAIN"] == ask(town["client"], "short.front A"))


def test_a_network_connected_later_brings_its_names(site, town):
    """Names of a network answer once ``connect`` returns, and no more after ``disconnect``."""
    db = town["db"].on("back")["ipv4"]
    site.seaway("network", "connect", "--alias", "latecomer", "back", "client")
    assert [db] == ask(town["client"], "db A")
    assert [town["client"].on("back")["ipv4"]] == ask(town["db"], "latecomer A")
    site.seaway("network", "disconnect", "back", "client")
    assert ["NXDOMAIN"] == ask(town["client"], "db A")
    assert ["NXDOMAIN"] == ask(town["db"], "latecomer.back A")


# -- the rest of the world ---------------------------------------------------------------------


def test_other_names_are_asked_of_the_server_named_by_dns(site, town):
    """--dns says who is asked for names of the world, over UDP and TCP; the host asks."""
    with naming(site.outside, INTERNET6, WORLD) as heard:
        with site.container("asker", "--network", "front", "--dns", INTERNET6) as asker:
            assert ["198.51.100.7", "NXDOMAIN"] == ask(asker, "example.com A", "nobody.example A")
            assert {f"{HOST6} example.com A udp", f"{HOST6} nobody.example A udp"} == {
                heard(),
                heard(),
            }
            assert "198.51.100.7" in asker.inside("nslookup", "example.com")
            (many,) = ask(asker, "many.example A tcp")
            assert 59 == len(many.split())


def test_a_second_dns_server_is_asked_when_the_first_is_silent(site, town):
    """A server that does not answer is passed over within the resolver's patience."""
    silent = "198.51.100.53"  # nobody is there
    with site.container("patient", "--network", "front", "--dns", silent, *UPSTREAM) as patient:
        assert ["198.51.100.7"] == ask(patient, "example.com A", seconds=4)
        assert "198.51.100.7" in patient.inside("nslookup", "example.com")


def test_names_of_ours_are_never_asked_elsewhere(site, town):
    """Unknown names below a network's name are answered here, though others would know better."""
    with naming(site.outside, INTERNET6, {"ghost.front": "198.51.100.1"} | WORLD) as heard:
        with site.container("asker", "--network", "front", "--dns", INTERNET6) as asker:
            assert ["NXDOMAIN", "NXDOMAIN"] == ask(asker, "ghost.front A", "last.example A")
            assert f"{HOST6} last.example A udp" == heard()


# -- flags -------------------------------------------------------------------------------------


def test_resolv_conf_says_what_was_asked_for(site, town):
    """The container asks its gateway only; --dns-search and --dns-option are passed on."""
    gateway = town["web"].on("front")["gateway4"]
    told = town["client"].inside("cat", "/etc/resolv.conf").split("\n")
    assert [f"nameserver {gateway}", "options ndots:0"] == sorted(filter(None, told))

    flags = ("--dns-search", "example", "--dns-search", "corp.example")
    flags += ("--dns-option", "ndots:2", "--dns-opt", "timeout:3", *UPSTREAM)
    with site.container("picky", "--network", "front", *flags) as picky:
        told = picky.inside("cat", "/etc/resolv.conf").splitlines()
        assert "search example corp.example" in told
        assert f"nameserver {gateway}" in told
        assert "options ndots:2 timeout:3" in told
        # a short name is searched for there: many.example
        assert "(198.51.100." in picky.inside("sh", "-c", "ping -c 1 -W 1 many || true")


def test_add_host_and_hostname_are_in_etc_hosts(site, town):
    """--add-host takes IPv4, IPv6 and host-gateway; --hostname is set, and leads to oneself."""
    flags = ("--add-host", "four:198.51.100.4", "--add-host", "six:[2001:db8:bad::6]")
    flags += ("--add-host", "eight=198.51.100.8", "--add-host", "outer:host-gateway")
    with site.container("hosted", "--network", "front", "--hostname", "box", *flags) as hosted:
        lines = hosted.inside("cat", "/etc/hosts").splitlines()
        table = {name: line.split()[0] for line in lines for name in line.split()[1:]}
        own = hosted.on("front")
        wanted = {
            "four": "198.51.100.4",
            "six": "2001:db8:bad::6",
            "eight": "198.51.100.8",
            "outer": own["gateway4"],
            "box": own["ipv4"],
        }
        assert wanted.items() <= table.items()
        assert "box" == hosted.inside("hostname")
        assert [own["ipv4"]] == ask(town["client"], "box A")


def test_a_container_in_anothers_network_asks_the_same_server(site, town):
    """--network container:NAME shares the names that NAME can see, too."""
    own = town["db"].on("back")["ipv4"]
    words = ("run", "--rm", "--network", "container:web", "busybox", "nslookup", "db")
    assert own in site.seaway(*words)


# -- as in the README --------------------------------------------------------------------------


def test_real_programs_find_each_other(site, town):
    """busybox fetches a page from nginx by name, alias and published port, and pings redis."""
    flags = ("--network", "front", "-p", "8081:6379")
    client = town["client"]
    with site.container("cache", *flags, image="redis"):
        for url in ("http://web", "http://shop/", "http://web.front/"):
            wait_until(lambda u=url: "nginx" in client.inside("wget", "-qO-", u))
        script = "printf 'PING\\r\\n' | nc {} {}"
        for place in ("cache 6379", f"{HOST} 8081", f"{HOST6} 8081"):
            assert "+PONG" in client.inside("sh", "-c", script.format(*place.split()))
    with pytest.raises(Refused, match="bad address"):
        client.inside("wget", "-qO-", "http://cache")
