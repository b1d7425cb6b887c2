"""What goes wrong with a cluster, and that nothing between two healthy hosts notices.

All the while datagrams and TCP connections go between containers of host1 and host2, over an
encrypted network and one in clear; at the end of each test not one may be missing.
"""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from threading import Barrier
from typing import Any

import pytest

from seaway.errors import SeawayError
from seaway.lab import cluster, faults, stores
from seaway.lab.lifecycle import silent
from tests.support.expiry import expire
from tests.support.fleet import Fleet, attach, client, elements, guest, routes, running_fleet
from tests.support.flow import Flow, flowing
from tests.support.netns import Namespace, namespaces
from tests.support.netns import wait_until as wait
from tests.support.resolve import look_up, naming
from tests.support.site import INTERNET, NOTHING, PREDEFINED, Container, Site
from tests.support.talk import answering, reach

LEASE = 4  # seconds
PATIENCE = 3
"""Times what things take on a quiet machine, before they count as broken on a busy one."""
ROUNDS = 20
SOON = 0.3  # seconds to wait for an answer that must not come
NETWORKS = {"sea": (), "clear": ("-o", "encrypted=false")}
FAMILIES = ("ipv4", "ipv6")
GONE = "NXDOMAIN"


@dataclass(frozen=True, slots=True)
class Town:
    """The hosts, a guest on each that is on all NETWORKS, and what goes between the first two."""

    fleet: Fleet
    guests: dict[str, Container]
    flow: Flow

    @property
    def hosts(self) -> tuple[Site, ...]:
        """The hosts."""
        return self.fleet.hosts


@pytest.fixture(scope="module")
def whole() -> Iterator[Town]:
    """Three hosts that each run a part of the store, and are given up after LEASE seconds."""
    with running_fleet("fa-faults", cluster=False) as fleet:
        with ExitStack() as stack:
            form(fleet)
            stack.enter_context(naming(fleet.outside, INTERNET, {}))
            for name, flags in NETWORKS.items():
                stack.enter_context(fleet.hosts[0].networks(name, flags=("-d", "overlay", *flags)))
            guests = {
                name: stack.enter_context(dweller(site, name, *NETWORKS))
                for name, site in zip(("one", "two", "three"), fleet.hosts, strict=True)
            }
            flow = stack.enter_context(flowing(guests["one"], guests["two"], every(guests["two"])))
            yield Town(fleet, guests, flow)
        for site in reversed(fleet.hosts):  # as they were before
            site.attempt("cluster", "leave", "--force")


@pytest.fixture
def town(whole: Town) -> Iterator[Town]:
    """All is well before; during the test nothing is lost between host1 and host2."""
    calm(whole.fleet)
    assert {} == whole.flow.lost()
    yield whole
    faults.heal(whole.fleet.lab)
    assert {} == whole.flow.lost()


def form(fleet: Fleet, lease: int = LEASE) -> None:
    """Make a cluster of a lab's hosts, which forgets them sooner than usual."""
    cluster.ask(fleet.lab.host("host1"), "POST", "/v1/cluster", {"lease": lease})
    cluster.form(fleet.lab, silent, stores=3)


def wait_until(true: Callable[[], object], seconds: float = 5, what: str = "") -> None:
    """Wait, longer where others use the processors as well."""
    wait(true, seconds * PATIENCE, what)


def calm(fleet: Fleet) -> None:
    """Undo everything that may be wrong, and wait until the cluster is whole."""
    faults.heal(fleet.lab)
    for site in fleet.hosts:
        faults.start(fleet.lab, site.machine.name)
        faults.resume(fleet.lab, site.machine.name)
    wait_until(lambda: all(map(is_whole, fleet.hosts)), 20, "the cluster is whole")


def is_whole(site: Site) -> bool:
    """Does a host reach the store, and know that all hosts and stores are well?"""
    if not online(site) or 3 != alive(site):
        return False
    found = site.ask("/v1/cluster")["stores"]  # takes two seconds where one does not answer
    return 3 == len([s for s in found if s["healthy"] and not s["learner"]])


