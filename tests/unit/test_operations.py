"""Operations on networks and sandboxes, on a core without a kernel."""

from __future__ import annotations

import asyncio
import os
from ipaddress import ip_address

import pytest

from seaway.agent import networks, sandboxes
from seaway.agent.requests import EndpointRequest, NetworkRequest, SandboxRequest
from seaway.errors import Conflict, Exhausted, InvalidSpec, KernelError, NotFound, StoreError
from seaway.model.sandbox import Phase
from tests.support.core import MemoryStore, bare_core


@pytest.fixture
def store():
    """Where the core keeps its state."""
    return MemoryStore()


@pytest.fixture
def core(store):
    """A core with the predefined networks and two more."""
    found = bare_core(store)
    asyncio.run(networks.ensure_predefined(found))
    for name, octet in (("front", 1), ("back", 2)):
        request = NetworkRequest(name=name, subnets=[f"10.77.{octet}.0/29"])
        asyncio.run(networks.create(found, request))
    return found


def run(core, name="web", *on, **more):
    """Create a sandbox on networks."""
    wanted = [EndpointRequest(network=network) for network in on or ("front",)]
    request = SandboxRequest(**{"name": name, "networks": wanted, "creator": os.getpid()} | more)
    return asyncio.run(sandboxes.create(core, request))


def everything(core):
    """All that must be as before a refused operation."""
    state = core.state
    parts = (
        state.networks,
        state.sandboxes,
        state.endpoints,
        core.bindings.held,
        core.kernel.plans,
    )
    return [dict(part) for part in parts], [dict(state.holders(n)) for n in state.networks]


def test_predefined_networks_are_made_once(core, store):
    """A restart finds them."""
    before = dict(store.records)
    asyncio.run(networks.ensure_predefined(bare_core(store)))

    assert before == store.records
    assert {"bridge", "host", "none", "front", "back"} == {
        n.name for n in core.state.networks.values()
    }


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"name": "front"}, Conflict, "exists already"),
        ({"name": "x", "driver": "none"}, InvalidSpec, "there is one none network"),
        ({"name": "x", "subnets": ["10.77.1.0/25"]}, Conflict, "network front"),
        (
            {"name": "x", "subnets": ["10.9.0.0/24"], "gateways": ["10.8.0.1"]},
            InvalidSpec,
            "outside",
        ),
        ({"name": "x", "options": {"colour": "red"}}, InvalidSpec, "no option 'colour'"),
        ({"name": "x y"}, InvalidSpec, "network name"),
        ({"name": "0123456789ab"}, InvalidSpec, "looks like an id"),
    ],
)
def test_a_network_that_cannot_be_is_refused(core, request_, error, words):
    """And nothing is left of it."""
    before = everything(core)

    with pytest.raises(error, match=words):
        asyncio.run(networks.create(core, NetworkRequest(**request_)))
    assert before == everything(core)


def test_a_kernel_that_refuses_a_network(core):
    """The state forgets it again."""
    before = everything(core)
    core.kernel.refuse = True

    with pytest.raises(KernelError):
        asyncio.run(networks.create(core, NetworkRequest(name="x")))
    assert before == everything(core)


def test_a_network_in_use_stays(core):
    """The error names who is on it; some, and how many more."""
    for number in range(5):
        run(core, f"c{number}")
    run(core, "c9", "back")

    with pytest.raises(Conflict, match="in use by c0, c1, c2, c3, c4:"):
        asyncio.run(networks.remove(core, "front"))
    with pytest.raises(Conflict, match="cannot be removed"):
        asyncio.run(networks.remove(core, "bridge"))
    assert [] == asyncio.run(networks.prune(core))


def test_addresses_run_out(core):
    """A /29 has five for containers; the error says who holds them, and one freed is had again."""
    for number in range(5):
        run(core, f"c{number}")
    with pytest.raises(Exhausted, match="held by c0, c1, c2, c3, c4;"):
        run(core, "c5")
    asyncio.run(sandboxes.remove(core, "c3"))

    found = run(core, "c5")
    assert "10.77.1.5" == str(core.state.attachments(found.id)[0].endpoint.v4)


def test_a_stopped_container_keeps_its_address_and_port_numbers(core):
    """Nobody else gets the address; the port is free for others, and ours again if it still is."""
    web = run(core, publish=["80"])
    before = core.state.attachments(web.id)
    port = web.published

    asyncio.run(sandboxes.stopped(core, "web"))
    assert {} == core.bindings.held
    assert () == core.state.sandbox("web").published
    others = {core.state.attachments(run(core, f"c{n}").id)[0].endpoint.v4 for n in range(3)}
    again = asyncio.run(sandboxes.up(core, "web"))

    assert port == again.published
    assert before == core.state.attachments(web.id)
    assert before[0].endpoint.v4 not in others


def test_what_runs_by_process_is_forgotten_at_its_end(core):
    """And so is a container with --rm."""
    run(core, auto_remove=True, publish=["8080:80"])
    asyncio.run(sandboxes.stopped(core, "web"))

    assert {} == core.state.sandboxes
    assert {} == core.bindings.held


def test_connect_and_disconnect(core):
    """Interfaces are numbered; a second connection to one network is refused."""
    web = run(core)
    asyncio.run(sandboxes.connect(core, "web", EndpointRequest(network="back", aliases=["db"])))

    assert ["eth0", "eth1"] == [a.endpoint.ifname for a in core.state.attachments(web.id)]
    with pytest.raises(Conflict, match="connected to 'back' already"):
        asyncio.run(sandboxes.connect(core, "web", EndpointRequest(network="back")))
    asyncio.run(sandboxes.disconnect(core, "web", "front"))
    with pytest.raises(NotFound, match="not connected to 'front'"):
        asyncio.run(sandboxes.disconnect(core, "web", "front"))
    found = asyncio.run(sandboxes.connect(core, "web", EndpointRequest(network="front")))
    assert "eth0" == found.ifname


