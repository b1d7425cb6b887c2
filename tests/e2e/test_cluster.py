"""The life of a cluster: making one of a host that has containers, joining, keys, leaving."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import pytest

from seaway.errors import Conflict
from seaway.lab import faults, lifecycle
from seaway.lab.agents import agent_command
from seaway.model.cluster import HostId
from seaway.store import keys
from tests.support.fleet import OF_HOSTS, Fleet, attach, guest, routes, running_fleet
from tests.support.flow import flowing
from tests.support.netns import Namespace, namespaces, wait_until
from tests.support.resolve import look_up, naming
from tests.support.site import CLIENT, HOST, INTERNET, NOTHING, Container, Done, Site
from tests.support.talk import answering, reach

STORES = [f"https://192.0.2.{n}:7901" for n in (1, 2, 3)]
LEASE = 4  # seconds
SOON = 0.3
STRANGE = "SWY1-" + "0" * 64 + "-" + "0" * 32
KINDS = ("networks", "sandboxes", "endpoints")


@dataclass(frozen=True)
class Made:
    """What was seen while the cluster was made.

    Attributes:
        before, after: What Seaway said of what host1 has of its own.
        init: What ``seaway cluster init`` printed.
        wrong: How joining with a wrong token, an old and a mistyped one ended, and under a name
            that is taken.
        joins: What ``seaway cluster join`` printed.
        lost: What was lost between containers of host1 meanwhile.
    """

    before: dict[str, Any]
    after: dict[str, Any]
    init: str
    wrong: dict[str, Done]
    joins: list[str]
    lost: dict[str, Any]


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Three hosts that know nothing of each other."""
    with (
        running_fleet("ov-cluster", cluster=False) as fleet,
        naming(fleet.outside, INTERNET, {}),
    ):
        yield fleet


@pytest.fixture(scope="module")
def alone(fleet: Fleet) -> Iterator[dict[str, Container]]:
    """Containers of host1 from before the cluster: "early", which publishes 8080, and "friend"."""
    first = fleet.hosts[0]
    with (
        first.networks("own"),
        first.container(
            "early",
            *("--network", "name=own,alias=bird", "-p", "8080:80", "--dns", INTERNET),
        ) as early,
        guest(first, "friend", "own", dns=[INTERNET]) as friend,
        answering(early, "early", tcp=(80,)),
    ):
        yield {"early": early, "friend": friend}


@pytest.fixture(scope="module")
def made(fleet: Fleet, alone: dict[str, Container]) -> Made:
    """A cluster of the three hosts."""
    first, second, third = fleet.hosts
    before = own_things(first)
    early, friend = alone["early"], alone["friend"]
    addresses = [early.on("own")["ipv4"], early.on("own")["ipv6"]]
    with flowing(friend, early, addresses) as flow:
        init = first.seaway("cluster", "init", "--lease", str(LEASE))
        lost = flow.lost()
    after = own_things(first)
    old = token_of(first)
    first.seaway("cluster", "token", "rotate")
    wrong = {
        "old": join(second, old),
        "mistyped": join(second, mistyped(token_of(first))),
        "strange": join(second, STRANGE),
    }
    joins = []
    with renamed(fleet, "host2", "host1"):
        wrong["taken"] = join(second, token_of(first))
    for site in (second, third):
        done = join(site, token_of(first))
        assert 0 == done.status, done.err
        joins.append(done.out)
    return Made(before, after, init, wrong, joins, lost)


def own_things(site: Site) -> dict[str, Any]:
    """What a host has of its own: its networks, containers and their addresses."""
    networks = [n for n in site.ask("/v1/networks") if n["driver"] != "overlay"]
    rules = site.snapshot()["rules"]
    return {
        "networks": {n["name"]: n for n in networks},
        "attached": {s["name"]: s for s in site.ask("/v1/sandboxes")},
        "rules": [r for r in rules if not any(f'"name": "{name}"' in r for name in OF_HOSTS)],
    }


