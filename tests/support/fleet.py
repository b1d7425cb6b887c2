"""Several hosts with real containers, in one cluster, and what tests say to them.

    with running_fleet("ov-names") as fleet:
        one, two, three = fleet.hosts
        with one.container("web", "--network", "sea") as web, guest(two, "vm", "sea") as vm:
            assert ["web 80 10.84.0.18"] == reach(vm, f"tcp://{web.on('sea')['ipv4']}:80")

A guest is a bare namespace that is attached: all that Seaway does for a container, without the
second that Podman takes.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from seaway.cli.client import Client
from seaway.errors import SeawayError
from seaway.lab.lifecycle import running_lab
from seaway.lab.topology import OUTSIDE, Lab
from tests.support.netns import Namespace, namespaces, wait_until
from tests.support.site import NOTHING, PREDEFINED, Container, Site, free_name

OF_HOSTS = ("host_port", "host_address4", "host_address6")
"""Sets whose elements come and go with hosts of the cluster, whatever is on this one."""


class Fleet:
    """The hosts of one lab.

    Attributes:
        hosts: In the order of their numbers.
        outside: The namespace that plays the internet.
        wire: The namespace of the bridge between them, with a port for each called as it is.
    """

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.hosts = tuple(Site(lab, name) for name in lab.host_names)
        self.outside = Namespace(lab.machine(OUTSIDE).netns.name)
        self.wire = Namespace(lab.wire_netns.name)

    def empty(self) -> None:
        """Remove all containers and networks that tests have left, host by host."""
        for site in self.hosts:
            for sandbox in site.ask("/v1/sandboxes"):
                site.seaway("rm", "-f", sandbox["name"])
        for site in self.hosts:
            for network in {n["name"] for n in site.ask("/v1/networks")} - PREDEFINED:
                site.attempt("network", "rm", network)


@contextmanager
def running_fleet(name: str, hosts: int = 3, *, cluster: bool = True) -> Iterator[Fleet]:
    """A lab for one module of tests; at the end its hosts are as empty as at the start."""
    with free_name(name) as own, running_lab(own, hosts, cluster=cluster) as lab:
        fleet = Fleet(lab)
        before = [belongings(site) for site in fleet.hosts]
        yield fleet
        fleet.empty()
        for site, had in zip(fleet.hosts, before, strict=True):
            with suppress(AssertionError):
                wait_until(lambda s=site, h=had: h == belongings(s), 3)
            assert had == belongings(site), site.machine.name
            assert NOTHING == site.seaway("plan")


def belongings(site: Site) -> dict[str, Any]:
    """List what containers and networks leave on a host, but nothing of the agent's own."""
    return {
        "networks": sorted(n["name"] for n in site.ask("/v1/networks")),
        "containers": sorted(s["name"] for s in site.ask("/v1/sandboxes")),
        "links": sorted(re.findall(r"^\d+: ([^:@]+)", site.host.run("ip -o link"), re.MULTILINE)),
        "routes": routes(site),
        "elements": {n: e for n, e in elements(site).items() if n not in OF_HOSTS},
    }


def routes(site: Site) -> list[str]:
    """List the kernel's IPv4 and IPv6 routes on a host, without those that it learns by itself."""
    listing = site.host.run("ip -4 route show table all") + site.host.run("ip -6 route")
    return sorted(re.sub(r" +(expires \d+sec|pref \w+)", "", line) for line in listing.splitlines())


def elements(site: Site) -> dict[str, list[str]]:
    """List the elements of every set and map of our table on a host."""
    listing = json.loads(site.host.run("nft -j list table inet seaway"))["nftables"]
    named = (o[kind] for o in listing for kind in ("set", "map") if kind in o)
    return {o["name"]: sorted(map(json.dumps, o.get("elem", []))) for o in named}


@contextmanager
def guest(site: Site, name: str, *networks: str, **more: Any) -> Iterator[Container]:
    """Attach a namespace to *networks* of a host; ``more`` is what the API's request may have."""
    with namespaces(name) as (space,):
        attach(site, name, space, *networks, **more)
        try:
            yield Container(site, name)
        finally:
            with suppress(SeawayError):  # the test may have removed it
                client(site).request("DELETE", f"/v1/sandboxes/{name}")


@contextmanager
def guests(site: Site, names: list[str], *networks: str) -> Iterator[list[Container]]:
    """Attach several namespaces to the same networks."""
    with ExitStack() as stack:
        yield [stack.enter_context(guest(site, name, *networks)) for name in names]


def attach(site: Site, name: str, space: Namespace, *networks: str, **more: Any) -> None:
    """Attach a namespace; the first network's endpoint gets what *more* says of one.

    Raises:
        SeawayError: As the agent says.
    """
    wanted: list[dict[str, Any]] = [{"network": network} for network in networks]
    for key in ("ip", "ip6", "aliases"):
        if key in more:
            wanted[0][key] = more.pop(key)
    request = {"name": name, "netns": str(space.path), "networks": wanted} | more
    client(site).request("POST", "/v1/sandboxes", request)


def client(site: Site) -> Client:
    """Return the API client of a host's agent."""
    return Client(str(site.machine.socket))