@pytest.mark.parametrize(
    ("more", "error", "words"),
    [
        ({"name": "db"}, Conflict, "'db' is taken"),
        ({"name": "0123456789ab"}, InvalidSpec, "looks like an id"),
        ({"publish": ["9090:80"]}, Conflict, "9090"),
        ({"publish": ["80"], "networks": []}, InvalidSpec, "no network"),
        ({"networks": [EndpointRequest(network="host")]}, InvalidSpec, "--network host"),
        ({"networks": [EndpointRequest(network="front", ip="10.77.1.2")]}, Conflict, "held by db"),
        ({"networks": [EndpointRequest(network="front", ip="fd00::2")]}, InvalidSpec, "--ip6"),
        ({"networks": [EndpointRequest(network="front")] * 2}, InvalidSpec, "named twice"),
        ({"networks": [EndpointRequest(network="nowhere")]}, NotFound, "no network"),
        ({"pid": 1, "netns": "/x"}, InvalidSpec, "not both"),
        ({"netns": "/nonexistent"}, NotFound, "no network namespace at"),
        ({"netns": "/proc/self/ns/net"}, InvalidSpec, "host's own"),
        ({"sysctls": {"vm.swappiness": "1"}}, InvalidSpec, "net.*"),
    ],
)
def test_a_sandbox_that_cannot_be_is_refused(core, more, error, words):
    """And nothing is left of it."""
    run(core, "db", publish=["9090:90"])
    before = everything(core)

    with pytest.raises(error, match=words.replace("*", r"\*")):
        run(core, **more)
    assert before == everything(core)


def test_a_kernel_that_refuses_a_sandbox(core):
    """Addresses, ports and the name are free again."""
    before = everything(core)
    core.kernel.refuse = True

    with pytest.raises(KernelError):
        run(core, publish=["8080:80"])
    assert before == everything(core)
    run(core, publish=["8080:80"])


def test_a_kernel_that_refuses_a_connection(core):
    """The endpoint is forgotten, and a look at the kernel is asked for."""
    run(core)
    before = everything(core)[1]
    core.kernel.refuse = True

    with pytest.raises(KernelError):
        asyncio.run(sandboxes.connect(core, "web", EndpointRequest(network="back")))
    assert before == everything(core)[1]
    assert core.kernel.kicks


def test_a_store_that_is_full_changes_nothing(core, store):
    """Whatever is asked: state, ports and plans are as before."""
    run(core, publish=["8080:80"])
    store.full = True
    before = everything(core)

    for work in (
        lambda: run(core, "db", publish=["9090:90"]),
        lambda: asyncio.run(sandboxes.connect(core, "web", EndpointRequest(network="back"))),
        lambda: asyncio.run(sandboxes.disconnect(core, "web", "front")),
        lambda: asyncio.run(sandboxes.stopped(core, "web")),
        lambda: asyncio.run(sandboxes.remove(core, "web")),
        lambda: asyncio.run(networks.create(core, NetworkRequest(name="x"))),
        lambda: asyncio.run(networks.remove(core, "back")),
    ):
        with pytest.raises(StoreError):
            work()
        assert before == everything(core)


def test_operations_on_one_sandbox_take_turns(core):
    """Two at once: the second one sees what the first one did, or that the sandbox has gone."""
    run(core, publish=["8080:80"])
    calm = core.kernel.change

    async def slow(name, resources):
        await asyncio.sleep(0)
        await calm(name, resources)

    core.kernel.change = slow

    async def work(*jobs):
        tasks = [asyncio.ensure_future(job) for job in jobs]
        await asyncio.wait(tasks)
        return [task.exception() for task in tasks]

    first = asyncio.run(
        work(
            sandboxes.stopped(core, "web"),
            sandboxes.started(core, "web", "feed", os.getpid()),
            sandboxes.connect(core, "web", EndpointRequest(network="back")),
        )
    )
    assert [None] * 3 == first
    assert Phase.RUNNING is core.state.sandbox("web").phase
    assert core.bindings.held

    second = asyncio.run(
        work(
            sandboxes.remove(core, "web"),
            sandboxes.connect(core, "web", EndpointRequest(network="bridge")),
            sandboxes.started(core, "web"),
            sandboxes.remove(core, "web"),
        )
    )
    assert [None, NotFound, NotFound, NotFound] == [e if e is None else type(e) for e in second]
    assert {} == core.state.sandboxes == core.state.endpoints == core.bindings.held
    assert [] == [name for name in core.kernel.plans if name.startswith("sandbox/")]


def test_a_macvlan_container_does_not_get_the_host_s_own_address(core):
    """On a shared wire the host is there too; asked for, its address is refused by name."""
    core.local = lambda: {ip_address("10.78.0.1"), ip_address("10.78.0.2")}
    request = NetworkRequest(
        name="wire",
        driver="macvlan",
        subnets=["10.78.0.0/29"],
        options={"parent": "lo"},
        ipv6=False,
    )
    asyncio.run(networks.create(core, request))

    found = run(core, "web", "wire")
    assert "10.78.0.3" == str(core.state.attachments(found.id)[0].endpoint.v4)
    with pytest.raises(Conflict, match="held by this host"):
        run(core, "db", networks=[EndpointRequest(network="wire", ip="10.78.0.2")])