def token_of(site: Site) -> str:
    """The token with which others join now."""
    return site.seaway("cluster", "token", "-q")


def join(site: Site, token: str) -> Done:
    """Have a host join."""
    return site.attempt("cluster", "join", "--token", token, HOST)


def mistyped(token: str) -> str:
    """The same with one digit wrong."""
    return token[:-1] + ("0" if token[-1] != "0" else "1")


class renamed:
    """A host whose agent says it is called otherwise, for a block."""

    def __init__(self, fleet: Fleet, host: str, name: str) -> None:
        self._lab, self._host, self._name = fleet.lab, host, name

    def __enter__(self) -> None:
        faults.kill(self._lab, self._host)
        called = lambda m: [*agent_command(m)[:-1], self._name]  # noqa: E731
        faults.start(self._lab, self._host, called)

    def __exit__(self, *_: object) -> None:
        faults.kill(self._lab, self._host)
        faults.start(self._lab, self._host)


def healthy_stores(site: Site) -> int:
    """How many hosts run etcd well."""
    stores = site.ask("/v1/cluster").get("stores", [])
    return sum(1 for s in stores if s["healthy"] and not s["learner"])


def node(site: Site, name: str) -> dict[str, Any]:
    """What ``seaway node inspect`` shows."""
    return dict(site.ask(f"/v1/nodes/{name}"))


def refused(done: Done, *words: str) -> bool:
    """Was it refused, in one line that says all of *words*?"""
    assert (1, 1) == (done.status, done.err.count("\n")), done
    assert [] == [w for w in words if w not in done.err], done.err
    return True


def at(container: Container, network: str) -> tuple[str, str]:
    """The container's addresses on a network."""
    endpoint = container.on(network)
    return endpoint["ipv4"], endpoint["ipv6"]


_READ = """
import asyncio, json, sys
from pathlib import Path
from seaway.cluster.credentials import Credentials
from seaway.errors import StoreError
from seaway.store.etcd import Etcd
async def read():
    etcd = Etcd(sys.argv[3:], Credentials(Path(sys.argv[1])).client_context())
    try:
        found, _ = await etcd.range(sys.argv[2])
        print(json.dumps({kv.key: json.loads(kv.value)["value"] for kv in found}))
    except StoreError as err:
        print(json.dumps(str(err)))
asyncio.run(read())
"""


def below(site: Site, prefix: str) -> Any:
    """Read the cluster's etcd with a host's own certificate; what it says if it does not let us."""
    folder = site.machine.state_dir / "cluster"
    return json.loads(site.host.python(_READ, str(folder), prefix, *STORES))


# -- making it -----------------------------------------------------------------------------------


def test_init_prints_what_others_join_with(made):
    """The command, with the token and the address, as it is to be typed."""
    assert re.search(
        r"^  seaway cluster join --token SWY1-[0-9a-f]{64}-[0-9a-f]{32} 192\.0\.2\.1$",
        made.init,
        re.MULTILINE,
    )


def test_init_leaves_containers_alone(fleet, alone, made):
    """Nothing is lost between them, names and ports answer as before, nothing has changed."""
    assert {} == made.lost
    assert made.before == made.after
    early, friend = alone["early"], alone["friend"]
    v4, v6 = at(early, "own")
    assert [v4, v6] == look_up(friend, friend.view()["resolver"], "bird A", "early AAAA")
    assert [f"early 80 {CLIENT}"] == reach(fleet.outside, f"tcp://{HOST}:8080")
    assert NOTHING == fleet.hosts[0].seaway("plan")