def online(site: Site) -> bool:
    """Does a host reach the store?"""
    return bool(glance(site)["online"])


def glance(site: Site) -> dict[str, Any]:
    """What a host knows of the cluster without asking anybody."""
    return dict(site.ask("/v1/status")["cluster"])


def dweller(
    site: Site, name: str, *networks: str, **more: Any
) -> AbstractContextManager[Container]:
    """As guest(), and asks the internet for what nobody of ours is called."""
    return guest(site, name, *networks, dns=[INTERNET], **more)


def every(container: Container, *networks: str) -> list[str]:
    """All addresses of a container on networks, by default all of NETWORKS."""
    return [container.on(n)[v] for n in networks or NETWORKS for v in FAMILIES]


def ask(container: Container, *questions: str) -> list[str]:
    """Ask the container's own name server, from inside it."""
    return look_up(container, container.view()["resolver"], *questions)


def knows(container: Container, name: str, *addresses: str) -> Callable[[], bool]:
    """Say whether *container* finds *name* at an IPv4 address; without one, nowhere."""
    return lambda: [*(addresses or [GONE])] == ask(container, f"{name} A")


# -- no store at all -----------------------------------------------------------------------------


@contextmanager
def storeless(town: Town) -> Iterator[None]:
    """No host's etcd answers anybody."""
    for name in town.fleet.lab.host_names:
        faults.kill_store(town.fleet.lab, name)
    try:
        wait_until(lambda: not any(map(online, town.hosts)), 5, "nobody reaches the store")
        yield
    finally:
        faults.heal(town.fleet.lab)
        wait_until(lambda: all(map(online, town.hosts)), 10, "everybody reaches the store")


def test_nothing_changes_without_a_store(town):
    """Names, traffic and isolation are the same on all hosts, before and after."""
    one, two, three = town.guests.values()
    with town.hosts[0].networks("other", flags=("-d", "overlay")):
        with dweller(town.hosts[0], "alien", "other") as alien, answering(two, "two", tcp=[80]):
            before = [(routes(s), elements(s)) for s in town.hosts]
            ways = [f"tcp://{a}:80" for a in (two.on("sea")["ipv4"], two.on("clear")["ipv4"])]
            with storeless(town):
                assert before == [(routes(s), elements(s)) for s in town.hosts]
                assert knows(one, "two.sea", two.on("sea")["ipv4"])()
                assert knows(three, "two.clear", two.on("clear")["ipv4"])()
                assert ["two"] * 2 == [r.split()[0] for r in reach(three, *ways)]
                assert ["silence"] * 2 == reach(alien, *ways, seconds=SOON)
                assert [GONE] * 2 == ask(alien, "two A", "two.sea A")
                assert [NOTHING] * 3 == [s.seaway("plan") for s in town.hosts]
            assert before == [(routes(s), elements(s)) for s in town.hosts]


def test_containers_come_and_go_without_a_store(town):
    """A new one gets an address of its host's block, reaches other hosts, and is known to them when
    the store is back; one that was removed is not, and its name may be another's by then."""
    site, (one, two, three) = town.hosts[1], town.guests.values()
    with (
        dweller(site, "old", "sea") as old,
        dweller(site, "again", "sea") as again,
        ExitStack() as stack,
    ):
        assert knows(three, "old", old.on("sea")["ipv4"])()
        earlier = again.on("sea")["ipv4"]
        with storeless(town):
            began = time.monotonic()
            new = stack.enter_context(dweller(site, "new", *NETWORKS))
            assert time.monotonic() - began < 2
            detach(site, "old", "again")
            later = stack.enter_context(dweller(site, "again", "sea"))
            assert earlier != later.on("sea")["ipv4"]
            with flowing(new, three, every(three)) as flow:
                assert knows(new, "three.sea", three.on("sea")["ipv4"])()
                assert {} == flow.lost()
            assert knows(two, "old")()
        wait_until(knows(three, "old"), 2, "old is forgotten")
        wait_until(knows(three, "new.sea", new.on("sea")["ipv4"]), 2, "new is known")
        assert knows(one, "again", later.on("sea")["ipv4"])()
        assert ["", []] == [later.view()["error"], site.ask("/v1/status")["problems"]]


