"""A host with real containers loses its agent, or its power, and comes back."""

from __future__ import annotations

import pytest

from seaway.lab import faults
from tests.support.netns import wait_until
from tests.support.site import HOST, NOTHING, Site, running_site

WEB = ("httpd", "-f", "-p", "80", "-h", "/etc")


@pytest.fixture(scope="module")
def site():
    """One lab for the module."""
    with running_site("c-power") as made:
        yield made


@pytest.fixture
def pair(site):
    """Two containers: one with ports fixed and free, on two networks; one of its clients."""
    ports = ("-p", "8080:80", "-p", "80", "-p", "53/udp")
    networks = ("--network", "name=front,alias=www", "--network", "back")
    with (
        site.networks("front", "back"),
        site.container("web", *networks, *ports, command=WEB),
        site.container("db", "--network", "front", "--ip", free(site)),
    ):
        yield site


def free(site: Site) -> str:
    """An address of front that would not be handed out next."""
    subnet = next(s["subnet"] for s in site.network("front")["subnets"] if "." in s["subnet"])
    return subnet.rpartition(".")[0] + ".77"


def addresses(site: Site, name: str) -> list[dict[str, str]]:
    """What must not change, whatever happens to the host."""
    kept = ("network", "interface", "ipv4", "ipv6", "mac")
    return [{key: n[key] for key in kept} for n in site.inspect(name)["networks"]]


def fetch(site: Site, url: str) -> str:
    """Get *url* from inside db."""
    return site.seaway("exec", "db", "wget", "-qO-", url)


def lookup(site: Site, name: str) -> str:
    """Ask for *name* inside db; the answer with both addresses, or the refusal."""
    done = site.attempt("exec", "db", "nslookup", name)
    return done.out + done.err


def test_a_restarted_agent_adopts_containers(pair):
    """SIGKILL and restart: processes, names, ports and process numbers are as before."""
    before = [pair.inspect(name) for name in ("web", "db")]

    faults.kill(pair.lab, "host1")
    faults.start(pair.lab, "host1")

    assert before == [pair.inspect(name) for name in ("web", "db")]
    assert NOTHING == pair.seaway("plan")
    (status,) = pair.json("status")
    assert status["healthy"]
    assert status["repairs"] <= 1
    assert addresses(pair, "web")[0]["ipv6"] in lookup(pair, "www")
    assert "root" in fetch(pair, f"http://{HOST}:8080/passwd")


def test_a_container_that_ended_unwatched_is_stopped(pair):
    """It ends while the agent is dead: afterwards its ports and names are gone, not its address."""
    before = addresses(pair, "web")
    pid = pair.inspect("web")["pid"]

    faults.kill(pair.lab, "host1")
    pair.host.run(f"kill -9 {pid}")
    faults.start(pair.lab, "host1")

    wait_until(lambda: pair.inspect("web")["phase"] == "stopped")
    assert before == addresses(pair, "web")
    assert [] == pair.inspect("web")["ports"]
    assert "NXDOMAIN" in lookup(pair, "web.front")
    assert NOTHING == pair.seaway("plan")


def test_a_host_that_lost_its_power_comes_back(pair):
    """Namespaces, links and addresses are there after boot; `seaway start` runs the containers
    again, where and as they were, with the same free ports."""
    before = addresses(pair, "web"), addresses(pair, "db"), pair.inspect("web")["ports"]

    faults.power_off(pair.lab, "host1")
    faults.start(pair.lab, "host1")

    assert before[:2] == (addresses(pair, "web"), addresses(pair, "db"))
    assert {"stopped"} == {pair.inspect(name)["phase"] for name in ("web", "db")}
    assert NOTHING == pair.seaway("plan")
    for name in ("web", "db"):
        inside = ["nsenter", f"--net={pair.inspect(name)['netns']}", "--", "ip", "-o", "address"]
        listing = pair.host.run(inside)
        assert all(n["ipv4"] in listing and n["ipv6"] in listing for n in addresses(pair, name))

    pair.seaway("start", "web", "db")

    assert before == (addresses(pair, "web"), addresses(pair, "db"), pair.inspect("web")["ports"])
    assert addresses(pair, "web")[0]["ipv6"] in lookup(pair, "www")
    free_port = next(p for p in before[2] if "8080" not in p and "80/tcp" in p)
    number = free_port.split(",")[0].partition("->")[0].rpartition(":")[2]
    assert "root" in fetch(pair, f"http://{HOST}:{number}/passwd")
    assert NOTHING == pair.seaway("plan")


def test_networks_outlive_a_power_failure(site):
    """With nothing attached, networks and their subnets are the same after boot."""
    with site.networks("front", "back"):
        before = [site.network(name) for name in ("front", "back", "bridge")]

        faults.power_off(site.lab, "host1")
        faults.start(site.lab, "host1")

        assert before == [site.network(name) for name in ("front", "back", "bridge")]
        assert NOTHING == site.seaway("plan")