def test_what_a_host_has_is_in_the_store(fleet, made):
    """Its own networks, containers and endpoints are in etcd, below its id."""
    first = fleet.hosts[0]
    host = HostId(node(first, "host1")["id"])
    found = below(first, keys.local(host))
    kinds = {kind: [v for k, v in found.items() if f"/{kind}/" in k] for kind in KINDS}
    assert {"bridge", "host", "none", "own"} == {n["name"] for n in kinds["networks"]}
    assert {"early", "friend"} <= {s["name"] for s in kinds["sandboxes"]}
    assert made.before["attached"].keys() <= {s["name"] for s in kinds["sandboxes"]}
    addresses = {e["v4"] for e in kinds["endpoints"]}
    assert {s["networks"][0]["ipv4"] for s in made.before["attached"].values()} <= addresses


def test_a_member_makes_and_joins_no_other_cluster(fleet, made):
    """Both are refused, and say how to leave."""
    first, second, _ = fleet.hosts
    assert refused(first.attempt("cluster", "init"), "already", "seaway cluster leave")
    assert refused(join(second, STRANGE), "already", "seaway cluster leave")
    assert "host2" in join(second, token_of(first)).out  # its own one again: nothing to do


def test_only_the_right_token_lets_in(made):
    """One that is old, mistyped or another cluster's does not, nor does a name that is taken."""
    for kind in ("old", "mistyped"):
        assert refused(made.wrong[kind], "token")
    assert refused(made.wrong["strange"], HOST)
    assert refused(made.wrong["taken"], "host1", "--node-name")


def test_join_says_who_one_is(made):
    """Name, number and how many there are."""
    for n, said in enumerate(made.joins, 2):
        assert re.search(rf"host{n} has joined cluster \w+ as number {n}: {n} hosts now", said)


# -- keys, agents --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def line(fleet: Fleet, made: Made) -> Iterator[list[Container]]:
    """A guest of each host on the encrypted network "line", called "g1" to "g3"."""
    with ExitStack() as stack:
        stack.enter_context(fleet.hosts[0].networks("line", flags=("-d", "overlay")))
        yield [
            stack.enter_context(guest(site, f"g{n}", "line", dns=[INTERNET]))
            for n, site in enumerate(fleet.hosts, 1)
        ]


def resolve(container: Container, *questions: str) -> list[str]:
    """Ask the container's own name server, from inside it."""
    return look_up(container, container.view()["resolver"], *questions)


def generations(fleet: Fleet) -> list[list[int]]:
    """Which keys each host has."""
    nodes = [node(fleet.hosts[0], site.machine.name) for site in fleet.hosts]
    return [[k["generation"] for k in n["keys"]] for n in nodes]


def test_keys_change_while_packets_flow(fleet, line):
    """Every host has a new key and the old ones are gone, and not one packet was lost; twice."""
    g1, g2, g3 = line
    before = generations(fleet)[0][-1]
    public = node(fleet.hosts[0], "host2")["wireguard"]
    with flowing(g1, g2, at(g2, "line")) as to2, flowing(g3, g1, at(g1, "line")) as to1:
        for n in (1, 2):
            said = fleet.hosts[n].seaway("cluster", "keys", "rotate")
            assert f"generation {before + n} " in said
            wait_until(lambda k=before + n: [[k]] * 3 == generations(fleet), 20, "new keys")
        assert {} == to2.lost()
        assert {} == to1.lost()
    assert public != node(fleet.hosts[0], "host2")["wireguard"]
    for site in fleet.hosts:
        assert NOTHING == site.seaway("plan")


def test_an_agent_that_starts_again_changes_nothing(fleet, line):
    """Traffic goes on while it is dead and afterwards; names and members are as before."""
    g1, g2, _ = line
    site = fleet.hosts[1]
    before = site.network("line"), site.inspect("g2")
    with flowing(g1, g2, at(g2, "line")) as flow:
        faults.kill(fleet.lab, "host2")
        faults.start(fleet.lab, "host2")
        wait_until(lambda: site.ask("/v1/cluster")["online"], 10, "online")
        assert {} == flow.lost()
    assert before == (site.network("line"), site.inspect("g2"))
    assert [at(g1, "line")[0]] == resolve(g2, "g1 A")
    assert [at(g2, "line")[0]] == resolve(g1, "g2 A")
    assert NOTHING == site.seaway("plan")