def test_what_cannot_be_done_without_a_store_is_refused(town):
    """A host with no address to itself, and whoever makes or removes a network, is told so in one
    line; nothing has changed, then or later."""
    first, _, third = town.hosts
    flags = ("-d", "overlay", "--subnet", "10.12.0.0/29", "--ipv6=false")
    with first.networks("tiny", flags=flags), dweller(third, "t1", "tiny"):
        before = sorted(n["name"] for n in first.ask("/v1/networks"))
        with storeless(town), namespaces("bad") as (space,):
            for site, words in ((third, "no free address of network tiny"), (first, "tiny yet")):
                said = refusal(lambda s=site: attach(s, "bad", space, "tiny"))
                assert words in said
                assert "out of reach" in said
            made = {"name": "made", "driver": "overlay"}
            said = refusal(lambda: client(first).request("POST", "/v1/networks", made))
            assert "the cluster's store" in said
            said = refusal(lambda: client(third).request("DELETE", "/v1/networks/tiny"))
            assert "tiny" in said
            for site in town.hosts:
                assert before == sorted(n["name"] for n in site.ask("/v1/networks"))
        assert before == sorted(n["name"] for n in third.ask("/v1/networks"))
        with dweller(first, "bad", "tiny"):
            pass


def refusal(request: Callable[[], object]) -> str:
    """What the agent says against a request: one line, in a few seconds."""
    began = time.monotonic()
    with pytest.raises(SeawayError) as caught:
        request()
    assert time.monotonic() - began < 5
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_an_agent_starts_without_a_store(town):
    """All that it knew it knows: names of other hosts, routes, rules; and new containers start."""
    one, two, three = town.guests.values()
    before = [(routes(s), elements(s)) for s in town.hosts]
    with ExitStack() as stack:
        with storeless(town):
            for name in ("host1", "host3"):
                faults.kill(town.fleet.lab, name)
                faults.start(town.fleet.lab, name)
            assert before == [(routes(s), elements(s)) for s in town.hosts]
            assert knows(one, "two.sea", two.on("sea")["ipv4"])()
            assert knows(three, "one.clear", one.on("clear")["ipv4"])()
            new = stack.enter_context(dweller(town.hosts[2], "new", "sea"))
            with flowing(new, one, every(one, "sea")) as flow:
                assert {} == flow.lost()
        wait_until(knows(two, "new", new.on("sea")["ipv4"]), 3, "new is known")
    assert before == [(routes(s), elements(s)) for s in town.hosts]


# -- a part of the store -------------------------------------------------------------------------


def leader(town: Town) -> Site:
    """The host whose etcd leads."""
    found = town.hosts[0].ask("/v1/cluster")["stores"]
    (name,) = [s["host"] for s in found if s["leader"]]
    return town.hosts[int(name.removeprefix("host")) - 1]


@contextmanager
def still(site: Site) -> Iterator[None]:
    """The etcd of a host takes no step."""
    (process,) = stores.running(site.machine)
    os.kill(process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(process.pid, signal.SIGCONT)


@pytest.mark.parametrize("how", ["killed", "paused"])
@pytest.mark.parametrize("which", ["leader", "other"])
def test_one_of_three_stores_is_enough_to_lose(town, how, which):
    """Whichever it is, changes go on in seconds on every host, and nobody is taken for dead."""
    lost = leader(town)
    if which == "other":
        lost = next(s for s in town.hosts if s is not lost)
    one, two, three = town.guests.values()
    with ExitStack() as stack:
        if how == "paused":
            stack.enter_context(still(lost))
        else:
            faults.kill_store(town.fleet.lab, lost.machine.name)
        until = time.monotonic() + (LEASE + 1 if how == "paused" else 0)
        for n, site in enumerate(town.hosts):
            began = time.monotonic()
            new = stack.enter_context(dweller(site, f"new{n}", "sea"))
            assert time.monotonic() - began < 5
            for other in (one, two, three):
                known = knows(other, f"new{n}", new.on("sea")["ipv4"])
                wait_until(known, 15 if how == "paused" else 8, f"{other.name}: {n}")
        while time.monotonic() < until:
            living = [alive(s) for s in town.hosts]
            assert [3, 3, 3] == living
        stack.enter_context(town.hosts[0].networks("made", flags=("-d", "overlay")))
    # What a store that stood still was asked for is not done when nobody wants it any more.
    faults.heal(town.fleet.lab)
    calm(town.fleet)
    for n, site in enumerate(town.hosts):
        with dweller(site, f"new{n}", "sea"):
            pass


# -- hosts that others do not hear ---------------------------------------------------------------


@contextmanager
def led_by_others(town: Town, site: Site) -> Iterator[None]:
    """A host's etcd follows: a new leader lets all leases begin anew."""
    while leader(town) is site:
        faults.kill_store(town.fleet.lab, site.machine.name, once=True)
        calm(town.fleet)
    yield


def gone_in_time(observer: Container, *names: str) -> None:
    """Wait for a silent host's lease to end, and its names with it: etcd looks twice a second."""
    wait_until(lambda: 2 == alive(observer.site), LEASE + 3, "it is taken for dead")
    wait_until(lambda: {GONE} == set(ask(observer, *(f"{n} A" for n in names))), 1, "names")


def alive(site: Site) -> int:
    """How many hosts live, as one of them sees it."""
    return int(glance(site)["hosts"]["alive"])


def test_a_host_off_the_wire_is_forgotten_and_comes_back(town):
    """Its names go with its lease, and its containers keep everything; back on the wire it is as
    before in seconds."""
    one, _, three = town.guests.values()
    site, addresses = town.hosts[2], every(three)
    with led_by_others(town, site):
        faults.cut(town.fleet.lab, "host3")
        gone_in_time(one, "three.sea", "three.clear")
        assert addresses == every(three)
        names = [three.on("sea")["ipv4"], one.on("sea")["ipv4"]]
        assert names == ask(three, "three.sea A", "one.sea A")
        wait_until(lambda: not online(site), 10, "host3 knows that it is alone")
        assert "store" in [p["object"] for p in site.ask("/v1/status")["problems"]]
    faults.heal(town.fleet.lab)
    wait_until(knows(one, "three.sea", names[0]), 20, "three is back")
    assert addresses == every(three)
    with flowing(one, three, addresses) as flow:
        assert {} == flow.lost()
    assert NOTHING == site.seaway("plan")


def test_two_hosts_that_do_not_hear_each_other(town):
    """A third one hears both, loses nothing to and from either, and changes go on in seconds."""
    one, two, three = town.guests.values()
    with flowing(two, three, every(three)) as flow:
        faults.cut(town.fleet.lab, "host3", "host1")
        until = time.monotonic() + LEASE + 1
        with dweller(town.hosts[1], "new", "sea") as new, flowing(new, one, every(one, "sea")) as f:
            for other in (one, three):
                wait_until(knows(other, "new", new.on("sea")["ipv4"]), 15, f"{other.name} knows")
            wait_until(lambda: time.monotonic() > until, LEASE + 1)
            assert {} == f.lost()
        assert {} == flow.lost()
        faults.heal(town.fleet.lab)
        calm(town.fleet)
        assert {} == flow.lost()


# -- agents --------------------------------------------------------------------------------------


def test_an_agent_is_killed_while_it_works(town):
    """Several times and at any moment: what it answered to is there, and nothing else."""
    first, second, _ = town.hosts
    one, _, three = town.guests.values()
    kept: list[str] = []
    with namespaces(*(f"load{n}" for n in range(4))) as spaces, ThreadPoolExecutor(1) as pool:
        busy = [True]

        def work() -> None:
            while busy:
                for n, space in enumerate(spaces):
                    with suppress(SeawayError):
                        attach(second, f"load{n}", space, *NETWORKS)
                    if n % 2:
                        with suppress(SeawayError):
                            client(second).request("DELETE", f"/v1/sandboxes/load{n}")

        working = pool.submit(work)
        try:
            for _ in range(4):
                time.sleep(random.uniform(0.05, 0.5))
                faults.kill(town.fleet.lab, "host2")
                faults.start(town.fleet.lab, "host2")
        finally:
            busy.clear()
            working.result(30)
        wait_until(lambda: online(second), 10)
        assert NOTHING == second.seaway("plan")
        kept = [s["name"] for s in second.ask("/v1/sandboxes")]
        assert "two" in kept
        names = ["two", *(f"load{n}" for n in range(4))]
        found = [Container(second, n).on("sea")["ipv4"] if n in kept else GONE for n in names]
        asked = [f"{name}.sea A" for name in names]
        for other in (one, three):
            wait_until(lambda o=other: found == ask(o, *asked), 3, f"{other.name} knows")
        for name in kept[:]:
            if name != "two":
                client(second).request("DELETE", f"/v1/sandboxes/{name}")
    assert ["two"] == [s["name"] for s in second.ask("/v1/sandboxes")]
    assert sorted(first.ask("/v1/networks/sea")["containers"]) == ["one", "three", "two"]


def test_an_agent_that_sleeps_too_long(town):
    """Names of its host go with the lease, and traffic goes on.  Meanwhile another container takes
    one of its names: that one keeps it, and the host says so."""
    first, second, _ = town.hosts
    one, two, three = town.guests.values()
    with dweller(second, "mine", "sea") as mine:
        faults.pause(town.fleet.lab, "host2")
        try:
            gone_in_time(one, "two.sea", "two.clear", "mine.sea")
            with dweller(first, "mine", "sea") as usurper:
                faults.resume(town.fleet.lab, "host2")
                wait_until(knows(three, "two.sea", two.on("sea")["ipv4"]), 15, "two is back")
                assert knows(three, "mine", usurper.on("sea")["ipv4"])()
                wait_until(lambda: "host1" in mine.view()["error"], 3)
                assert mine.view()["error"] in [
                    p["error"] for p in second.ask("/v1/status")["problems"]
                ]
        finally:
            faults.resume(town.fleet.lab, "host2")


def blocks_of(site: Site, host: str) -> list[tuple[str, str]]:
    """The blocks of a host that another one knows."""
    return sorted((b["network"], b["block"]) for b in site.ask(f"/v1/nodes/{host}")["blocks"])


# -- power ---------------------------------------------------------------------------------------


def test_a_host_without_power_comes_back_with_old_beliefs(town):
    """Its addresses are others' within the lease, its blocks only when there is nothing else; back,
    it leaves them those, says so, and has everything else again."""
    first, second, third = town.hosts
    one, two, three = town.guests.values()
    flags = ("-d", "overlay", "--subnet", "10.12.0.0/29", "--ipv6=false")
    with ExitStack() as stack:
        enter = stack.enter_context
        enter(away(three))
        enter(first.networks("pond", flags=flags))
        enter(led_by_others(town, third))
        sea = enter(third.container("lost", "--network", "sea", "--network", "clear")).on("sea")
        enter(third.container("safe", "--network", "sea", "--network", "pond"))
        fish = [enter(dweller(first, f"fish{n}", "pond")) for n in range(4)]
        blocks = blocks_of(first, "host3")
        with namespaces("more") as (space,):
            for site in (first, second):
                said = refusal(lambda s=site: attach(s, "n", space, "sea", ip=sea["ipv4"]))
                assert "lost on host3" in said
            assert "left" in refusal(lambda: attach(second, "n", space, "pond"))

        faults.power_off(town.fleet.lab, "host3")
        gone_in_time(one, "lost.sea", "safe.sea")
        assert blocks == blocks_of(first, "host3")
        taker = enter(dweller(first, "taker", "sea", ip=sea["ipv4"]))
        other = enter(dweller(second, "lost", "clear")).on("clear")["ipv4"]
        heir = enter(dweller(second, "heir", "pond"))
        wait_until(lambda: blocks != blocks_of(first, "host3"), 1)
        with (
            flowing(two, taker, every(taker, "sea")) as flow,
            flowing(fish[0], heir, [heir.on("pond")["ipv4"]]) as pond,
        ):
            faults.start(town.fleet.lab, "host3")
            third.seaway("start", "lost")
            third.seaway("start", "safe")
            safe = Container(third, "safe")
            wait_until(knows(one, "safe", safe.on("sea")["ipv4"]), 15, "safe is back")
            assert {} == flow.lost() | pond.lost()
        lost = third.ask("/v1/sandboxes/lost")["error"]
        assert f"address {sea['ipv4']} is held by taker on host1" in lost
        assert lost == third.inspect("lost")["error"]
        assert lost in [p["error"] for p in third.ask("/v1/status")["problems"]]
        assert [other] == ask(one, "lost.clear A")
        with flowing(one, safe, every(safe, "sea")) as flow:
            assert {} == flow.lost()


@contextmanager
def away(guest: Container) -> Iterator[None]:
    """Nobody on the networks: a namespace of ours does not end with the power."""
    detach(guest.site, guest.name)
    try:
        yield
    finally:
        attach(guest.site, guest.name, Namespace(guest.path.name), *NETWORKS, dns=[INTERNET])


def detach(site: Site, *names: str) -> None:
    """Remove what there is of these names."""
    for name in {s["name"] for s in site.ask("/v1/sandboxes")}.intersection(names):
        client(site).request("DELETE", f"/v1/sandboxes/{name}")


# -- at the same instant -------------------------------------------------------------------------


def at_once(*attempts: Callable[[], object]) -> list[str]:
    """Begin all at the same instant; "" or the error for each."""
    begin = Barrier(len(attempts))

    def run(attempt: Callable[[], object]) -> str:
        begin.wait()
        try:
            attempt()
        except SeawayError as err:
            return str(err)
        return ""

    with ThreadPoolExecutor(len(attempts)) as pool:
        return list(pool.map(run, attempts))


def one_won(found: list[str], *words: str) -> None:
    """Exactly one got it, and each other was told so in one line."""
    losers = [said for said in found if said]
    assert len(found) - 1 == len(losers), found
    assert all("\n" not in said and any(w in said for w in words) for said in losers), found


def test_of_two_hosts_that_claim_the_same_one_wins(town):
    """An address, a name, a network's name, a subnet: twenty times each."""
    pair = town.hosts[:2]
    fixed = town.guests["three"].on("sea")["ipv4"].rpartition(".")[0] + ".200"
    with namespaces("left", "right") as spaces:
        for n in range(ROUNDS):
            found = at_once(
                *(
                    lambda s=s, at=at, i=i: attach(s, f"a{i}", at, "sea", ip=fixed)
                    for i, (s, at) in enumerate(zip(pair, spaces, strict=True))
                )
            )
            one_won(found, fixed)
            there = {s["name"] for site in pair for s in site.ask("/v1/sandboxes")}
            assert {"one", "two", f"a{found.index('')}"} == there
            for site in pair:
                detach(site, "a0", "a1", "same")

            found = at_once(
                *(
                    lambda s=s, at=at: attach(s, "same", at, "sea")
                    for s, at in zip(pair, spaces, strict=True)
                )
            )
            one_won(found, "same")
            for site in pair:
                detach(site, "same")

            made = {"name": f"net{n}", "driver": "overlay"}
            found = at_once(
                *(lambda s=s, m=made: client(s).request("POST", "/v1/networks", m) for s in pair)
            )
            one_won(found, f"net{n}", "another host was faster")
            client(pair[found.index("")]).request("DELETE", f"/v1/networks/net{n}")

            wanted = [
                {"name": f"{c}{n}", "driver": "overlay", "subnets": [s], "ipv6": False}
                for c, s in (("p", "10.13.0.0/16"), ("q", "10.13.64.0/24"))
            ]
            found = at_once(
                *(
                    lambda s=s, w=w: client(s).request("POST", "/v1/networks", w)
                    for s, w in zip(pair, wanted, strict=True)
                )
            )
            one_won(found, "10.13.", "another host was faster")
            won = found.index("")
            client(pair[won]).request("DELETE", f"/v1/networks/{'pq'[won]}{n}")
    assert {"sea", "clear"} == {n["name"] for n in pair[1].ask("/v1/networks")} - PREDEFINED


def test_hosts_that_want_the_same_block_share_the_network(town):
    """Three that begin on a small network at once never have the same address, or the same block;
    of three that want its last two addresses one is told that there is none."""
    made = {"driver": "overlay", "subnets": ["10.12.0.0/29"], "ipv6": False}
    with namespaces(*(f"g{n}" for n in range(6))) as spaces:
        for n in range(ROUNDS // 2):
            client(town.hosts[0]).request("POST", "/v1/networks", made | {"name": f"tiny{n}"})
            found: list[str] = []
            for turn in range(2):
                found += at_once(
                    *(
                        lambda s=s, i=i, n=n: attach(s, f"g{i}", spaces[i], f"tiny{n}")
                        for i, s in enumerate(town.hosts, 3 * turn)
                    )
                )
            assert ["", "", ""] == found[:3]
            (left,) = [said for said in found[3:] if said]
            assert "no addresses left" in left
            members = town.hosts[0].ask(f"/v1/networks/tiny{n}")["containers"]
            assert 5 == len({m["ipv4"] for m in members.values()}), members
            for site in town.hosts:
                detach(site, *(f"g{n}" for n in range(6)))
            client(town.hosts[1]).request("DELETE", f"/v1/networks/tiny{n}")


# -- addresses ------------------------------------------------------------------------------------


def test_a_host_changes_its_address(town):
    """Tunnels, routes, its certificate and its part of the store follow within seconds; nothing is
    lost between the others."""
    first, _, third = town.hosts
    one, two, three = town.guests.values()
    with flowing(one, two, every(two)) as flow, flowing(three, two, every(two)) as other:
        for number in (103, 3):
            before = third.ask("/v1/cluster")["certificate_expires"]
            faults.readdress(town.fleet.lab, "host3", number)
            address = f"192.0.2.{number}"
            wait_until(lambda a=address: a in addresses_of(first, "host3"), 10, "others know it")
            wait_until(lambda: {} == other.lost(), 15, "traffic follows")
            wait_until(lambda a=address: a in str(store_of(first, "host3")), 15, "the store's part")
            wait_until(lambda: all(map(is_whole, town.hosts)), 15, "all is well")
            wait_until(
                lambda b=before: b < third.ask("/v1/cluster")["certificate_expires"], 10, "renewed"
            )
            with dweller(third, "new", "sea") as new:
                found = [three.on("sea")["ipv4"], new.on("sea")["ipv4"]]
                wait_until(lambda f=found: f == ask(one, "three.sea A", "new.sea A"), 3, "names")
        assert {} == flow.lost()
    for site in town.hosts:
        # A way that was tried just then is tried again within a minute.
        wait_until(lambda s=site: {"path"} >= complaints(s), 15, "nobody complains")


def complaints(site: Site) -> set[str]:
    """What a host says is not well."""
    return {p["object"] for p in site.ask("/v1/status")["problems"]}


def addresses_of(site: Site, host: str) -> list[str]:
    """Where a host is, as another one knows."""
    return list(site.ask(f"/v1/nodes/{host}")["addresses"])


def store_of(site: Site, host: str) -> dict[str, Any]:
    """A host's part of the store, as another one sees it; {} if it has none."""
    found = [s for s in site.ask("/v1/cluster")["stores"] if s["host"] == host]
    return dict(found[0]) if found else {}


# -- at the end, for it ends what goes between the first two -------------------------------------


def test_all_hosts_lose_their_power(whole):
    """For longer than certificates last: the cluster comes back by itself, with all that it had."""
    hosts = whole.hosts
    calm(whole.fleet)
    with ExitStack() as stack:
        for guest in whole.guests.values():
            stack.enter_context(away(guest))
        flags = ("--network", "sea", "--network", "clear")
        for n, site in enumerate(hosts):
            stack.enter_context(site.container(f"c{n}", *flags))
        before = [every(Container(s, f"c{n}")) for n, s in enumerate(hosts)]
        for site in hosts:
            faults.power_off(whole.fleet.lab, site.machine.name)
        for site in hosts:
            expire(site)
        for site in hosts:
            faults.start(whole.fleet.lab, site.machine.name)
        for n, site in enumerate(hosts):
            site.seaway("start", f"c{n}")
        calm(whole.fleet)
        found = [Container(s, f"c{n}") for n, s in enumerate(hosts)]
        assert before == [every(c) for c in found]
        names = [c.on("sea")["ipv4"] for c in found]
        for observer in found:
            assert names == ask(observer, "c0.sea A", "c1.sea A", "c2.sea A")
        with flowing(found[0], found[2], every(found[2])) as flow:
            assert {} == flow.lost()
        assert [NOTHING] * 3 == [s.seaway("plan") for s in hosts]
        assert all(s.ask("/v1/cluster")["certificate_expires"] > time.time() for s in hosts)


# -- hosts that are not wanted any more ----------------------------------------------------------


def test_a_living_host_is_removed(whole):
    """With --force it is cut off at once: from the store, from the others' containers; and it
    says so."""
    calm(whole.fleet)
    first, second, third = whole.hosts
    one, two, three = whole.guests.values()
    there, back = every(three), every(one)
    with answering(three, "three", tcp=[80]), answering(one, "one", tcp=[80]):
        ways = [f"tcp://[{a}]:80" if ":" in a else f"tcp://{a}:80" for a in there]
        ways_back = [f"tcp://[{a}]:80" if ":" in a else f"tcp://{a}:80" for a in back]
        assert ["three"] * 4 == [r.split()[0] for r in reach(one, *ways)]
        identity = third.ask("/v1/nodes/host3")["id"]
        first.seaway("node", "rm", "--force", "host3")
        wait_until(lambda: 2 == len(second.ask("/v1/nodes")), 2)
        wait_until(knows(two, "three.sea"), 5, "its names are gone")
        answers = [reach(s, *w, seconds=SOON) for s, w in ((one, ways), (three, ways_back))]
        assert not [a for found in answers for a in found if a.split()[0] in ("one", "three")]
        wait_until(lambda: "removed" in str(third.ask("/v1/status")["problems"]), 5, "it says so")
        assert "removed" in third.attempt("status").out
        assert [] == stores.running(third.machine)
        for site in (first, second):
            wait_until(lambda s=site: [True, True] == healthy(s), 10, "the store is whole")
            assert identity not in str(site.ask("/v1/nodes"))
        with dweller(first, "new", "sea") as new:
            wait_until(knows(two, "new", new.on("sea")["ipv4"]), 3, "changes go on")
            with flowing(two, new, every(new, "sea")) as flow:
                assert {} == flow.lost()
        third.seaway("cluster", "leave", "--force")
        assert "" == third.ask("/v1/cluster")["cluster"]
        assert [] == third.ask("/v1/status")["problems"]


def healthy(site: Site) -> list[bool]:
    """Whether each part of the store is well."""
    return [bool(s["healthy"]) for s in site.ask("/v1/cluster")["stores"]]