def test_the_cluster_at_a_glance(fleet, made):
    """`status`, `cluster status`, `node ls` and `doctor` say how it is, on every host."""
    for site in fleet.hosts:
        name = site.machine.name
        # etcd takes five seconds between one new member and the next
        wait_until(lambda s=site: 3 == healthy_stores(s), 30, "three stores")
        wait_until(lambda s=site: "3 of 3 healthy" in s.seaway("status"), 15)
        status = site.seaway("status")
        assert re.search(rf"^Cluster +\w+, here {name}, number \d$", status, re.MULTILINE)
        assert re.search(r"^Hosts +3 of 3 alive$", status, re.MULTILINE)
        assert re.search(r"^Stores +3 of 3 healthy, online$", status, re.MULTILINE)
        whole = site.seaway("cluster", "status")
        assert "3 of 3 hosts alive" in whole
        assert f"{LEASE} s" in whole
        assert 3 == len(re.findall(r"^host\d .* yes ", whole, re.MULTILINE))
        nodes = {n["Name"]: n for n in site.json("node", "ls")}
        assert {"host1", "host2", "host3"} == nodes.keys()
        assert {"ready"} == {n["Status"] for n in nodes.values()}
        assert [name] == [n["Name"] for n in nodes.values() if n["Self"]]
    assert "cluster" in fleet.hosts[0].seaway("doctor", "--all").lower()


# -- hosts that come and go ------------------------------------------------------------------------


def test_a_drained_host_takes_no_more_containers(fleet, line):
    """Not on overlay networks; on its own it does, and what it runs stays.  It can be undone."""
    first, _, third = fleet.hosts
    assert "host3" == first.seaway("node", "drain", "host3")
    wait_until(lambda: node(third, "host3")["status"] == "drained", 2)
    with namespaces("late") as (space,):
        with pytest.raises(Conflict, match="drained"):
            attach(third, "late", space, "line")
    with guest(third, "local", "bridge"):
        assert refused(third.attempt("network", "connect", "line", "local"), "drained")
    assert [at(line[2], "line")[0]] == resolve(line[0], "g3 A")
    assert {"host3": "drained"}.items() <= {
        n["Name"]: n["Status"] for n in first.json("node", "ls")
    }.items()

    first.seaway("node", "drain", "--undo", "host3")
    wait_until(lambda: node(third, "host3")["status"] == "ready", 2)
    with guest(third, "late", "line"):
        pass


@pytest.fixture(scope="module")
def fourth(fleet: Fleet, line: list[Container]) -> Site:
    """One more host, which `lab up` adds to the cluster."""
    return Site(lifecycle.up(replace(fleet.lab, hosts=4), clustered=True), "host4")


def pings(source: Namespace, target: str) -> bool:
    """Is there an answer, soon?"""
    done = source.shell(f"ping -n -c 1 -W {SOON} {target} || true")
    return " 0% packet loss" in done


def test_a_host_joins_later_and_leaves(fleet, line, fourth):
    """Its containers reach the others'; it leaves when none is on the cluster's networks, and
    keeps what is its own."""
    first, g1 = fleet.hosts[0], line[0]
    assert "host4" in {n["Name"] for n in first.json("node", "ls")}
    with fourth.networks("own4"), guest(fourth, "mine", "own4") as mine:
        own = own_things(fourth)
        with guest(fourth, "g4", "line", dns=[INTERNET]) as g4:
            wait_until(lambda: all(pings(g1, a) for a in at(g4, "line")), 3, "there")
            assert [at(g1, "line")[0]] == resolve(g4, "g1 A")
            assert refused(fourth.attempt("cluster", "leave"), "g4", "--force")
        fourth.seaway("cluster", "leave")

        assert own == own_things(fourth)
        assert pings(fourth.host, at(mine, "own4")[0])
        assert {"own4", "bridge", "host", "none"} == {n["name"] for n in fourth.ask("/v1/networks")}
        assert NOTHING == fourth.seaway("plan")
    assert "host4" not in {n["Name"] for n in first.json("node", "ls")}
    assert refused(fourth.attempt("cluster", "leave"), "no cluster")
    assert refused(fourth.attempt("network", "create", "-d", "overlay", "x"), "cluster init")


def test_a_host_that_is_off_is_removed(fleet, line, fourth):
    """Its names go with its lease; `node rm` takes the rest.  When it comes back it is told so,
    and can leave and join anew."""
    first, g1 = fleet.hosts[0], line[0]
    done = join(fourth, token_of(first))
    assert 0 == done.status, done.err
    with guest(fourth, "g4", "line") as g4:
        v4 = at(g4, "line")[0]
        block = node(first, "host4")["blocks"][0]["block"]
        wait_until(lambda: [v4] == resolve(g1, "g4 A"), 2)
        wait_until(lambda: any(route.startswith(block) for route in routes(first)), 2)

        faults.power_off(fourth.lab, "host4")
        wait_until(lambda: "down" == node(first, "host4")["status"], 3 * LEASE, "its lease ends")
        wait_until(lambda: ["NXDOMAIN"] == resolve(g1, "g4 A"), 2)
        assert "host4" == first.seaway("node", "rm", "host4")
        assert not any(route.startswith(block) for route in routes(first))
        assert "host4" not in {n["Name"] for n in first.json("node", "ls")}

        faults.start(fourth.lab, "host4")
        wait_until(lambda: "removed" in fourth.ask("/v1/cluster")["error"], 15, "it knows")
    fourth.seaway("cluster", "leave")
    assert 0 == join(fourth, token_of(first)).status
    assert "host4" in {n["Name"] for n in first.json("node", "ls")}
    fourth.seaway("cluster", "leave")


def test_a_living_host_is_cut_off(fleet, line):
    """`node rm` wants --force for it; then it can read the store no more, its tunnels carry
    nothing, and the others lose no packet."""
    first, second, third = fleet.hosts
    g1, g2, g3 = line
    prefix = keys.NETWORKS
    assert any(n["name"] == "line" for n in below(third, prefix).values())
    assert refused(first.attempt("node", "rm", "host3"), "g3", "--force")
    assert refused(third.attempt("node", "rm", "host3"), "seaway cluster leave")
    blocks = [b["block"] for b in node(first, "host3")["blocks"]]
    wait_until(lambda: all(pings(g1, a) for a in at(g3, "line")), 3, "reached")

    with flowing(g1, g2, at(g2, "line")) as flow:
        first.seaway("node", "rm", "--force", "host3")
        wait_until(lambda: isinstance(below(third, prefix), str), 10, "no access")
        wait_until(lambda: not third.ask("/v1/cluster")["online"], 10, "offline")
        wait_until(lambda: ["NXDOMAIN"] == resolve(g1, "g3 A"), 5, "no name")
        for site in (first, second):
            assert not any(route.startswith(b) for route in routes(site) for b in blocks)
        for own, other in ((g1, g3), (g3, g2)):
            assert not any(pings(own, address) for address in at(other, "line"))
        wait_until(lambda: first.ask("/v1/cluster")["online"], 10, "online")
        assert {} == flow.lost()

    assert "removed" in third.attempt("cluster", "status").out
    left = {"host1", "host2"}
    for site in (first, second):
        wait_until(lambda s=site: left == {n["name"] for n in s.ask("/v1/nodes")}, 10, "both know")
        with guest(site, "after", "line") as after:
            wait_until(lambda a=after: pings(g2, at(a, "line")[0]), 3, "new containers")
    third.seaway("cluster", "leave", "--force")
    assert NOTHING == third.seaway("plan")
